"""Learning curves of several seeds compared: labels to a target, area under the curve, intervals over seeds.

A curve has the labels x and the quality y of s seeds at r rounds, both (s, r). A seed starts with the same images under
every strategy, so seeds are resampled in pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[npt.NDArray[np.int64]], float]  # indexes of the drawn seeds, with repeats -> value

_EXACT = 5000  # resamples; few seeds have fewer possible resamples, and all of them are counted
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality over labels, one row per seed; raises ValueError for shapes that do not fit."""

    labels: Floats  # (s, r) images or boxes, rising along each row
    quality: Floats  # (s, r) in [0, 1]

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.quality.shape or not self.labels.size:
            raise ValueError(f"labels {self.labels.shape} and quality {self.quality.shape} must be seeds by rounds")

    def mean(self, seeds: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the mean curve of some seeds: (r,), (r,)."""
        return self.labels[seeds].mean(axis=0), self.quality[seeds].mean(axis=0)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95% bootstrap interval over seeds; low and high are NaN for a single seed."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """Return 1 or -1 if the whole interval lies above or below 0, else 0: no significant difference.

        >>> Interval(0.1, 0.02, 0.2).sign, Interval(0.1, -0.02, 0.2).sign, Interval(0.1, math.nan, math.nan).sign
        (1, 0, 0)
        """
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one strategy with random selection."""

    final: Interval  # mean quality after the last round
    area: Interval  # mean quality over the labels, the area under the curve
    final_gain: Interval  # against random
    area_gain: Interval
    share: Interval  # labels to random's final quality, as a share of random's labels; inf: not reached


def labels_to_target(labels: Floats, quality: Floats, target: float) -> float:
    """Return the labels at which the quality first reaches the target, interpolated between rounds; inf if never.

    >>> x, y = np.array([60., 120., 180.]), np.array([.4, .5, .7])
    >>> labels_to_target(x, y, .6), labels_to_target(x, y, .3), labels_to_target(x, y, .8)
    (150.0, 60.0, inf)
    """
    reaching = np.flatnonzero(quality >= target)
    if not len(reaching):
        return math.inf
    first = int(reaching[0])
    if first == 0:
        return float(labels[0])
    step = (target - quality[first - 1]) / (quality[first] - quality[first - 1])
    return float(labels[first - 1] + step * (labels[first] - labels[first - 1]))


def area(labels: Floats, quality: Floats) -> float:
    """Return the area under the curve divided by its width, the mean quality; for one round, its quality.

    >>> area(np.array([0., 1., 3.]), np.array([.0, .4, .6])), area(np.array([60.]), np.array([.4]))
    (0.4, 0.4)
    """
    width = float(labels[-1] - labels[0])
    return round(float(np.trapezoid(quality, labels)) / width, 12) if width else float(quality[0])


def bootstrap(statistic: Statistic, seeds: int) -> Interval:
    """Return a statistic of all seeds and its 95% percentile interval over resampled seeds.

    Up to 5 seeds, all resamples are counted; for more seeds, 5,000 are drawn, always the same.

    >>> gains = np.array([.01, .02, .06])
    >>> bootstrap(lambda drawn: float(gains[drawn].mean()), 3)
    Interval(value=0.03, low=0.01, high=0.06)
    """
    value = statistic(np.arange(seeds))
    if seeds < 2:
        return Interval(value, math.nan, math.nan)
    if seeds**seeds <= _EXACT:
        drawn = np.array(list(itertools.product(range(seeds), repeat=seeds)))
    else:
        drawn = np.random.default_rng(0).integers(0, seeds, (_EXACT, seeds))
    values = np.sort([statistic(seeds_drawn) for seeds_drawn in drawn])
    edge = (1 - _LEVEL) / 2
    low, high = (float(values[int(np.clip(share * len(values), 0, len(values) - 1))]) for share in (edge, 1 - edge))
    return Interval(value, low, high)


def chance(seeds: int) -> float:
    """Return the probability that all seeds prefer the same strategy although both are equally good.

    >>> chance(1), chance(3)
    (1.0, 0.25)
    """
    return 2.0 ** (1 - seeds)


def compare(curve: Curve, random: Curve) -> Comparison:
    """Return the comparison of a strategy with random selection; both curves must have the same seeds and rounds."""
    seeds = len(curve.labels)

    def final_gain(drawn: npt.NDArray[np.int64]) -> float:
        """Return the mean gain after the last round."""
        return float((curve.quality[drawn, -1] - random.quality[drawn, -1]).mean())

    def area_gain(drawn: npt.NDArray[np.int64]) -> float:
        """Return the gain in the area under the mean curve."""
        return area(*curve.mean(drawn)) - area(*random.mean(drawn))

    def share(drawn: npt.NDArray[np.int64]) -> float:
        """Return the labels to random's final quality, as a share of random's labels."""
        labels, quality = random.mean(drawn)
        return labels_to_target(*curve.mean(drawn), float(quality[-1])) / float(labels[-1])

    return Comparison(
        final=bootstrap(lambda drawn: float(curve.quality[drawn, -1].mean()), seeds),
        area=bootstrap(lambda drawn: area(*curve.mean(drawn)), seeds),
        final_gain=bootstrap(final_gain, seeds),
        area_gain=bootstrap(area_gain, seeds),
        share=bootstrap(share, seeds),
    )
