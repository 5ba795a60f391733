"""Detections on validation images, matched with the labels: which are right, and with what IoU."""

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

LEAST_IOU = 0.5  # IoU from which a detection matches a label


@dataclass(frozen=True, slots=True)
class Choices:
    """The predictions of a single-choice classifier for k images, and the classes that annotators chose."""

    probs: FloatArray  # (k, C)
    chosen: IntArray  # (k,) indexes of classes


@dataclass(frozen=True, slots=True)
class Detections:
    """All k detections of a model on a set of labeled images."""

    confidence: FloatArray  # (k,) in [0, 1]
    classes: IntArray  # (k,) the predicted ones
    overlap: FloatArray  # (k,) IoU with the matched label, 0 for a false positive
    choices: Choices | None = None  # of a single-choice classifier; its most likely classes are the detections

    def calibration(self) -> Calibration:
        """Return the temperature with the least negative log-likelihood of these detections."""
        if self.choices is not None:
            return calibration.fit_choice(self.choices.probs, self.choices.chosen)
        return calibration.fit(self.confidence, self.overlap > 0)


def detections(
    validated: Iterable[tuple[Prediction, Sequence[LabeledBox]]],
    classes: Sequence[str],
    task: YoloTask,
    *,
    multiple: bool = False,
) -> Detections:
    """Return the detections on images, given as pairs of prediction and labels; `classes` are the model's.

    With `multiple`, an image may have several classes at once.
    """
    parts = [image_detections(*pair, classes, task, multiple=multiple) for pair in validated]
    return joined(parts, len(classes), single=task == "classify" and not multiple)


def joined(parts: Sequence[Detections], classes: int, *, single: bool) -> Detections:
    """Return the detections of several sets of images as one; `single` says that each image has a single choice."""
    empty = Detections(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    parts = [empty, *parts]
    choices = [part.choices for part in parts if part.choices is not None]
    probs = np.concatenate([np.zeros((0, classes), np.float32), *(part.probs for part in choices)])
    chosen = np.concatenate([np.zeros(0, np.int64), *(part.chosen for part in choices)])
    return Detections(
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.overlap for part in parts]),
        Choices(probs, chosen) if single else None,
    )


def image_detections(
    prediction: Prediction,
    labels: Sequence[LabeledBox],
    classes: Sequence[str],
    task: YoloTask,
    *,
    multiple: bool = False,
) -> Detections:
    """Return the detections on one image, matched with its labels."""
    if multiple:
        return answers(prediction.class_probs, np.isin(classes, [label.label for label in labels])[None])
    size = prediction.width, prediction.height
    if task == "semantic":
        overlap = covered(prediction, class_map(labels, classes, *size))
    else:
        overlap = matched(prediction, *label_arrays(labels, classes, *size))
    choices = None
    # Without an annotator's choice no prediction is right or wrong.
    if task == "classify" and labels and labels[0].label in classes:
        choices = Choices(prediction.class_probs[:1], np.array([classes.index(labels[0].label)]))
    return Detections(np.clip(prediction.confidence, 0.0, 1.0), predicted_classes(prediction), overlap, choices)


def answers(probs: FloatArray, is_given: BoolArray) -> Detections:
    """Return each class of each image as a detection, right if the class is given: (n, C) in [0, 1], (n, C).

    Every class is judged. The most likely class alone would tell nothing about the others, and would hardly ever be
    wrong if most images have several classes.

    >>> labels = answers(np.array([[0.9, 0.4], [0.2, 0.1]]), np.array([[True, True], [False, False]]))
    >>> labels.confidence.tolist(), labels.classes.tolist(), labels.overlap.tolist()
    ([0.9, 0.4, 0.2, 0.1], [0, 1, 0, 1], [1.0, 1.0, 0.0, 0.0])
    """
    kinds = np.tile(np.arange(probs.shape[1], dtype=np.int64), len(probs))
    return Detections(np.clip(probs, 0.0, 1.0).ravel(), kinds, is_given.ravel().astype(np.float32))


def class_quality(matched_detections: Detections, classes: Sequence[str]) -> dict[str, float]:
    """Return PPAL's quality of each class with a match, by the name of the class."""
    quality = match_quality(
        matched_detections.confidence, matched_detections.classes, matched_detections.overlap, len(classes)
    )
    return {name: float(value) for name, value in zip(classes, quality, strict=True) if not np.isnan(value)}


def matched(prediction: Prediction, boxes: npt.ArrayLike, classes: IntArray) -> FloatArray:
    """Return the IoU of each true positive with its label, 0 for a false positive (n,); see `matched_labels`."""
    return matched_labels(prediction, boxes, classes)[0]


def matched_labels(prediction: Prediction, boxes: npt.ArrayLike, classes: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the IoU of each detection with the label that it matches, and the index of that label: (n,), (n,).

    A false positive has IoU 0 and index -1. `boxes` (k, 4), xyxy in pixels, and `classes` (k,) are the labels of the
    image. By falling confidence, each detection takes the free label of its class that it overlaps most. It is a true
    positive at IoU ≥ .5.
    """
    ious, rows = np.zeros(len(prediction.boxes), dtype=np.float32), np.full(len(prediction.boxes), -1, np.int64)
    overlap = iou(prediction.boxes, boxes)
    overlap[predicted_classes(prediction)[:, None] != classes[None, :]] = 0.0
    for row in np.argsort(-prediction.confidence, kind="stable"):
        if overlap.shape[1] and overlap[row].max() >= LEAST_IOU:
            ious[row], rows[row] = overlap[row].max(), overlap[row].argmax()
            overlap[:, rows[row]] = 0.0
    return ious, rows


def covered(prediction: Prediction, truth: IntArray) -> FloatArray:
    """Return the pixel IoU of each predicted class with the labels, 0 for a false positive (n,).

    A class is a true positive at IoU ≥ .5. The prediction has one object per class, and `truth` (h, w) is the class of
    each pixel. Boxes cannot be compared: the object holds all pixels of its class, and annotators draw single regions.
    """
    ious = np.zeros(len(prediction.boxes), dtype=np.float32)
    for row, (kind, outline) in enumerate(zip(predicted_classes(prediction), prediction.outlines or (), strict=True)):
        predicted, labeled = masks.fill(outline, prediction.width, prediction.height), truth == kind
        ious[row] = (predicted & labeled).sum() / max((predicted | labeled).sum(), 1)
    ious[ious < LEAST_IOU] = 0.0
    return ious


def class_map(labels: Sequence[LabeledBox], classes: Sequence[str], width: int, height: int) -> IntArray:
    """Return the class of each pixel (h, w), -1 for none; where labels overlap, the smallest one counts."""
    pixels = np.full((height, width), -1, dtype=np.int64)
    index_of = {name: index for index, name in enumerate(classes)}
    filled = [
        (masks.fill([np.array(ring) * (width, height) for ring in label.outline], width, height), label.label)
        for label in labels
    ]
    for mask, name in sorted(filled, key=lambda mask_and_label: -int(mask_and_label[0].sum())):
        pixels[mask] = index_of.get(name, -1)
    return pixels


def predicted_classes(prediction: Prediction) -> IntArray:
    """Return the most likely class of each box (n,)."""
    return prediction.class_probs.argmax(axis=1) if len(prediction.boxes) else np.zeros(0, dtype=np.int64)
