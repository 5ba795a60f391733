"""Masks, and the rings around their parts and holes.

Rings are in pixels: the pixel (row, column) is the square from (column, row) to (column + 1, row + 1). A pixel is
inside when its centre is inside by the even-odd rule over all rings, so parts and holes may come in any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from backend.types import BoolArray

TOLERANCE = 0.3  # pixels by which rings are simplified; they pass centres at 0.35 or more, so no pixel changes side
_WEIGHTS = np.array([1.0, 2.0, 1.0])
_Points = npt.NDArray[np.float64]


def fill(rings: Sequence[npt.ArrayLike], width: int, height: int) -> BoolArray:
    """Return the mask (height, width) of the area that rings (k, 2) enclose, clipped to the image.

    >>> fill([[(0, 0), (4, 0), (4, 3), (0, 3)], [(1, 1), (3, 1), (3, 2), (1, 2)]], 5, 3).astype(int)
    array([[1, 1, 1, 1, 0],
           [1, 0, 0, 1, 0],
           [1, 1, 1, 1, 0]])
    """
    crossed = np.zeros((height, width + 1), dtype=np.bool_)
    for ring in rings:
        points = np.asarray(ring, dtype=np.float64).reshape(-1, 2) - 0.5  # so that centres have whole numbers
        rows, columns = _crossings(points, np.roll(points, -1, axis=0), width, height)
        np.logical_xor.at(crossed, (rows, columns), True)
    part = crossed[_extent(crossed)]
    part[:] = np.logical_xor.accumulate(part, axis=1)
    return crossed[:, :width]


def trace(mask: BoolArray) -> tuple[_Points, ...]:
    """Return the rings (k, 2) around a mask's parts and holes; `fill` gives the same mask back.

    A ring runs half-way between the centres of pixels inside and outside: it is the level 0.5 of the bilinearly
    interpolated mask, which cuts corners and smooths steps. It is simplified by at most TOLERANCE (Douglas and
    Peucker).

    >>> mask = np.zeros((9, 9), np.bool_)
    >>> mask[1:8, 1:8], mask[3:6, 3:6] = True, False
    >>> [(float(ring.min()), float(ring.max()), len(ring)) for ring in trace(mask)], trace(mask[:1])
    ([(3.0, 6.0, 8), (1.0, 8.0, 8)], ())
    """
    import cv2

    rows, columns = _extent(mask)
    part = mask[rows, columns]
    # Twice the resolution: centres of pixels have even indices, and the points half-way between them odd indices.
    fine = np.zeros((2 * part.shape[0] + 3, 2 * part.shape[1] + 3), dtype=np.uint8)
    fine[2:-2:2, 2:-2:2] = part
    cv2.sepFilter2D(fine, -1, _WEIGHTS, _WEIGHTS, dst=fine)  # quarters of a pixel; in place, as `fine` is large
    np.greater_equal(fine, 2, out=fine.view(np.bool_))
    contours, _ = cv2.findContours(fine, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    rings = (cv2.approxPolyDP(contour, 2 * TOLERANCE, True)[:, 0] for contour in contours)
    return tuple((ring - 1) / 2 + (columns.start, rows.start) for ring in rings)


def coarse_trace(mask: BoolArray, side: int, most: int) -> tuple[_Points, ...]:
    """Return rings around a mask on a coarse grid of at most `side` cells a side, with at most `most` points.

    A cell is inside if one of its pixels is, so a thin stroke stays visible. Rings are in pixels of the mask. If they
    have too many points, the cells grow until they have not.

    >>> [ring.tolist() for ring in coarse_trace(np.ones((2, 4), np.bool_), side=2, most=9)]
    [[[0.0, 1.0], [1.0, 2.0], [3.0, 2.0], [4.0, 1.0], [3.0, 0.0], [1.0, 0.0]]]
    """
    longest = max(mask.shape)
    cell = max(1, -(-longest // side))
    while True:
        rows, columns = (np.arange(0, length, cell) for length in mask.shape)
        cells = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
        rings = tuple(np.minimum(ring * cell, mask.shape[::-1]) for ring in trace(cells))
        if sum(map(len, rings)) <= most or cell >= longest:
            return rings
        cell *= 2


def effort(mask: BoolArray) -> tuple[int, int]:
    """Return how much work `trace` has with a mask: the pixels of its bounding box, and the edges in the box's rows.

    `trace` takes 8 bytes of memory per pixel of the box, and a ring has at least two edges.
    """
    part = mask[_extent(mask)]
    return part.size, int(np.count_nonzero(part[:, 1:] != part[:, :-1]))


def _extent(mask: BoolArray) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of a mask, empty slices for an empty mask."""
    places = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0) for at in places)
    return rows, columns


def _crossings(
    begin: _Points, end: _Points, width: int, height: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where lines (n, 2) to (n, 2) cross the rows of an image: the row, and the first column right of it."""
    # Compute every line from its upper end, so that a line and the same line backwards cancel exactly.
    down = (begin[:, 1] <= end[:, 1])[:, None]
    begin, end = np.where(down, begin, end), np.where(down, end, begin)
    first, stop = (np.clip(np.ceil(ends[:, 1]), 0, height).astype(np.int64) for ends in (begin, end))
    line = np.repeat(np.arange(len(begin)), stop - first)
    rows = np.arange(len(line)) + np.repeat(first - np.cumsum(stop - first) + (stop - first), stop - first)
    step = end[line] - begin[line]
    across = begin[line, 0] + (rows - begin[line, 1]) * step[:, 0] / step[:, 1]
    return rows, np.clip(np.ceil(across), 0, width).astype(np.int64)
