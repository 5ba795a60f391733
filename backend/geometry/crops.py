"""Crops around boxes: what a model of single objects sees of an image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backend.types import IntArray

PADDING = 0.1  # of a box's longer side: what a crop shows around the box, on each side


def around(boxes: npt.ArrayLike, width: int, height: int) -> IntArray:
    """Return the crops (n, 4) of boxes (n, 4), both xyxy in pixels: the boxes with PADDING, cut at the image's border.

    A crop has whole pixels, and at least one.

    >>> around([[10, 20, 30, 60], [0, 0, 100, 50]], 100, 50).tolist()
    [[6, 16, 34, 50], [0, 0, 100, 50]]
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = corners[:, 2:] - corners[:, :2]
    padding = PADDING * sides.max(axis=1, keepdims=True, initial=0.0)
    size = np.array([width, height])
    low = np.clip(np.floor(corners[:, :2] - padding), 0, size - 1)
    high = np.clip(np.ceil(corners[:, 2:] + padding), low + 1, size)
    whole: IntArray = np.concatenate([low, high], axis=1).astype(np.int64)
    return whole
