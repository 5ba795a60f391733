"""Tiles of a large image: where they lie, what of a box lies in one, and which boxes of all tiles are one object."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from backend.geometry.coordinates import Boxes, iou
from backend.types import BoolArray, FloatArray, IntArray

OVERLAP = 0.2  # share of a tile's side that it has in common with the next one, at least
DUPLICATE = 0.5  # overlap above which boxes of one class in different tiles are one object
_EDGE = 0.01  # share of a tile's side: a box so near to an inner edge of the tile may go on behind it


def grid(width: int, height: int, side: int) -> IntArray:
    """Return the tiles (n, 4), xyxy in pixels, row by row, of an image that is larger than one tile of `side` pixels.

    They cover the image, and have `side` pixels in each direction, or the whole image where it has fewer.

    >>> grid(250, 80, 100).tolist()
    [[0, 0, 100, 80], [75, 0, 175, 80], [150, 0, 250, 80]]
    """
    tiles = [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]
    return np.array(tiles, dtype=np.int64)


def common(side: int) -> int:
    """Return the pixels that a tile has in common with the next one, at least."""
    return math.ceil(OVERLAP * side)


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles begin in one direction, at equal distances."""
    if length <= side:
        return [0]
    steps = math.ceil((length - side) / max(side - common(side), 1))
    return [step * (length - side) // steps for step in range(steps + 1)]


def parts(boxes: npt.ArrayLike, tile: npt.ArrayLike) -> tuple[Boxes, FloatArray]:
    """Return what of boxes (n, 4) lies in a tile, in pixels of the tile (n, 4), and its share of each box (n,).

    >>> inside, share = parts([[90, 10, 110, 20], [0, 0, 10, 10]], [100, 0, 200, 100])
    >>> inside[0].tolist(), share.tolist()
    ([0.0, 10.0, 10.0, 20.0], [0.5, 0.0])
    """
    whole, place = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(tile, dtype=np.float64)
    origin, size = np.tile(place[:2], 2), np.tile(place[2:] - place[:2], 2)
    inside = np.clip(whole - origin, 0.0, size)
    areas = [np.clip(corners[:, 2:] - corners[:, :2], 0.0, None).prod(axis=1) for corners in (inside, whole)]
    share = np.divide(areas[0], areas[1], out=np.zeros(len(whole)), where=areas[1] > 0)
    return inside, share.astype(np.float32)


def are_cut(boxes: npt.ArrayLike, tile: npt.ArrayLike, width: int, height: int) -> BoolArray:
    """Return which boxes (n, 4), in pixels of the image, reach an edge of a tile that is not an edge of the image.

    >>> are_cut([[90, 10, 100, 20], [0, 0, 10, 10]], [0, 0, 100, 80], 250, 80).tolist()
    [True, False]
    """
    corners, place = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(tile, dtype=np.float64)
    near = _EDGE * max(place[2] - place[0], place[3] - place[1])
    low, high = corners[:, :2] <= place[:2] + near, corners[:, 2:] >= place[2:] - near
    cut: BoolArray = ((low & (place[:2] > 0)) | (high & (place[2:] < [width, height]))).any(axis=1)
    return cut


def merged(
    boxes: npt.ArrayLike, confidence: npt.ArrayLike, classes: npt.ArrayLike, tiles: npt.ArrayLike, cut: npt.ArrayLike
) -> tuple[IntArray, IntArray]:
    """Return the row of each object whose box counts, and the row whose confidence counts (k,), by falling confidence.

    `boxes` (n, 4) are xyxy in pixels of the image, `tiles` (n,) the numbers of their tiles, and `cut` (n,) tells which
    end at an edge of their tile. Boxes of one class in different tiles are one object if they overlap by more than
    DUPLICATE: their intersection over union, and if one of them is cut, over the smaller one. Boxes of one tile are
    different objects. The box of an object is the most confident one that is not cut, else the largest one; its
    confidence is the highest.

    >>> both = merged([[80, 10, 100, 30], [80, 10, 120, 30]], [0.9, 0.6], [0, 0], [0, 1], [True, False])
    >>> [rows.tolist() for rows in both]
    [[1], [0]]
    """
    corners, scores = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(confidence, dtype=np.float64)
    kinds, places, is_cut = np.asarray(classes), np.asarray(tiles), np.asarray(cut, dtype=np.bool_)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    free = np.ones(len(corners), dtype=np.bool_)
    kept, best = [], []
    for row in np.lexsort((np.where(is_cut, -areas, -scores), is_cut)).tolist():
        if not free[row]:
            continue
        others = np.flatnonzero(free & (kinds == kinds[row]) & (places != places[row]))
        same = others[_overlap(corners, areas, is_cut, row, others) > DUPLICATE]
        free[same] = free[row] = False
        kept.append(row)
        best.append(int(max([row, *same.tolist()], key=scores.__getitem__)))
    order = np.argsort(-scores[best], kind="stable") if best else np.zeros(0, dtype=np.int64)
    return np.array(kept, dtype=np.int64)[order], np.array(best, dtype=np.int64)[order]


def _overlap(corners: Boxes, areas: Boxes, is_cut: BoolArray, row: int, others: IntArray) -> Boxes:
    """Return how much a box overlaps others (m,): over the union, and over the smaller box if one of them is cut."""
    over_union = iou(corners[[row]], corners[others])[0]
    both = areas[row] + areas[others]
    shared = over_union * both / (1 + over_union)  # u = s / (both - s)
    smaller = np.minimum(areas[row], areas[others])
    over_smaller = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    return np.where(is_cut[row] | is_cut[others], over_smaller, over_union)
