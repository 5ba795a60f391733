"""The quality of annotated boxes: ObjectLab (Tkachenko et al., 2023), written from its formulas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from backend.geometry.coordinates import iou

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHA = 0.9  # weight of the overlap in the similarity; the distance has 1 − ALPHA
DECAY = 0.1  # k of e^(−k d), d the distance of the centres in percent of the image
# The least confidence of a prediction that contradicts a label: SURE for a missing label or a wrong class, LIKELY for a
# misplaced box.
SURE, LIKELY = 0.95, 0.5
TWICE_LABELED = 0.95  # IoU from which two labels of different classes count as one object
MATCH_IOU = 0.5  # IoU from which a label and a prediction agree
TEMPERATURE = 0.1
SUSPECT = 0.75  # labels with a lower score should be checked; one label at IoU .4 with its prediction gives it


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One image's l labels and m predictions; all boxes xyxy in percent of the image."""

    labels: Floats  # (l, 4)
    label_classes: Ints  # (l,)
    predictions: Floats  # (m, 4)
    predicted_classes: Ints  # (m,)
    confidence: Floats  # (m,)


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """The quality of an image's labels: 1 is clean, 0 is surely wrong."""

    score: float  # geometric mean of the three below, each by softmin over its boxes
    overlooked: Floats  # (m,) of each prediction, NaN for one that contradicts no label
    misplaced: Floats  # (l,) of each label
    swapped: Floats  # (l,) of each label

    @property
    def suspicion(self) -> str:
        """The kind of error most likely here: "overlooked", "misplaced" or "swapped"; "" for a clean image."""
        pools = {name: softmin(getattr(self, name)) for name in ("overlooked", "misplaced", "swapped")}
        worst = min(pools, key=lambda name: pools[name])
        return worst if pools[worst] < 1 else ""


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """The verdict of one model on the labels that an annotation gives a task under the model's control tag."""

    task_id: int
    annotation_id: int
    updated_at: str  # of the judged annotation; the verdict is void once the annotation changes
    score: float  # 1 is clean, 0 is surely wrong
    suspicion: str  # as LabelQuality.suspicion; "" if the labels need no check
    label: str  # of the worst box: the annotator's, or the class of an unlabeled object; "" without suspicion
    box: tuple[float, float, float, float] | None  # that box, xyxy in percent of the image
    learned: bool  # the model was trained on this image, so it may have learned the error
    tag: str = ""  # name of the control tag; "" in reviews of earlier releases: the config's first tag

    @property
    def suspicious(self) -> bool:
        """Whether somebody should check the labels."""
        return self.score < SUSPECT


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The confidences from which a model's predictions contradict labels, measured on all labels of its tag.

    They are kept for later labels. So a verdict on one label needs no other label, and verdicts of different days can
    be compared.
    """

    sure: tuple[float, ...]  # confidence of a sure prediction; boxes: one for all classes, choices: one per label
    absent: tuple[float, ...] = ()  # choices: the probability from which each label is surely absent
    floor: float = 1.0  # boxes: the least similarity of a label and a prediction
    images: int = 0  # number of images on which they were measured
    since: int = 0  # number of images judged since then

    @property
    def outgrown(self) -> bool:
        """Whether to measure them anew: since then, half as many images were judged as they were measured on."""
        return 2 * self.since >= max(self.images, 1)


@dataclass(frozen=True, slots=True)
class Review:
    """The last review of labels by one version, and its inputs, so that the next review judges only what is new."""

    issues: tuple[LabelIssue, ...] = ()  # worst first
    reviewed: Mapping[int, str] | None = (
        None  # id of a reviewed annotation -> updated_at, and those of older votes that count; None: not known
    )
    shards: tuple[int, ...] = ()  # when each shard of the predictions that it read was written
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)  # by the tag's name in the store
    rules: str = ""  # a hash of everything else on which its verdicts depend


def suspicious(issues: Iterable[LabelIssue]) -> tuple[LabelIssue, ...]:
    """Return the issues that somebody should look at, in the same order."""
    return tuple(issue for issue in issues if issue.suspicious)


def by_task(issues: Iterable[LabelIssue]) -> tuple[LabelIssue, ...]:
    """Return one issue per task, that of its worst tag; `issues` come worst first, and so does the result."""
    worst: dict[int, LabelIssue] = {}
    for issue in issues:
        worst.setdefault(issue.task_id, issue)
    return tuple(worst.values())


def thresholds(images: Sequence[Reviewed]) -> Thresholds:
    """Return the thresholds of a model: a prediction contradicts a label from this confidence on.

    It is the model's mean confidence where it agrees with a label (same class, IoU .5), but at most SURE. This is the
    threshold of confident learning (Northcutt et al., 2021). ObjectLab's .95 alone would be too high: a YOLO trained on
    some hundred images is hardly ever as confident.
    """
    agreeing = [image.confidence[_matches(image).any(axis=0)] for image in images]
    confidence = np.concatenate([np.zeros(0), *agreeing])
    sure = min(SURE, float(confidence.mean())) if len(confidence) else SURE
    return Thresholds(
        (sure,), floor=_least(similarity(image.labels, image.predictions) for image in images), images=len(images)
    )


def _least(similar: Iterable[Floats]) -> float:
    """Return the least positive similarity of a label and a prediction; 1 if there is none."""
    return min((float(pairs[pairs > 0].min()) for pairs in similar if (pairs > 0).any()), default=1.0)


def label_quality(images: Sequence[Reviewed], sure: float = SURE, floor: float = 1.0) -> tuple[LabelQuality, ...]:
    """Return the quality of each image's labels, in order.

    `sure` is the confidence from which a prediction reports a missing label or a wrong class. The lowest score is
    `floor` or the least similarity in these images, whichever is lower.
    """
    similar = [similarity(image.labels, image.predictions) for image in images]
    floor = min(floor, _least(similar))
    return tuple(_quality(image, pairs, floor, sure) for image, pairs in zip(images, similar, strict=True))


def _quality(image: Reviewed, similar: Floats, floor: float, sure: float) -> LabelQuality:
    overlap = iou(image.labels, image.predictions)
    same = _same_class(image)
    absent = overlooked(image, similar, overlap, floor, sure)
    misplaced = np.nan_to_num(_best(similar, same & (image.confidence > LIKELY) & (overlap > 0)), nan=1.0)
    swapped = np.maximum(1 - np.nan_to_num(_best(similar, ~same & (image.confidence > sure))), floor)
    swapped[_labeled_twice(image)] = floor
    pooled = np.array([softmin(absent), softmin(misplaced), softmin(swapped)])
    return LabelQuality(float(np.exp(np.log(np.maximum(pooled, 1e-100)).mean())), absent, misplaced, swapped)


def overlooked(image: Reviewed, similar: Floats, overlap: Floats, floor: float, sure: float) -> Floats:
    """Return the score (m,) of each sure prediction that overlaps no label, by its most similar label; else NaN."""
    contradicts = (image.confidence >= sure) & ~(overlap > 0).any(axis=0)
    nearest = _best(similar.T, _same_class(image).T)
    nearest = np.where(np.isnan(nearest), floor * (1 - image.confidence), nearest)
    return np.where(contradicts, nearest, np.nan)


def similarity(boxes: npt.ArrayLike, others: npt.ArrayLike) -> Floats:
    """Return α IoU + (1 − α) e^(−k d) of all pairs, d the distance of the centres: (l, 4), (m, 4) -> (l, m).

    >>> similarity([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [6, 8, 16, 18]]).round(4)
    array([[1.    , 0.3607, 0.0743]])
    """
    first = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    second = np.asarray(others, dtype=np.float64).reshape(-1, 4)
    centres, other_centres = (first[:, :2] + first[:, 2:]) / 2, (second[:, :2] + second[:, 2:]) / 2
    distance = np.linalg.norm(centres[:, None] - other_centres[None], axis=2)
    return np.asarray(ALPHA * iou(first, second) + (1 - ALPHA) * np.exp(-DECAY * distance))


def softmin(scores: Floats, temperature: float = TEMPERATURE) -> float:
    """Return Σ s·softmax((1 − s)/T) over the scores that are not NaN; 1 without any.

    >>> round(softmin(np.array([.2, 1., np.nan])), 4), softmin(np.array([]))  # (.2 + e^−8) / (1 + e^−8)
    (0.2003, 1.0)
    """
    present = scores[~np.isnan(scores)]
    if not len(present):
        return 1.0
    weights = np.exp((present.min() - present) / temperature)
    return float((present * weights).sum() / weights.sum())


def _best(similar: Floats, counted: npt.NDArray[np.bool_]) -> Floats:
    """Return the largest counted similarity of each row, NaN where none counts: (l, m) -> (l,)."""
    best = np.where(counted, similar, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(best), np.nan, best)


def _same_class(image: Reviewed) -> npt.NDArray[np.bool_]:
    """Return which pairs (l, m) of a label and a prediction are of one class."""
    return np.asarray(image.label_classes[:, None] == image.predicted_classes[None, :])


def _matches(image: Reviewed) -> npt.NDArray[np.bool_]:
    """Return which pairs (l, m) agree: the same class, and boxes at IoU .5 or more."""
    return np.asarray((iou(image.labels, image.predictions) >= MATCH_IOU) & _same_class(image))


def _labeled_twice(image: Reviewed) -> npt.NDArray[np.bool_]:
    """Return which labels (l,) share their box with a label of another class."""
    differ = image.label_classes[:, None] != image.label_classes[None, :]
    return np.asarray(((iou(image.labels, image.labels) >= TWICE_LABELED) & differ).any(axis=1))
