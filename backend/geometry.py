"""Boxes in the three spellings we meet: pixels (models), percent (Label Studio) and normalised (YOLO labels).

pixels      x1, y1, x2, y2       float array (n, 4), origin top left
percent     x, y, width, height  0..100 of the image, x and y of the top-left corner
normalised  x, y, width, height  0..1 of the image, x and y of the centre
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from backend.types import IntArray, LabeledBox

Box = tuple[float, float, float, float]
Boxes = npt.NDArray[np.float64]


def clip_pixels(boxes: npt.ArrayLike, width: float, height: float) -> Boxes:
    """Return xyxy boxes (n, 4) cut off at the borders of the image.

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


def percent_to_pixels(boxes: npt.ArrayLike, width: float, height: float) -> Boxes:
    """Return percent boxes (n, 4) as pixel boxes (n, 4).

    >>> percent_to_pixels([[10, 10, 20, 20]], width=200, height=100).tolist()
    [[20.0, 10.0, 60.0, 30.0]]
    """
    xywh = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return corners * (width, height, width, height) / 100.0


def label_arrays(
    labels: Sequence[LabeledBox], classes: Sequence[str], width: float, height: float
) -> tuple[Boxes, IntArray]:
    """Return l labels as pixel boxes (l, 4) and numbers in `classes` (l,), -1 for a label that is not in it.

    >>> label_arrays([LabeledBox("cat", (0.5, 0.5, 0.2, 0.4))], ("dog", "cat"), 200, 100)
    (array([[ 80.,  30., 120.,  70.]]), array([1]))
    """
    xywh = np.array([label.xywh for label in labels], dtype=np.float64).reshape(-1, 4) * (width, height, width, height)
    number = {name: index for index, name in enumerate(classes)}
    kinds = np.array([number.get(label.label, -1) for label in labels], dtype=np.int64)
    return np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], axis=1), kinds


def percent_to_normalised(box: Box) -> Box:
    """Return a percent box with its centre, in 0..1.

    >>> percent_to_normalised((10.0, 20.0, 30.0, 40.0))
    (0.25, 0.4, 0.3, 0.4)
    """
    x, y, w, h = box
    return (x + w / 2) / 100, (y + h / 2) / 100, w / 100, h / 100


def normalised_to_percent(box: Box) -> Box:
    """Return a normalised box with its top-left corner, in percent.

    >>> normalised_to_percent((0.25, 0.5, 0.5, 0.25))
    (0.0, 37.5, 50.0, 25.0)
    """
    x, y, w, h = box
    return 100 * (x - w / 2), 100 * (y - h / 2), 100 * w, 100 * h


def clip_percent(box: Box) -> Box:
    """Return a percent box cut off at the borders of the image; outside of it width or height is 0.

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
    """Return the smallest upright percent box around a percent box turned by `rotation` degrees.

    Label Studio turns a region clockwise about its own top-left corner, in pixels: the image's `width` and `height`
    matter because a percent across and a percent down are different lengths.

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


def iou(boxes: npt.ArrayLike, others: npt.ArrayLike) -> Boxes:
    """Return the overlap of all pairs of xyxy boxes, intersection over union: (n, 4), (m, 4) -> (n, m).

    A pair without any area has 0.

    >>> iou([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]]).round(4)
    array([[1.    , 0.3333, 0.    ]])
    """
    one = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    other = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.clip(sides, 0.0, None).prod(axis=-1)
    areas = [np.clip(box[..., 2:] - box[..., :2], 0.0, None).prod(axis=-1) for box in (one, other)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
