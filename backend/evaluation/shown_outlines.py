"""The outlines of objects as a report keeps them: few points, in percent of the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from backend.geometry import drawn_rings
from backend.geometry.coordinates import corners_of
from backend.types import LabeledBox, Prediction, YoloTask

ShownOutline = tuple[tuple[tuple[float, float], ...], ...]  # rings of points (x, y); (): the object has a box alone
MOST_POINTS = 80  # of an object
FEWEST_POINTS = 8  # of an object; fewer would not show its shape
_POINT = 1.0  # half of the diamond that stands for a key point, in percent of the image


def predicted_outline(prediction: Prediction, row: int) -> ShownOutline:
    """Return the outline of a detection: its mask, the corners of its rotated box, or a diamond for each key point."""
    rings: Iterable[npt.ArrayLike] = ()
    if prediction.keypoints is not None:
        places = prediction.keypoints[row, :, :2] / (prediction.width, prediction.height)
        return _diamonds(places[((places >= 0) & (places <= 1)).all(axis=1)].tolist())
    if prediction.outlines is not None:
        rings = prediction.outlines[row]
    elif prediction.rotated is not None:
        rings = corners_of(prediction.rotated[row])
    return thinned(rings, (prediction.width, prediction.height))


def label_outlines(labels: Sequence[LabeledBox], task: YoloTask) -> tuple[ShownOutline, ...]:
    """Return the outline of each label; for semantic segmentation the labels of one class are one object."""
    if task == "pose":
        return tuple(_diamonds([(x, y) for x, y, seen in label.keypoints if seen]) for label in labels)
    if task != "semantic":
        return tuple(thinned(label.outline, (1, 1)) for label in labels)
    names = dict.fromkeys(label.label for label in labels)
    return tuple(
        thinned([ring for label in labels if label.label == name for ring in label.outline], (1, 1)) for name in names
    )


def _diamonds(places: Iterable[Sequence[float]]) -> ShownOutline:
    """Return a ring for each point; `places` are shares of the image."""
    rings = (drawn_rings.diamond(100 * x, 100 * y, _POINT).round(1).tolist() for x, y in places)
    return tuple(tuple((x, y) for x, y in ring) for ring in rings)


def coarser(outline: ShownOutline, most: int) -> ShownOutline:
    """Return an outline with at most about `most` points; small rings, which stand for corners or points, are kept.

    >>> square = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0))
    >>> coarser((square, square * 5), most=12)[0] == square, len(coarser((square, square * 5), most=12)[1])
    (True, 10)
    """
    step = max(1, -(-sum(map(len, outline)) // most))
    return tuple(ring[::step] if len(ring) >= FEWEST_POINTS * step else ring for ring in outline)


def thinned(rings: Iterable[npt.ArrayLike], size: tuple[float, float]) -> ShownOutline:
    """Return rings (k, 2) in percent of an image of this size, with at most about MOST_POINTS points.

    >>> thinned([[(0, 0), (5, 0), (5, 10)]], size=(10, 20))
    (((0.0, 0.0), (50.0, 0.0), (50.0, 50.0)),)
    """
    percent = [100 * np.asarray(ring, dtype=np.float64) / size for ring in rings]
    step = max(1, -(-sum(map(len, percent)) // MOST_POINTS))
    kept = [ring[::step].round(1).tolist() for ring in percent if len(ring[::step]) > 2]
    return tuple(tuple((x, y) for x, y in ring) for ring in kept)
