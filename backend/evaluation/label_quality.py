"""Which annotated images probably hold a wrong label: ObjectLab (Tkachenko et al., 2023), written from its formulas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from backend.geometry.coordinates import iou

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHA = 0.9  # the overlap's part of the similarity, the rest is the distance's
DECAY = 0.1  # k of e^(−k d), d the centres' distance in the unit of the boxes: give them in percent of the image
SURE, LIKELY = 0.95, 0.5  # confidence of predictions that may accuse a label of being absent or swapped, or misplaced
TWICE_LABELED = 0.95  # IoU of two labels of different classes that are one object
MATCH_IOU = 0.5  # of a label and a prediction that agree
TEMPERATURE = 0.1
SUSPECT = 0.75  # a score below calls for a look; one label beside its prediction at IoU .4 gives it


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
    """How right an image's labels seem: 1 is clean, 0 is surely wrong."""

    score: float  # geometric mean of the three below, each by softmin over its boxes
    overlooked: Floats  # (m,) of each prediction, NaN for one that accuses nobody
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
    """What one version's model of a control tag thinks of the labels of that tag that one annotation gave a task."""

    task_id: int
    annotation_id: int
    updated_at: str  # of the annotation judged: one changed since is not meant any longer
    score: float  # 1 is clean, 0 is surely wrong
    suspicion: str  # as LabelQuality.suspicion; "" where nobody need look
    label: str  # of the worst box: an annotator's, or the class of an object that nobody labeled; "" without suspicion
    box: tuple[float, float, float, float] | None  # that box, xyxy in percent of the image
    learned: bool  # the model was trained on this image, so that it may have learned the error with it
    tag: str = ""  # name of the control tag; "" in reviews from before there were several: the config's first

    @property
    def suspicious(self) -> bool:
        """Whether somebody should look at it."""
        return self.score < SUSPECT


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where one model's predictions contradict labels: measured on all labels of its tag, and kept for later ones.

    So a verdict on one label needs no other label, and verdicts of different days can be compared.
    """

    sure: tuple[float, ...]  # confidence of a sure prediction: of boxes one for all classes, of choices one per label
    absent: tuple[float, ...] = ()  # of choices: the probability from which each label is surely absent
    floor: float = 1.0  # of boxes: the least similarity of a label and a prediction
    images: int = 0  # that they were measured on
    since: int = 0  # images that were judged by them afterwards

    @property
    def outgrown(self) -> bool:
        """Whether so much was judged since that they are measured anew: half of what they were measured on."""
        return 2 * self.since >= max(self.images, 1)


@dataclass(frozen=True, slots=True)
class Review:
    """What one version's last review found, and what it rests on: the next one judges what is new."""

    issues: tuple[LabelIssue, ...] = ()  # worst first
    reviewed: Mapping[int, str] | None = None  # annotation id -> updated_at, of all that it looked at; None: not known
    shards: tuple[int, ...] = ()  # the answers that it rests on: when each of their shards was written
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)  # by the tag's name in the store
    rules: str = ""  # a hash of what else all its verdicts depend on


def by_task(issues: Iterable[LabelIssue]) -> tuple[LabelIssue, ...]:
    """Return one verdict on each task, that of the worst of its tags, of verdicts that come worst first."""
    worst: dict[int, LabelIssue] = {}
    for issue in issues:
        worst.setdefault(issue.task_id, issue)
    return tuple(worst.values())


def thresholds(images: Sequence[Reviewed]) -> Thresholds:
    """Return from where a model's predictions may accuse: from SURE, or from the confidence it has where labels agree.

    That is the mean over predictions of a label's class and at IoU .5 with it (the threshold of confident learning,
    Northcutt et al., 2021). A YOLO trained on some hundred images is hardly ever as sure as ObjectLab's .95.
    """
    agreeing = [image.confidence[_matches(image).any(axis=0)] for image in images]
    confidence = np.concatenate([np.zeros(0), *agreeing])
    sure = min(SURE, float(confidence.mean())) if len(confidence) else SURE
    return Thresholds(
        (sure,), floor=_least(similarity(image.labels, image.predictions) for image in images), images=len(images)
    )


def _least(similar: Iterable[Floats]) -> float:
    """Return the least similarity of a label and a prediction that have any; 1 without any."""
    return min((float(pairs[pairs > 0].min()) for pairs in similar if (pairs > 0).any()), default=1.0)


def label_quality(images: Sequence[Reviewed], sure: float = SURE, floor: float = 1.0) -> tuple[LabelQuality, ...]:
    """Return the quality of each image's labels, in order.

    `sure` is the confidence of predictions that may accuse a label of being absent or swapped. The lowest score is
    `floor`, or the least similarity of these images.
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
    """Return a score (m,) of each sure prediction that overlaps no label: how similar the nearest of its class is."""
    accuses = (image.confidence >= sure) & ~(overlap > 0).any(axis=0)
    nearest = _best(similar.T, _same_class(image).T)
    nearest = np.where(np.isnan(nearest), floor * (1 - image.confidence), nearest)
    return np.where(accuses, nearest, np.nan)


def similarity(boxes: npt.ArrayLike, others: npt.ArrayLike) -> Floats:
    """Return α IoU + (1 − α) e^(−k d) of all pairs, d the distance of the centres: (l, 4), (m, 4) -> (l, m).

    >>> similarity([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [6, 8, 16, 18]]).round(4)
    array([[1.    , 0.3607, 0.0743]])
    """
    one = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    other = np.asarray(others, dtype=np.float64).reshape(-1, 4)
    centres, other_centres = (one[:, :2] + one[:, 2:]) / 2, (other[:, :2] + other[:, 2:]) / 2
    distance = np.linalg.norm(centres[:, None] - other_centres[None], axis=2)
    return np.asarray(ALPHA * iou(one, other) + (1 - ALPHA) * np.exp(-DECAY * distance))


def softmin(scores: Floats, temperature: float = TEMPERATURE) -> float:
    """Return Σ s·softmax((1 − s)/T) over the scores that are not NaN; 1 without any.

    >>> round(softmin(np.array([.2, 1., np.nan])), 4), softmin(np.array([]))  # (.2 + e^−8) / (1 + e^−8)
    (0.2003, 1.0)
    """
    known = scores[~np.isnan(scores)]
    if not len(known):
        return 1.0
    weights = np.exp((known.min() - known) / temperature)
    return float((known * weights).sum() / weights.sum())


def _best(similar: Floats, counted: npt.NDArray[np.bool_]) -> Floats:
    """Return the largest counted similarity of each row, NaN where none counts: (l, m) -> (l,)."""
    best = np.where(counted, similar, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(best), np.nan, best)


def _same_class(image: Reviewed) -> npt.NDArray[np.bool_]:
    """Return which pairs (l, m) of a label and a prediction are of one class."""
    return np.asarray(image.label_classes[:, None] == image.predicted_classes[None, :])


def _matches(image: Reviewed) -> npt.NDArray[np.bool_]:
    """Return which pairs (l, m) say the same: one class, and boxes at IoU .5 or more."""
    return np.asarray((iou(image.labels, image.predictions) >= MATCH_IOU) & _same_class(image))


def _labeled_twice(image: Reviewed) -> npt.NDArray[np.bool_]:
    """Return which labels (l,) share their box with one of another class."""
    other = image.label_classes[:, None] != image.label_classes[None, :]
    return np.asarray(((iou(image.labels, image.labels) >= TWICE_LABELED) & other).any(axis=1))
