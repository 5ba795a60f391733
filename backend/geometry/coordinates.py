"""Boxes in three coordinate systems: pixels (models), percent (Label Studio) and normalised (YOLO labels).

pixels      x1, y1, x2, y2       float array (n, 4), origin top left
percent     x, y, width, height  0..100 of the image, x and y of the top-left corner
normalised  x, y, width, height  0..1 of the image, x and y of the centre
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from backend.types import IntArray, LabeledBox, Point, Prediction, Ring

Box = tuple[float, float, float, float]
Boxes = npt.NDArray[np.float64]


def clip_pixels(boxes: npt.ArrayLike, width: float, height: float) -> Boxes:
    """Return xyxy boxes (n, 4) clipped to the image.

    >>> clip_pixels([[-5, 10, 120, 40]], width=100, height=50).tolist()
    [[0.0, 10.0, 100.0, 40.0]]
    """
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.clip(xyxy, 0.0, (width, height, width, height))


def pixels_to_percent(boxes: npt.ArrayLike, width: float, height: float) -> Boxes:
    """Return pixel boxes (n, 4) as percent boxes (n, 4).

    >>> pixels_to_percent([[20, 10, 60, 30]], width=200, height=100).tolist()
    [[10.0, 10.0, 20.0, 20.0]]
    """
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = 100.0 * xyxy / (width, height, width, height)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def percent_boxes(prediction: Prediction) -> Boxes:
    """Return a prediction's boxes in percent, clipped to the image (n, 4)."""
    inside = clip_pixels(prediction.boxes, prediction.width, prediction.height)
    return pixels_to_percent(inside, prediction.width, prediction.height)


def label_arrays(
    labels: Sequence[LabeledBox], classes: Sequence[str], width: float, height: float
) -> tuple[Boxes, IntArray]:
    """Return l labels as pixel boxes (l, 4) and class indices (l,), -1 for a label that is not in `classes`.

    >>> label_arrays([LabeledBox("cat", (0.5, 0.5, 0.2, 0.4))], ("dog", "cat"), 200, 100)
    (array([[ 80.,  30., 120.,  70.]]), array([1]))
    """
    xywh = np.array([label.xywh for label in labels], dtype=np.float64).reshape(-1, 4) * (width, height, width, height)
    number = {name: index for index, name in enumerate(classes)}
    kinds = np.array([number.get(label.label, -1) for label in labels], dtype=np.int64)
    return np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], axis=1), kinds


def class_hulls(labels: Sequence[LabeledBox]) -> tuple[LabeledBox, ...]:
    """Return one box per label name, around all boxes with that name, as a semantic segmentation model predicts them.

    >>> class_hulls([LabeledBox("cat", (0.25, 0.5, 0.5, 1.0)), LabeledBox("cat", (0.875, 0.5, 0.25, 0.5))])
    (LabeledBox(label='cat', xywh=(0.5, 0.5, 1.0, 1.0), outline=(), keypoints=(), frame=0, last=0, note=''),)
    """
    hulls = []
    for name in dict.fromkeys(label.label for label in labels):
        xyxy, _ = label_arrays([label for label in labels if label.label == name], (name,), 1, 1)
        low, high = xyxy[:, :2].min(axis=0), xyxy[:, 2:].max(axis=0)
        hulls.append(LabeledBox(name, (*((low + high) / 2).tolist(), *(high - low).tolist())))
    return tuple(hulls)


def percent_to_normalised(box: Box) -> Box:
    """Return a percent box as a normalised box.

    >>> percent_to_normalised((10.0, 20.0, 30.0, 40.0))
    (0.25, 0.4, 0.3, 0.4)
    """
    x, y, w, h = box
    return (x + w / 2) / 100, (y + h / 2) / 100, w / 100, h / 100


def normalised_to_percent(box: Box) -> Box:
    """Return a normalised box as a percent box.

    >>> normalised_to_percent((0.25, 0.5, 0.5, 0.25))
    (0.0, 37.5, 50.0, 25.0)
    """
    x, y, w, h = box
    return 100 * (x - w / 2), 100 * (y - h / 2), 100 * w, 100 * h


