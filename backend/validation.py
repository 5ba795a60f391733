"""What a model finds on validation images, beside their labels: which detections are right, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.acquisition.class_weights import match_quality
from backend.geometry import iou, label_arrays
from backend.types import FloatArray, IntArray, LabeledBox, Prediction


@dataclass(frozen=True, slots=True)
class Detections:
    """All k detections of a model on a set of labeled images."""

    confidence: FloatArray  # (k,) in [0, 1]
    classes: IntArray  # (k,) the predicted ones
    overlap: FloatArray  # (k,) IoU with the label it found, 0 for a false positive


def detections(validated: Iterable[tuple[Prediction, Sequence[LabeledBox]]], classes: Sequence[str]) -> Detections:
    """Return what a model detects on images, one pair of prediction and labels each; `classes` are the model's."""
    confidence: list[FloatArray] = [np.zeros(0, dtype=np.float32)]
    predicted: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    overlap: list[FloatArray] = [np.zeros(0, dtype=np.float32)]
    for prediction, labels in validated:
        boxes, kinds = label_arrays(labels, classes, prediction.width, prediction.height)
        confidence.append(np.clip(prediction.confidence, 0.0, 1.0))
        predicted.append(_predicted(prediction))
        overlap.append(matched(prediction, boxes, kinds))
    return Detections(np.concatenate(confidence), np.concatenate(predicted), np.concatenate(overlap))


def class_quality(found: Detections, classes: Sequence[str]) -> dict[str, float]:
    """Return PPAL's quality of each class that was matched, by its name."""
    quality = match_quality(found.confidence, found.classes, found.overlap, len(classes))
    return {name: float(value) for name, value in zip(classes, quality, strict=True) if not np.isnan(value)}


def matched(prediction: Prediction, boxes: npt.ArrayLike, classes: IntArray) -> FloatArray:
    """Return the IoU of each true positive with its label, 0 for a false positive (n,).

    True is what overlaps a label of its class, which none above it took, by IoU ≥ .5. `boxes` (k, 4) xyxy in pixels and
    `classes` (k,) are the labels of the image. Detections choose by falling confidence, each the free label it overlaps
    most.
    """
    found = np.zeros(len(prediction.boxes), dtype=np.float32)
    overlap = iou(prediction.boxes, boxes)
    overlap[_predicted(prediction)[:, None] != classes[None, :]] = 0.0
    for row in np.argsort(-prediction.confidence, kind="stable"):
        if overlap.shape[1] and overlap[row].max() >= 0.5:
            found[row] = overlap[row].max()
            overlap[:, overlap[row].argmax()] = 0.0
    return found


def _predicted(prediction: Prediction) -> IntArray:
    return prediction.class_probs.argmax(axis=1) if len(prediction.boxes) else np.zeros(0, dtype=np.int64)
