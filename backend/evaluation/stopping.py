"""Whether more labels are worth the work: a recommendation with reasons; labeling is never stopped automatically."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.acquisition.pool import Pool
from backend.acquisition.uncertainty import row_uncertainty
from backend.evaluation import basis

PLATEAU_ROUNDS, PLATEAU_GAIN = 3, 0.01  # mAP50
CERTAIN = 0.1  # mean uncertainty, in [0, 1]
STABLE_ROUNDS, STABLE_F1 = 3, 0.98
WORTH_PER_100 = 0.005  # mAP50 per 100 labels
ENOUGH_SIGNS = 2
POWERS = np.arange(5, 301) / 100  # that a power law may have


@dataclass(frozen=True, slots=True)
class RoundMeasurements:
    """The measurements after one training; None: not measured."""

    labels: int  # annotated images
    map50: float
    uncertainty: float | None = None  # of the unlabeled pool, 0..1
    stability: float | None = None  # F1@.5 with the version before on unlabeled images, or frames of videos
    judged_on: int = 0  # number of held-out images behind map50
    interval: tuple[float, float] | None = None  # 95% interval of map50


@dataclass(frozen=True, slots=True)
class Sign:
    """A possible reason to stop, and whether it holds."""

    name: str
    met: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Whether to stop, and all signs. A spent budget suffices; of the others two are needed, as one may be noise."""

    stop: bool
    signs: tuple[Sign, ...]


def recommend(rounds: Sequence[RoundMeasurements], *, labels: int, budget: int = 0) -> Recommendation:
    """Return whether to stop after these rounds (oldest first) with this number of labels; budget 0: no budget."""
    rounds = [round_ for round_ in rounds if math.isfinite(round_.map50)]
    spent = _budget(labels, budget)
    signs = (_plateau(rounds), _certain(rounds), _stable(rounds), _extrapolated(rounds))
    return Recommendation(spent.met or sum(sign.met for sign in signs) >= ENOUGH_SIGNS, (spent, *signs))


def _budget(labels: int, budget: int) -> Sign:
    if not budget:
        return Sign("budget", False, "no budget is set")
    return Sign("budget", labels >= budget, f"{labels} of {budget} labels are used")


def _plateau(rounds: Sequence[RoundMeasurements]) -> Sign:
    if len(rounds) <= PLATEAU_ROUNDS:
        return Sign("plateau", False, f"{len(rounds)} rounds are too few, {PLATEAU_ROUNDS + 1} are needed")
    best_before = max(round_.map50 for round_ in rounds[:-PLATEAU_ROUNDS])
    gain = max(round_.map50 for round_ in rounds[-PLATEAU_ROUNDS:]) - best_before
    reason = f"the last {PLATEAU_ROUNDS} rounds changed mAP50 by {gain:+.3f}{_now(rounds[-1])}"
    return Sign("plateau", gain < PLATEAU_GAIN, reason)


def _now(last: RoundMeasurements) -> str:
    """Return the newest mAP50 with its interval and its basis, "" if these are not known."""
    if not last.judged_on:
        return ""
    return f"; it is now {last.map50:.3f}{basis.span(last.interval)} on {last.judged_on} held-out images"


def _certain(rounds: Sequence[RoundMeasurements]) -> Sign:
    value = rounds[-1].uncertainty if rounds else None
    if value is None:
        return Sign("uncertainty", False, "the uncertainty of the unlabeled images is unknown")
    return Sign("uncertainty", value < CERTAIN, f"the mean uncertainty of the pool is {value:.2f}, limit {CERTAIN}")


def _stable(rounds: Sequence[RoundMeasurements]) -> Sign:
    stabilities = [round_.stability for round_ in rounds[-STABLE_ROUNDS:] if round_.stability is not None]
    if len(stabilities) < STABLE_ROUNDS:
        return Sign("stability", False, f"{STABLE_ROUNDS} comparable rounds are needed, there are {len(stabilities)}")
    lowest = min(stabilities)
    reason = f"predictions agree to at least F1 {lowest:.3f} over {STABLE_ROUNDS} rounds, limit {STABLE_F1}"
    return Sign("stability", lowest >= STABLE_F1, reason)


def _extrapolated(rounds: Sequence[RoundMeasurements]) -> Sign:
    if len({round_.labels for round_ in rounds}) < 4:
        return Sign("extrapolation", False, "4 rounds with different numbers of labels are needed to fit a curve")
    curve = fit_power_law([round_.labels for round_ in rounds], [round_.map50 for round_ in rounds])
    gain = curve.at(rounds[-1].labels + 100) - curve.at(rounds[-1].labels)
    reason = f"100 more labels promise {gain:+.4f} mAP50, limit {WORTH_PER_100}{_now(rounds[-1])}"
    return Sign("extrapolation", gain < WORTH_PER_100, reason)


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """limit − scale · n^(−power), scale >= 0."""

    limit: float
    scale: float
    power: float

    def at(self, labels: float) -> float:
        """Return the score expected with this number of labels."""
        return self.limit - self.scale * math.pow(labels, -self.power)


def fit_power_law(labels: Sequence[int], scores: Sequence[float]) -> PowerLaw:
    """Return the power law of least squared error: the power from a grid, limit and scale by linear regression.

    If the scores do not rise, the scale is 0. Raises ValueError for label counts under 1.

    >>> law = fit_power_law([20, 40, 80, 160, 320], [.9 - 2 * n**-.5 for n in (20, 40, 80, 160, 320)])
    >>> round(law.limit, 3), round(law.scale, 3), round(law.power, 3)
    (0.9, 2.0, 0.5)
    """
    n, y = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if (n < 1).any():
        raise ValueError(f"label counts {labels} must be at least 1")
    best, least = PowerLaw(float(y.mean()), 0.0, 1.0), float(((y - y.mean()) ** 2).sum())
    for power in POWERS:
        design = np.stack([np.ones_like(n), -(n**-power)], axis=1)
        (limit, scale), *_ = np.linalg.lstsq(design, y, rcond=None)
        error = float(((design @ (limit, scale) - y) ** 2).sum())
        if scale > 0 and error < least:
            best, least = PowerLaw(float(limit), float(scale), float(power)), error
    return best


def mean_uncertainty(pool: Pool) -> float | None:
    """Return the mean over the images with boxes of their largest h(s) / ln 2, in [0, 1]; None if there is no box.

    For a choice among C classes it is the mean entropy of the images / ln C.
    """
    if not len(pool.class_probs):
        return None
    most = np.log(max(pool.class_probs.shape[1], 2) if pool.exclusive else 2)
    starts = pool.offsets[:-1][np.diff(pool.offsets) > 0]
    return float(np.maximum.reduceat(row_uncertainty(pool).astype(np.float64), starts).mean() / most)