def clip_percent(box: Box) -> Box:
    """Return a percent box clipped to the image; a box outside the image gets width or height 0.

    >>> clip_percent((-10.0, 90.0, 50.0, 50.0))
    (0.0, 90.0, 40.0, 10.0)
    >>> clip_percent((110.0, 0.0, 5.0, 5.0))
    (100.0, 0.0, 0.0, 5.0)
    """
    x, y, w, h = box
    left, top = min(max(x, 0.0), 100.0), min(max(y, 0.0), 100.0)
    right, bottom = min(max(x + w, 0.0), 100.0), min(max(y + h, 0.0), 100.0)
    return left, top, right - left, bottom - top


def rotated_hull(box: Box, rotation: float, width: float, height: float) -> Box:
    """Return the smallest upright percent box around a percent box that is rotated by `rotation` degrees.

    Label Studio rotates a region clockwise about its top-left corner, in pixels. One percent of the width and one
    percent of the height are different lengths, so this needs the image's `width` and `height`.

    >>> [round(v, 9) for v in rotated_hull((50.0, 50.0, 10.0, 20.0), 90.0, width=200, height=100)]
    [40.0, 50.0, 10.0, 20.0]
    """
    x, y, w, h = box
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    across, down = w * width / 100, h * height / 100
    corners = [(a * cos - d * sin, a * sin + d * cos) for a in (0.0, across) for d in (0.0, down)]
    left, right = min(c[0] for c in corners), max(c[0] for c in corners)
    top, bottom = min(c[1] for c in corners), max(c[1] for c in corners)
    return x + 100 * left / width, y + 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height


def rotated_corners(box: Box, rotation: float, width: float, height: float) -> Ring:
    """Return the corners, in 0..1 of the image, of a percent box that is rotated by `rotation` degrees.

    The first corner is the top left, about which Label Studio rotates; the others follow clockwise. `width` and
    `height` are those of the image, as in `rotated_hull`.

    >>> [(round(x, 9), round(y, 9)) for x, y in rotated_corners((50.0, 50.0, 10.0, 20.0), 90.0, 200, 100)]
    [(0.5, 0.5), (0.5, 0.7), (0.4, 0.7), (0.4, 0.5)]
    """
    x, y, w, h = box
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    across, down = w * width / 100, h * height / 100
    return tuple(
        (x / 100 + (a * cos - d * sin) / width, y / 100 + (a * sin + d * cos) / height)
        for a, d in ((0.0, 0.0), (across, 0.0), (across, down), (0.0, down))
    )


def corners_of(rotated: npt.ArrayLike) -> Boxes:
    """Return the corners (n, 4, 2) of boxes (n, 5): x centre, y centre, width, height, radians clockwise.

    The corners have the order of `rotated_corners`.

    >>> corners_of([[50, 50, 20, 10, 0]]).tolist()
    [[[40.0, 45.0], [60.0, 45.0], [60.0, 55.0], [40.0, 55.0]]]
    """
    x, y, w, h, angle = np.asarray(rotated, dtype=np.float64).reshape(-1, 5).T
    across = np.stack([w * np.cos(angle), w * np.sin(angle)], axis=1) / 2
    down = np.stack([-h * np.sin(angle), h * np.cos(angle)], axis=1) / 2
    centre = np.stack([x, y], axis=1)
    return np.stack([centre - across - down, centre + across - down, centre + across + down, centre - across + down], 1)


def ring_hull(ring: Ring) -> Box:
    """Return the smallest upright box around a ring: x centre, y centre, width, height.

    >>> ring_hull(((0.25, 0.25), (0.75, 0.25), (0.5, 0.5)))
    (0.5, 0.375, 0.5, 0.25)
    """
    across, down = [x for x, _ in ring], [y for _, y in ring]
    left, right, top, bottom = min(across), max(across), min(down), max(down)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def upright_corners(xywh: Box) -> Ring:
    """Return the corners of a box that is given by its centre and size.

    >>> upright_corners((0.5, 0.5, 0.5, 1.0))
    ((0.25, 0.0), (0.75, 0.0), (0.75, 1.0), (0.25, 1.0))
    """
    x, y, width, height = xywh
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return (left, top), (right, top), (right, bottom), (left, bottom)


