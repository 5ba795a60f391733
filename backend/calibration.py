"""Calibration: one temperature that makes confidences mean what they say, fitted on the validation set.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, for sigmoid scores of detections.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.pools import Pool
from backend.types import Calibration

ENOUGH = 30  # detections, below which a temperature would be chance
ENOUGH_OF_EACH = 5  # true ones, and false ones
COLDEST, HOTTEST = 0.1, 10.0
_EDGE = 1e-6  # a sigmoid that rounds to 0 or 1 has no finite logit
_STEPS = 60  # of golden section search: the bracket shrinks to 1e-12 of its width
_GOLDEN = (math.sqrt(5) - 1) / 2


def scaled(p: npt.ArrayLike, temperature: float) -> npt.NDArray[Any]:
    """Return σ(logit(p) / T): probabilities of any shape -> the same shape and float type, never NaN for p in [0, 1].

    Raises ValueError for a temperature that is not finite and positive.

    >>> scaled([.9, .5, 0., 1.], 2.).round(2)
    array([0.75, 0.5 , 0.  , 1.  ])
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature {temperature} must be finite and positive")
    p = np.asarray(p)
    if temperature == 1.0:
        return p
    return (1.0 / (1.0 + np.exp(-_logits(p) / temperature))).astype(p.dtype)


def calibrated(pool: Pool, temperature: float) -> Pool:
    """Return the pool with calibrated class scores."""
    return replace(pool, class_probs=scaled(pool.class_probs, temperature))


def fit(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Calibration:
    """Return the temperature in 0.1 … 10 with the least negative log-likelihood: (k,) in [0, 1], (k,) true positives.

    T stays 1, with the reason, while there are too few detections of either kind, and where none is better. Raises
    ValueError for shapes that do not fit and for confidences that are NaN or outside [0, 1].
    """
    p, true = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    if p.ndim != 1 or p.shape != true.shape:
        raise ValueError(f"{p.shape} confidences do not fit {true.shape} verdicts")
    if not ((p >= 0) & (p <= 1)).all():  # NaN is neither
        raise ValueError("confidences must lie in [0, 1]")
    few = min(int(true.sum()), int((~true).sum()))
    if len(p) < ENOUGH or few < ENOUGH_OF_EACH:
        return Calibration(
            detections=len(p),
            reason=f"{len(p)} validation detections, {few} of the rarer kind (true or false); "
            f"it takes {ENOUGH} and {ENOUGH_OF_EACH}",
        )
    signed = _logits(p) * np.where(true, 1.0, -1.0)
    before = _nll(signed, 1.0)
    temperature = 1.0 / _coldness(signed)
    after = _nll(signed, temperature)
    if before - after < 1e-9:
        return Calibration(1.0, len(p), before, before, "no other temperature is better")
    return Calibration(temperature, len(p), before, after)


def _logits(p: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    p = np.clip(p.astype(np.float64), _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def _nll(signed: npt.NDArray[np.float64], temperature: float) -> float:
    """Return the mean of ln(1 + e^(−z/T)), z the logit of the verdict that was right."""
    return float(np.logaddexp(0.0, -signed / temperature).mean())


def _coldness(signed: npt.NDArray[np.float64]) -> float:
    """Return the 1/T with the least likelihood loss by golden section: the loss is convex in 1/T."""
    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    for _ in range(_STEPS):
        step = _GOLDEN * (high - low)
        if _nll(signed, 1.0 / (high - step)) <= _nll(signed, 1.0 / (low + step)):
            high = low + step
        else:
            low = high - step
    return (low + high) / 2
