"""What an annotator points at: the one of many boxes that holds the clicks, or fits a rough rectangle.

Boxes are rotated ones (n, 5) of a Prediction: x centre, y centre, width, height, radians clockwise. Upright boxes have
the angle 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.geometry import coordinates
from backend.types import BoolArray, FloatArray

CLASS_SEEN = 0.05  # the lowest score of the wanted class with which it decides; below, it is mostly noise
LEAST_IOU = 0.1  # with a rough rectangle; a box with less is something else


@dataclass(frozen=True, slots=True)
class Click:
    """A place in an image, in shares of its width and height."""

    x: float
    y: float
    on_object: bool = True  # False: the object is not here


@dataclass(frozen=True, slots=True)
class Pointing:
    """Clicks on one object, the newest last, or a rough rectangle (left, top, right, bottom) in shares of the image."""

    clicks: tuple[Click, ...] = ()
    rectangle: coordinates.Box | None = None


def turned(boxes: npt.ArrayLike) -> FloatArray:
    """Return upright boxes xyxy (n, 4) as rotated boxes (n, 5).

    >>> turned([[10, 20, 30, 60]]).tolist()
    [[20.0, 40.0, 20.0, 40.0, 0.0]]
    """
    xyxy = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    low, high = xyxy[:, :2], xyxy[:, 2:]
    angle = np.zeros((len(xyxy), 1), dtype=np.float32)
    return np.concatenate([(low + high) / 2, high - low, angle], axis=1)


def holds(boxes: npt.ArrayLike, x: float, y: float) -> BoolArray:
    """Return which boxes (n, 5) a point in pixels lies in (n,).

    >>> square, diamond = [10, 10, 10, 10, 0], [10, 10, 10, 10, 0.785]
    >>> holds([square, diamond], 6, 6).tolist(), holds([square, diamond], 10, 16).tolist()
    ([True, False], [False, True])
    """
    rotated = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
    across, down = x - rotated[:, 0], y - rotated[:, 1]
    cos, sin = np.cos(rotated[:, 4]), np.sin(rotated[:, 4])
    along, beside = across * cos + down * sin, down * cos - across * sin
    inside: BoolArray = (abs(along) <= rotated[:, 2] / 2) & (abs(beside) <= rotated[:, 3] / 2)
    return inside


def fit(boxes: npt.ArrayLike, pointing: Pointing, width: int, height: int) -> FloatArray:
    """Return how well boxes (n, 5) fit what was pointed at (n,), in [0, 1]; 0: not at all.

    Clicks: the share of the clicks on the object that a box holds. It must hold the newest of them, and no click beside
    the object. An earlier click may belong to another object, because Label Studio keeps the clicks of accepted
    suggestions. A rectangle: the IoU of the upright hull with it, from LEAST_IOU.
    """
    rotated = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
    if pointing.rectangle is not None:
        corners = coordinates.corners_of(rotated)
        hulls = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        overlap = coordinates.iou(hulls, [np.array(pointing.rectangle) * (width, height, width, height)])[:, 0]
        return np.where(overlap >= LEAST_IOU, overlap, 0).astype(np.float32)
    positive = [holds(rotated, click.x * width, click.y * height) for click in pointing.clicks if click.on_object]
    negative = [holds(rotated, click.x * width, click.y * height) for click in pointing.clicks if not click.on_object]
    if not positive:
        return np.zeros(len(rotated), dtype=np.float32)
    allowed = positive[-1] & ~np.any([np.zeros(len(rotated), dtype=bool), *negative], axis=0)
    return np.where(allowed, np.mean(positive, axis=0), 0).astype(np.float32)


def best(fits: FloatArray, scores: FloatArray, wanted: BoolArray) -> tuple[int, float] | None:
    """Return the row of the box with the highest score x fit, and its score; None where no box fits.

    `fits` (n,), `scores` (n, C) of all classes, `wanted` (C,) the classes of the label that the annotator chose. The
    scores of these classes decide where one of them reaches CLASS_SEEN in a box that fits. Elsewhere any class decides:
    the model calls the object by another name, and still knows where it is.

    >>> scores = np.array([[0.9, 0.1], [0.2, 0.6]], dtype=np.float32)
    >>> fits = np.array([1, 1], dtype=np.float32)
    >>> best(fits, scores, np.array([False, True]))[0], best(fits, scores, np.array([False, False]))[0]
    (1, 0)
    >>> best(np.zeros(2, np.float32), scores, np.array([True, True])) is None
    True
    """
    for classes in (scores[:, wanted], scores):
        top = classes.max(axis=1, initial=0)
        lowest = CLASS_SEEN if classes.shape[1] < scores.shape[1] else 0
        value = np.where(top >= lowest, top * fits, 0)
        if len(value) and value.max() > 0:
            row = int(value.argmax())
            return row, float(top[row])
    return None