def ring_area(ring: Ring) -> float:
    """Return the area inside a ring that does not cross itself (the shoelace formula).

    >>> ring_area(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0))), ring_area(())
    (0.25, 0.0)
    """
    pairs = zip(ring, ring[1:] + ring[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def bridged(rings: Sequence[Ring]) -> Ring:
    """Return parts and holes as one ring, for formats that store one ring per object; empty for no rings.

    A line between the nearest points joins a ring to the rings before it, and a second line leads back. By the even-odd
    rule the joined ring encloses the same area as the rings.

    >>> bridged([((0, 0), (9, 0), (9, 9), (0, 9)), ((3, 3), (3, 6), (6, 3))])
    ((0, 0), (3, 3), (3, 6), (6, 3), (3, 3), (0, 0), (9, 0), (9, 9), (0, 9))
    """
    points = [point for ring in rings for point in ring]
    places = np.array(points, dtype=np.float64).reshape(-1, 2)
    starts = np.cumsum([0, *(len(ring) for ring in rings if ring)]).tolist()
    after = list(range(1, len(points) + 1))  # index of the next point, first in its own ring, then in the joined ring
    for start, stop in pairwise(starts):
        after[stop - 1] = start
    for start, stop in pairwise(starts[1:]):
        here, there = _nearest(places[:start], places[start:stop])
        there += start
        after[there - 1 if there > start else stop - 1] = len(after)
        after += [len(after) + 1, after[here]]  # the copies of `there` and of `here`, which make the way back
        after[here] = there
        points += [points[there], points[here]]
    joined = [0] if points else []
    while joined and after[joined[-1]]:
        joined.append(after[joined[-1]])
    return tuple(points[index] for index in joined)


def _nearest(some: Boxes, others: Boxes) -> tuple[int, int]:
    """Return the indices of the two points, one of (n, 2) and one of (m, 2), that are nearest to each other."""
    closest = (math.inf, 0, 0)
    rows = max(2**20 // len(others), 1)  # in blocks, as all distances of two long rings would fill the memory
    for first in range(0, len(some), rows):
        part = some[first : first + rows, None]
        gaps = (part[..., 0] - others[:, 0]) ** 2 + (part[..., 1] - others[:, 1]) ** 2
        row, column = divmod(int(gaps.argmin()), len(others))
        closest = min(closest, (float(gaps[row, column]), first + row, column))
    return closest[1:]


def clip_ring(ring: Ring) -> Ring:
    """Return the part of a ring inside the unit square, empty if there is none (Sutherland and Hodgman, 1974).

    >>> clip_ring(((-0.5, 0.25), (0.5, 0.25), (0.5, 0.75), (-0.5, 0.75)))
    ((0.0, 0.25), (0.5, 0.25), (0.5, 0.75), (0.0, 0.75))
    >>> clip_ring(((2.0, 0.0), (3.0, 0.0), (3.0, 1.0)))
    ()
    """
    for axis in (0, 1):
        for limit, sign in ((0.0, 1.0), (1.0, -1.0)):
            ring = _clip_side(ring, axis, limit, sign)
    return ring


def _clip_side(ring: Ring, axis: int, limit: float, sign: float) -> Ring:
    """Return the part of a ring on one side of the line at `limit` on `axis`: above it for sign 1, below it for -1."""
    clipped: list[Point] = []
    for before, after in zip(ring[-1:] + ring[:-1], ring, strict=True):
        inside = [sign * (point[axis] - limit) for point in (before, after)]
        if (inside[0] < 0) != (inside[1] < 0):
            share = inside[0] / (inside[0] - inside[1])
            cut = [a + share * (b - a) for a, b in zip(before, after, strict=True)]
            cut[axis] = limit
            clipped.append((cut[0], cut[1]))
        if inside[1] >= 0:
            clipped.append(after)
    return tuple(clipped)


def iou(boxes: npt.ArrayLike, others: npt.ArrayLike) -> Boxes:
    """Return the intersection over union of all pairs of xyxy boxes: (n, 4), (m, 4) -> (n, m).

    Two boxes without area have 0.

    >>> iou([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]]).round(4)
    array([[1.    , 0.3333, 0.    ]])
    """
    left = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    right = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    shared = np.clip(sides, 0.0, None).prod(axis=-1)
    areas = [np.clip(box[..., 2:] - box[..., :2], 0.0, None).prod(axis=-1) for box in (left, right)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
