"""The gain that more labels promise: a power law through the learning curve, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.evaluation import bootstrap
from backend.evaluation.samples import Values
from backend.evaluation.stopping import POWERS

NEEDED_VERSIONS = 4  # with different numbers of labels; a power law has three parameters
MORE = 100  # labels
_Z95 = 1.96  # half of a 95% interval in standard deviations


@dataclass(frozen=True, slots=True)
class Projection:
    """The change of the quality that MORE labels promise."""

    labels: int  # now
    gain: float
    interval: tuple[float, float] | None  # 95%; None: the intervals of the measurements are not known


def project_gain(
    labels: Sequence[int],
    scores: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    rng: np.random.Generator,
    draws: int = 500,
) -> Projection | None:
    """Return the gain that MORE labels promise after the last of these measurements, None for too few of them.

    The power law is that of `stopping.fit_power_law`. For the interval it is fitted again to scores that are drawn
    from normal distributions with the measurements' 95% intervals. Measurements on the same held-out images err
    together, so the interval is rather too wide.

    >>> counts = [20, 40, 80, 160, 320]
    >>> scores = [0.9 - 2 * n**-0.5 for n in counts]
    >>> law = project_gain(counts, scores, [(s - 0.001, s + 0.001) for s in scores], np.random.default_rng(0))
    >>> round(law.gain, 3), law.interval[0] < law.gain < law.interval[1]
    (0.014, True)
    """
    if len(set(labels)) < NEEDED_VERSIONS:
        return None
    counts, y = np.array(labels, dtype=np.float64), np.array(scores, dtype=np.float64)
    gain = float(_gains(counts, y[None])[0])
    spans = [span for span in intervals if span is not None]
    if len(spans) < len(counts):
        return Projection(labels[-1], gain, None)
    deviation = np.array([(high - low) / (2 * _Z95) for low, high in spans])
    drawn = rng.normal(y, deviation, (draws, len(counts)))
    return Projection(labels[-1], gain, bootstrap.between(_gains(counts, drawn)))


def _gains(counts: Values, scores: Values) -> Values:
    """Return the gains (B,) that power laws through B rows of scores (B, m) promise."""
    least = ((scores - scores.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    gains: Values = np.zeros(len(scores))
    for power in POWERS:
        x = -(counts**-power)
        centred, y = x - x.mean(), scores - scores.mean(axis=1, keepdims=True)
        scale = y @ centred / (centred**2).sum()
        error = ((y - scale[:, None] * centred) ** 2).sum(axis=1)
        is_better = (scale > 0) & (error < least)
        last = counts[-1]
        gain = scale * (math.pow(last, -power) - math.pow(last + MORE, -power))
        gains = np.where(is_better, gain, gains)
        least = np.where(is_better, error, least)
    return gains
