"""The boxes of a detection head as arrays, and the Prediction that they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from backend.types import ByteArray, FloatArray, Prediction, YoloTask
from backend.yolo.decoding import Masks, hulls, points_confidence
from backend.yolo.letterbox import Letterboxed

if TYPE_CHECKING:
    import torch

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class BoxArrays(Generic[A]):
    """n boxes, as tensors or as arrays, in pixels of the letterboxed image."""

    boxes: A  # (n, 4) xyxy; rotated boxes: x centre, y centre, width, height
    confidence: A  # (n,)
    class_probs: A  # (n, C)
    variance: A | None  # (n, 4) DFL variance in px², None for heads without DFL
    extra: A  # (n, E) the task's own columns: angle, mask coefficients, or keypoints; E = 0 for upright boxes
    features: A  # (n, D) embeddings

    def map(self, change: Callable[[A], B]) -> BoxArrays[B]:
        """Return the same boxes with `change` applied to each array."""
        arrays = {part.name: getattr(self, part.name) for part in fields(self)}
        changed: dict[str, Any] = {name: None if old is None else change(old) for name, old in arrays.items()}
        return BoxArrays(**changed)

    def rows(self, begin: int, end: int) -> BoxArrays[A]:
        """Return the boxes from row `begin` to before row `end`."""
        return self.map(partial(_rows, begin, end))

    def by_image(self, counts: Sequence[int]) -> list[BoxArrays[A]]:
        """Return the boxes of each image; `counts` are their numbers, in order."""
        ends = np.cumsum([0, *counts]).tolist()
        return [self.rows(begin, end) for begin, end in pairwise(ends)]


def _rows(begin: int, end: int, values: Any) -> Any:
    return values[begin:end]


def as_array(values: torch.Tensor) -> FloatArray:
    """Return a tensor as an array in the memory of the CPU."""
    array: FloatArray = values.cpu().numpy()
    return array


def prediction_of(
    task: YoloTask,
    point_shape: Sequence[int],
    image: Letterboxed,
    arrays: BoxArrays[FloatArray],
    embedding: FloatArray,
    masks: Masks | None,
    thumbnail: ByteArray,
) -> Prediction:
    """Return the boxes of an image as a Prediction; `point_shape` (K, 2 or 3) is of a pose model's keypoints."""
    boxes, rotated, keypoints = arrays.boxes, None, None
    if task == "obb":
        letterboxed = np.concatenate([boxes, arrays.extra], axis=1)
        rotated, boxes = image.upright_rotated(letterboxed), hulls(letterboxed)
    shape_confidence = masks.confidence if masks else None
    if task == "pose":
        keypoints = image.upright_keypoints(arrays.extra.reshape(len(boxes), *point_shape))
        shape_confidence = points_confidence(keypoints)
    return Prediction(
        width=image.width,
        height=image.height,
        boxes=image.upright(boxes),
        class_probs=arrays.class_probs,
        confidence=arrays.confidence,
        embedding=embedding,
        box_variance=None if arrays.variance is None else arrays.variance / image.gain**2,
        box_embeddings=arrays.features,
        rotated=rotated,
        outlines=masks.outlines if masks else None,
        keypoints=keypoints,
        shape_confidence=shape_confidence,
        thumbnail=thumbnail,
    )
