"""Class weights for pools with a long tail: rare or poorly detected classes count more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.types import FloatArray, IntArray


def class_weights(quality: npt.NDArray[np.floating[Any]], *, alpha: float = 0.3, beta: float = 0.2) -> FloatArray:
    """Return PPAL's weights 1 + αβ ln((e^(1/α) − 1)(1 − q) + 1): quality (C,) in [0, 1] -> (C,), from 1 to 1 + β.

    q is the mean over a class's validation matches of p^0.6·IoU^0.4; NaN (no match) counts as 0.
    Source: Yang et al., Plug and Play Active Learning for Object Detection, CVPR 2024.

    >>> class_weights(np.array([1.0, 0.5, 0.0])).round(4).tolist() == np.float32([1.0, 1.1605, 1.2]).tolist()
    True
    """
    q = np.clip(np.nan_to_num(np.asarray(quality, dtype=np.float64)), 0.0, 1.0)
    weights = 1.0 + alpha * beta * np.log((np.exp(1.0 / alpha) - 1.0) * (1.0 - q) + 1.0)
    return np.asarray(weights, dtype=np.float32)


def match_quality(confidence: FloatArray, classes: IntArray, overlap: FloatArray, count: int) -> FloatArray:
    """Return PPAL's quality of each class: the mean of p^0.6·IoU^0.4 over its matches, NaN without a match (C,).

    The arguments describe k detections: `confidence` (k,), predicted class (k,) out of `count`, and IoU with the
    matched label (k,), 0 for no match.

    >>> match_quality(np.array([.9, .9, .4]), np.array([0, 0, 1]), np.array([.8, 0., 0.]), 2).round(4)
    array([0.8586,    nan])
    """
    hit = overlap > 0
    quality = confidence[hit] ** 0.6 * overlap[hit] ** 0.4
    sums = np.bincount(classes[hit], weights=quality, minlength=count)
    matches = np.bincount(classes[hit], minlength=count)
    return np.where(matches > 0, sums / np.maximum(matches, 1), np.nan)


def long_tail(ap: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Return the stronger weights 1 + 2(1 − AP_c / max AP): AP50 of each class (C,) -> (C,), from 1 to 3.

    A class without validation boxes has the AP NaN. It counts as 0, because such a class is rare. While every AP is 0,
    all weights are 1, because nothing tells the classes apart.

    >>> long_tail(np.array([0.8, 0.4, np.nan])), long_tail(np.zeros(2))
    (array([1., 2., 3.], dtype=float32), array([1., 1.], dtype=float32))
    """
    ap50 = np.clip(np.nan_to_num(np.asarray(ap, dtype=np.float64)), 0.0, 1.0)
    best = ap50.max(initial=0.0)
    if best <= 0.0:
        return np.ones(ap50.shape, dtype=np.float32)
    return np.asarray(1.0 + 2.0 * (1.0 - ap50 / best), dtype=np.float32)


def by_setting(
    kind: str, classes: Sequence[str], ap50: Mapping[str, float], quality: Mapping[str, float]
) -> FloatArray | None:
    """Return the weight of each class (C,) for a value of the setting CLASS_WEIGHTS; None: all weights are equal.

    `ap50` and PPAL's `quality` are by class name. A class that they lack counts as 0.

    >>> by_setting("long_tail", ("cat", "dog"), {"cat": 0.8}, {}), by_setting("none", ("cat",), {"cat": 0.8}, {})
    (array([1., 3.], dtype=float32), None)
    """
    if kind == "none":
        return None
    if kind == "ppal":
        return class_weights(np.array([quality.get(name, 0.0) for name in classes]))
    return long_tail(np.array([ap50.get(name, 0.0) for name in classes]))
