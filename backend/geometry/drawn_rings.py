"""Rings that stand for shapes without a line of their own: ellipses, and points."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]  # (k, 2)
_ELLIPSE_POINTS = 24


def inscribed_ellipse(corners: npt.ArrayLike) -> Ring:
    """Return the ellipse (24, 2) that touches the middle of each side of a box; `corners` (4, 2) go around the box.

    The box may be turned. Points of both axes' percent are fine, because an affine map keeps the touching points.

    >>> inscribed_ellipse([(0, 0), (8, 0), (8, 4), (0, 4)])[[0, 6, 12, 18]].round(9).tolist()
    [[8.0, 2.0], [4.0, 4.0], [0.0, 2.0], [4.0, 0.0]]
    """
    ring = np.asarray(corners, dtype=np.float64)
    across, down = (ring[1] - ring[0]) / 2, (ring[3] - ring[0]) / 2
    angles = np.linspace(0, 2 * math.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
    outline: Ring = ring.mean(axis=0) + np.cos(angles) * across + np.sin(angles) * down
    return outline


def diamond(x: float, y: float, half: float) -> Ring:
    """Return the square (4, 2) on its tip that shows the point (x, y).

    >>> diamond(5, 5, 1).tolist()
    [[4.0, 5.0], [5.0, 4.0], [6.0, 5.0], [5.0, 6.0]]
    """
    return np.array([(x - half, y), (x, y - half), (x + half, y), (x, y + half)], dtype=np.float64)
