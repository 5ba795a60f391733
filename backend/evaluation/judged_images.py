"""A model's detections on one labeled image, matched with its labels, and what of them is shown to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from backend.evaluation import matching
from backend.evaluation.agreement import SHOWN
from backend.evaluation.matching import LEAST_IOU, Detections
from backend.evaluation.samples import Answers, Matches, Rankings, Sample, places, summed
from backend.evaluation.shown_outlines import ShownOutline, label_outlines, predicted_outline
from backend.geometry.coordinates import Boxes, class_hulls, iou, label_arrays, percent_boxes, pixels_to_percent
from backend.types import BoolArray, FloatArray, IntArray, LabeledBox, Prediction, YoloTask

NOTHING = -1  # the class of a label that no detection covers, and of a detection that covers no label
PercentBox = tuple[float, float, float, float]
_WHOLE_IMAGE = (0.0, 0.0, 100.0, 100.0)
AnswerKind = Literal["objects", "areas", "choice", "labels"]  # boxes, one mask per class, one class, several classes


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """The k detections of a model on one image, and the l labels of the image; boxes are in percent of the image."""

    task_id: int
    frame: int  # of a video; 0: an image
    kind: AnswerKind
    detections: Detections
    boxes: Boxes  # (k, 4)
    matched: IntArray  # (k,) the label of its own class that a detection matches, -1 for none
    labels: IntArray  # (l,) classes, -1 for a class that the model does not have
    label_boxes: Boxes  # (l, 4)
    outlines: Mapping[int, ShownOutline] = field(default_factory=dict)  # of rows in 0 … k − 1 that people see
    label_outlines: tuple[ShownOutline, ...] = ()  # l, or none

    @property
    def name(self) -> str:
        """The name of the image in a data set."""
        return f"{self.task_id}-{self.frame}" if self.frame else str(self.task_id)


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """A detection that people see, and the label that it covers; or a label that no such detection covers."""

    predicted: int  # class; NOTHING: no detection covers the label
    labeled: int  # class; NOTHING: the detection covers no label
    confidence: float  # of the detection, 0 for a missed label
    box: PercentBox  # of the detection, of the label for a missed label
    label_box: PercentBox | None = None  # of the label that the detection covers
    outline: ShownOutline = ()  # of what `box` is around
    label_outline: ShownOutline = ()  # of what `label_box` is around

    @property
    def is_right(self) -> bool:
        """Whether the detection has the class of the label that it covers."""
        return self.predicted == self.labeled


@dataclass(frozen=True, slots=True)
class PictureAnswers:
    """The answers of a model on one image, as people see them."""

    task_id: int
    frame: int
    hits: int  # right detections
    extra: int  # detections that cover no label of their class
    missed: int  # labels that no detection of their class covers
    answers: tuple[ShownAnswer, ...] = field(default=())  # by falling confidence; empty if too many pictures are stored

    @property
    def f1(self) -> float:
        """The F1 score: 2 · hits / (2 · hits + extra + missed); 1 for an image without labels and detections.

        >>> PictureAnswers(7, 0, hits=3, extra=1, missed=1).f1, PictureAnswers(8, 0, 0, 0, 0).f1
        (0.75, 1.0)
        """
        total = 2 * self.hits + self.extra + self.missed
        return 2 * self.hits / total if total else 1.0


def judge_image(
    task_id: int,
    frame: int,
    prediction: Prediction,
    labels: Sequence[LabeledBox],
    classes: Sequence[str],
    task: YoloTask,
    *,
    multiple: bool = False,
) -> JudgedImage:
    """Match the prediction for an image with its labels; `classes` are the model's.

    With `multiple`, an image may have several classes at once. For semantic segmentation the labels of one class are
    one object, as in the prediction.
    """
    detections = matching.image_detections(prediction, labels, classes, task, multiple=multiple)
    size = prediction.width, prediction.height
    if multiple:
        given = np.isin(classes, [label.label for label in labels])
        return _judge_labels(task_id, frame, detections, given)
    if task == "semantic":
        label_pixels, rows = label_arrays(class_hulls(labels), classes, *size)
        matched = np.where(detections.overlap > 0, _rows_of(detections.classes, rows), -1)
    else:
        label_pixels, rows = label_arrays(labels, classes, *size)
        _, matched = matching.matched_labels(prediction, label_pixels, rows)
    kind: AnswerKind = "areas" if task == "semantic" else "choice" if task == "classify" else "objects"
    boxes, label_boxes = percent_boxes(prediction), pixels_to_percent(label_pixels, *size)
    seen = np.flatnonzero(detections.confidence >= SHOWN).tolist() if kind != "choice" else []
    outlines = {row: predicted_outline(prediction, row) for row in seen}
    given_outlines = label_outlines(labels, task)
    return JudgedImage(
        *(task_id, frame, kind, detections, boxes, matched, rows, label_boxes),
        outlines=outlines,
        label_outlines=given_outlines,
    )


def judge_frames(probs: FloatArray, labels: BoolArray, tasks: Sequence[str], step: int = 1) -> tuple[JudgedImage, ...]:
    """Match the label probabilities (n, C) of n sampled frames of videos with the labels of people (n, C).

    `tasks` (n,) are the tasks of the videos, whose sampled frames lie `step` frames apart, the first one is frame 1.
    """
    seen, judged = Counter[str](), list[JudgedImage]()
    for task, row, given in zip(tasks, probs, labels, strict=True):
        frame = 1 + step * seen[task]
        seen[task] += 1
        judged.append(_judge_labels(int(task), frame, matching.answers(row[None], given[None]), given))
    return tuple(judged)


def _judge_labels(task_id: int, frame: int, detections: Detections, given: BoolArray) -> JudgedImage:
    """Return an image that may have several classes, with its detections of all classes; `given` (C,) are its own."""
    labels, whole = np.flatnonzero(given), np.array([_WHOLE_IMAGE])
    boxes, label_boxes = whole.repeat(len(detections.classes), axis=0), whole.repeat(len(labels), axis=0)
    matched = _rows_of(detections.classes, labels)
    return JudgedImage(task_id, frame, "labels", detections, boxes, matched, labels, label_boxes)


def _rows_of(classes: IntArray, labels: IntArray) -> IntArray:
    """Return the first label of each class (k,), -1 where there is none."""
    rows = {int(kind): row for row, kind in reversed(list(enumerate(labels)))}
    return np.array([rows.get(int(kind), -1) for kind in classes], dtype=np.int64)


def shown_answers(judged: JudgedImage) -> PictureAnswers:
    """Return what people see of the detections of an image, and which labels they miss.

    A detection is shown from confidence SHOWN on; a single choice always. A detection that matches no label of its own
    class may cover a label of another class, with IoU ≥ .5 and the largest overlap first: the two classes are then
    confused. Several classes of one image, and areas, are never confused, because each is judged alone. A choice is
    neither right nor wrong for an image without a label.
    """
    if judged.kind == "choice" and not len(judged.labels):
        return PictureAnswers(judged.task_id, judged.frame, 0, 0, 0)
    detections = judged.detections
    shown = np.flatnonzero((detections.confidence >= SHOWN) | (judged.kind == "choice"))
    covers = {int(row): int(judged.matched[row]) for row in shown if judged.matched[row] >= 0}
    if judged.kind in ("objects", "choice"):
        covers |= _confused(judged, [int(row) for row in shown if int(row) not in covers], set(covers.values()))
    answers = [_answer(judged, int(row), covers.get(int(row))) for row in shown]
    answers += [
        ShownAnswer(
            *(NOTHING, int(judged.labels[row]), 0.0, _percent(judged.label_boxes[row])),
            outline=_label_outline(judged, row),
        )
        for row in sorted(set(range(len(judged.labels))) - set(covers.values()))
        if judged.labels[row] >= 0
    ]
    hits = sum(int(judged.matched[row]) >= 0 for row in shown)
    answers.sort(key=lambda answer: -answer.confidence)
    missed = int((judged.labels >= 0).sum()) - hits
    return PictureAnswers(judged.task_id, judged.frame, hits, len(shown) - hits, missed, tuple(answers))


def _confused(judged: JudgedImage, rows: Sequence[int], taken: set[int]) -> dict[int, int]:
    """Return the label of another class that each of these detections covers; each label is covered once."""
    free = [row for row in range(len(judged.labels)) if row not in taken]
    overlap = iou(_corners(judged.boxes[list(rows)]), _corners(judged.label_boxes[free]))
    pairs, covers = np.argwhere(overlap >= LEAST_IOU), dict[int, int]()
    for row, column in pairs[np.argsort(-overlap[tuple(pairs.T)], kind="stable")].tolist():
        if rows[row] not in covers and free[column] not in covers.values():
            covers[rows[row]] = free[column]
    return covers


def _answer(judged: JudgedImage, row: int, label: int | None) -> ShownAnswer:
    detections, box, outline = judged.detections, _percent(judged.boxes[row]), judged.outlines.get(row, ())
    predicted, confidence = int(detections.classes[row]), round(float(detections.confidence[row]), 4)
    if label is None:
        return ShownAnswer(predicted, NOTHING, confidence, box, outline=outline)
    label_box, label_outline = _percent(judged.label_boxes[label]), _label_outline(judged, label)
    return ShownAnswer(predicted, int(judged.labels[label]), confidence, box, label_box, outline, label_outline)


def _label_outline(judged: JudgedImage, label: int) -> ShownOutline:
    return judged.label_outlines[label] if judged.label_outlines else ()


def _percent(box: Boxes) -> PercentBox:
    left, top, width, height = (round(float(side), 2) for side in box)
    return left, top, width, height


def _corners(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def sample_of(judged: Sequence[JudgedImage], classes: int) -> Sample:
    """Return the values per task from which a bootstrap computes the quality of these images.

    The quality is the mAP50 of objects, the share of right answers of a single choice, and the mean average precision
    of several labels. Labels of classes that the model does not have are left out.
    """
    place, size = places([image.name for image in judged])
    is_labeled = np.zeros((len(judged), classes), np.int64)
    for row, image in enumerate(judged):
        np.add.at(is_labeled[row], image.labels[image.labels >= 0], 1)
    kind = judged[0].kind if judged else "objects"
    if kind == "labels":
        probs = np.array([image.detections.confidence for image in judged], dtype=np.float32)
        return Rankings(place, probs, is_labeled > 0, size)
    labels = summed(is_labeled, place, size).astype(np.int64)
    if kind == "choice":
        hits = np.array([[_is_right(image)] for image in judged]) & (is_labeled > 0)
        return Answers(summed(hits, place, size).astype(np.int64), labels)
    return Matches(
        images=np.repeat(place, [len(image.matched) for image in judged]),
        classes=np.concatenate([np.zeros(0, np.int64), *(image.detections.classes for image in judged)]),
        confidence=np.concatenate([np.zeros(0, np.float32), *(image.detections.confidence for image in judged)]),
        right=np.concatenate([np.zeros(0, np.bool_), *(image.detections.overlap > 0 for image in judged)]),
        labels=labels,
    )


def _is_right(image: JudgedImage) -> bool:
    matched: BoolArray = image.matched >= 0
    return bool(matched.any())
