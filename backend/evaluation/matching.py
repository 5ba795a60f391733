"""What a model finds on validation images, beside their labels: which detections are right, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.acquisition.class_weights import match_quality
from backend.evaluation import calibration
from backend.geometry import masks
from backend.geometry.coordinates import iou, label_arrays
from backend.model_versions import Calibration
from backend.types import BoolArray, FloatArray, IntArray, LabeledBox, Prediction, YoloTask

LEAST_IOU = 0.5  # of a detection that is right


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a classifier says of the k images of which somebody chose one of its classes."""

    probs: FloatArray  # (k, C)
    given: IntArray  # (k,)


@dataclass(frozen=True, slots=True)
class Detections:
    """All k detections of a model on a set of labeled images."""

    confidence: FloatArray  # (k,) in [0, 1]
    classes: IntArray  # (k,) the predicted ones
    overlap: FloatArray  # (k,) IoU with the label it found, 0 for a false positive
    chosen: Chosen | None = None  # of a classifier that chooses one class; its likeliest are the detections

    def calibration(self) -> Calibration:
        """Return the temperature that fits them best."""
        if self.chosen is not None:
            return calibration.fit_choice(self.chosen.probs, self.chosen.given)
        return calibration.fit(self.confidence, self.overlap > 0)


def detections(
    validated: Iterable[tuple[Prediction, Sequence[LabeledBox]]],
    classes: Sequence[str],
    task: YoloTask,
    *,
    multiple: bool = False,
) -> Detections:
    """Return what a model detects on images, one pair of prediction and labels each; `classes` are the model's.

    With `multiple` an image may have several of them at once.
    """
    found = [Detections(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    one_of, choices = task == "classify" and not multiple, list[tuple[FloatArray, int]]()
    for prediction, labels in validated:
        if one_of and labels and labels[0].label in classes:  # where nobody chose nothing is right or wrong
            choices.append((prediction.class_probs[0], classes.index(labels[0].label)))
        if multiple:
            given = np.isin(classes, [label.label for label in labels])
            found.append(answers(prediction.class_probs, given[None]))
        else:
            found.append(_found(prediction, labels, classes, task))
    return Detections(
        np.concatenate([one.confidence for one in found]),
        np.concatenate([one.classes for one in found]),
        np.concatenate([one.overlap for one in found]),
        _chosen(choices, len(classes)) if one_of else None,
    )


def _chosen(choices: Sequence[tuple[FloatArray, int]], classes: int) -> Chosen:
    probs = np.array([row for row, _ in choices], dtype=np.float32).reshape(-1, classes)
    return Chosen(probs, np.array([given for _, given in choices], dtype=np.int64))


def answers(probs: FloatArray, given: BoolArray) -> Detections:
    """Return each label of each image as a detection, right where it is given: (n, C) in [0, 1], (n, C).

    Each is a question of its own: the likeliest alone tells nothing of the second and the third, and is hardly ever
    wrong where most images have several.

    >>> found = answers(np.array([[0.9, 0.4], [0.2, 0.1]]), np.array([[True, True], [False, False]]))
    >>> found.confidence.tolist(), found.classes.tolist(), found.overlap.tolist()
    ([0.9, 0.4, 0.2, 0.1], [0, 1, 0, 1], [1.0, 1.0, 0.0, 0.0])
    """
    kinds = np.tile(np.arange(probs.shape[1], dtype=np.int64), len(probs))
    return Detections(np.clip(probs, 0.0, 1.0).ravel(), kinds, given.ravel().astype(np.float32))


def _found(prediction: Prediction, labels: Sequence[LabeledBox], classes: Sequence[str], task: YoloTask) -> Detections:
    size = prediction.width, prediction.height
    if task == "semantic":
        overlap = covered(prediction, class_map(labels, classes, *size))
    else:
        overlap = matched(prediction, *label_arrays(labels, classes, *size))
    return Detections(np.clip(prediction.confidence, 0.0, 1.0), _predicted(prediction), overlap)


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
        if overlap.shape[1] and overlap[row].max() >= LEAST_IOU:
            found[row] = overlap[row].max()
            overlap[:, overlap[row].argmax()] = 0.0
    return found


def covered(prediction: Prediction, truth: IntArray) -> FloatArray:
    """Return the IoU of each class that is seen, pixel by pixel, with where it is; 0 for a false positive (n,).

    True is an IoU ≥ .5. The prediction has one object for each class, and `truth` (h, w) is the class of each pixel:
    boxes would set all of a class beside the single regions that annotators drew.
    """
    found = np.zeros(len(prediction.boxes), dtype=np.float32)
    for row, (kind, outline) in enumerate(zip(_predicted(prediction), prediction.outlines or (), strict=True)):
        seen, there = masks.fill(outline, prediction.width, prediction.height), truth == kind
        found[row] = (seen & there).sum() / max((seen | there).sum(), 1)
    found[found < LEAST_IOU] = 0.0
    return found


def class_map(labels: Sequence[LabeledBox], classes: Sequence[str], width: int, height: int) -> IntArray:
    """Return the class of each pixel (h, w), -1 for none of them; where labels overlap, the smaller one lies on top."""
    found = np.full((height, width), -1, dtype=np.int64)
    number = {name: index for index, name in enumerate(classes)}
    filled = [
        (masks.fill([np.array(ring) * (width, height) for ring in label.outline], width, height), label.label)
        for label in labels
    ]
    for mask, name in sorted(filled, key=lambda each: -int(each[0].sum())):
        found[mask] = number.get(name, -1)
    return found


def _predicted(prediction: Prediction) -> IntArray:
    return prediction.class_probs.argmax(axis=1) if len(prediction.boxes) else np.zeros(0, dtype=np.int64)
