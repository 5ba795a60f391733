"""Calibration: one temperature, fitted on the validation set, that makes a confidence the probability of being right.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. The paper scales a softmax, as here for single
choices; for detections the logits of sigmoid scores are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.pool import Pool, by_label
from backend.model_versions import Calibration
from backend.types import Outcomes

ENOUGH = 30  # detections that a fit needs; with fewer, the temperature would be noise
ENOUGH_OF_EACH = 5  # true positives that a fit needs, and false positives
COLDEST, HOTTEST = 0.1, 10.0
_EDGE = 1e-6  # a sigmoid that rounds to 0 or 1 has no finite logit


def scaled(p: npt.ArrayLike, temperature: float) -> npt.NDArray[Any]:
    """Return σ(logit(p) / T): probabilities of any shape -> the same shape and float type, never NaN for p in [0, 1].

    Raises ValueError for a temperature that is not finite and positive.

    >>> scaled([.9, .5, 0., 1.], 2.).round(2)
    array([0.75, 0.5 , 0.  , 1.  ])
    """
    _check(temperature)
    p = np.asarray(p)
    if temperature == 1.0:
        return p
    return (1.0 / (1.0 + np.exp(-_logits(p) / temperature))).astype(p.dtype)


def softened(p: npt.ArrayLike, temperature: float) -> npt.NDArray[Any]:
    """Return p^(1/T) / Σ p^(1/T), the softmax of logits over T: distributions (n, C) -> (n, C), of the same float type.

    Raises ValueError for a temperature that is not finite and positive.

    >>> softened([[.9, .1, 0.], [.5, .3, .2]], 2.).round(2)
    array([[0.75, 0.25, 0.  ],
           [0.42, 0.32, 0.26]])
    """
    _check(temperature)
    p = np.asarray(p)
    if temperature == 1.0:
        return p
    logs = np.log(np.maximum(p.astype(np.float64), _EDGE**2)) / temperature
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True)).astype(p.dtype)


def calibrated(pool: Pool, temperature: float, outcomes: Outcomes) -> Pool:
    """Return a scored pool with calibrated class scores, and with one row for each decision of the model.

    The class scores of a box are one row, and so is a single choice. A multi-label image gets one row per label.
    """
    if outcomes == "one":
        return replace(pool, class_probs=softened(pool.class_probs, temperature), exclusive=True)
    pool = replace(pool, class_probs=scaled(pool.class_probs, temperature))
    return by_label(pool) if outcomes == "several" else pool


def fit(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Calibration:
    """Return the temperature in 0.1 … 10 with the least negative log-likelihood: (k,) in [0, 1], (k,) true positives.

    T stays 1, with a reason, if there are too few true or false positives, or if no other T is better. Raises
    ValueError for shapes that do not fit and for confidences that are NaN or outside [0, 1].
    """
    p, true = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    if p.ndim != 1 or p.shape != true.shape:
        raise ValueError(f"{p.shape} confidences do not fit {true.shape} verdicts")
    if not ((p >= 0) & (p <= 1)).all():  # false for NaN
        raise ValueError("confidences must lie in [0, 1]")
    if (few := _too_few(true)) is not None:
        return few
    signed = _logits(p) * np.where(true, 1.0, -1.0)
    # The mean of ln(1 + e^(−z/T)), z being the logit of the true outcome.
    return _best(len(p), lambda coldness: float(np.logaddexp(0.0, -signed * coldness).mean()))


def fit_choice(probs: npt.ArrayLike, chosen: npt.ArrayLike) -> Calibration:
    """Return the temperature in 0.1 … 10 with the least negative log-likelihood of the `chosen` classes.

    `probs` (k, C) are distributions, `chosen` (k,) the class indexes that annotators chose. The most likely class
    counts as the detection; T stays 1 as in `fit`. Raises ValueError for shapes that do not fit.
    """
    p, classes = np.asarray(probs, dtype=np.float64), np.asarray(chosen, dtype=np.int64)
    if p.ndim != 2 or classes.shape != p.shape[:1]:
        raise ValueError(f"{p.shape} probabilities do not fit {classes.shape} classes")
    right = p.argmax(axis=1) == classes if p.size else np.zeros(0, np.bool_)
    if (few := _too_few(right)) is not None:
        return few
    logs = np.log(np.maximum(p, _EDGE**2))
    true = logs[np.arange(len(p)), classes]
    return _best(
        len(p), lambda coldness: float((np.logaddexp.reduce(logs * coldness, axis=1) - true * coldness).mean())
    )


def _check(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature {temperature} must be finite and positive")


def _logits(p: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    p = np.clip(p.astype(np.float64), _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def _too_few(true: npt.NDArray[np.bool_]) -> Calibration | None:
    """Return the calibration that names too few detections as its reason; None if there are enough."""
    rarer = min(int(true.sum()), int((~true).sum()))
    if len(true) >= ENOUGH and rarer >= ENOUGH_OF_EACH:
        return None
    reason = f"{len(true)} validation detections, {rarer} of the rarer kind (true or false)"
    return Calibration(detections=len(true), reason=f"{reason}; it takes {ENOUGH} and {ENOUGH_OF_EACH}")


def _best(detections: int, nll: Callable[[float], float]) -> Calibration:
    """Return the temperature with the least `nll` by Brent's method; `nll` is convex in 1/T."""
    from scipy.optimize import minimize_scalar  # takes half a second to import

    least = minimize_scalar(nll, bounds=(1.0 / HOTTEST, 1.0 / COLDEST), method="bounded", options={"xatol": 1e-9})
    before, after = nll(1.0), float(least.fun)
    if before - after < 1e-9:
        return Calibration(1.0, detections, before, before, "no other temperature is better")
    return Calibration(1 / float(least.x), detections, before, after)
