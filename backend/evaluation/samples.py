"""Samples: a model's predictions for n images, matched with their labels, so that any draw of images has a quality.

A draw is only a count for each image, so the quality of many draws is computed without matching again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from backend.types import BoolArray, FloatArray, IntArray

Values: TypeAlias = npt.NDArray[np.float64]

_RECALLS = np.linspace(0, 1, 101)  # recalls at which ultralytics and COCO read the precision
_CELLS = 1 << 22  # cells of a table of draws and detections; the limit bounds the memory


class Sample(Protocol):
    """A model's predictions for n images, matched with their labels; frames of one video count as one image."""

    @property
    def size(self) -> int:
        """The number of images n."""

    def quality(self, counts: IntArray) -> Values:
        """Return the quality (B,) of B draws; `counts` (B, n): how often a draw holds each image. NaN: no label."""

    def by_class(self, counts: IntArray) -> Values:
        """Return the quality of each class in each draw (C, B); NaN where the draw has no label of the class."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Several samples of the same images; its quality is the mean of their qualities, as for mAP50-95."""

    parts: tuple[Sample, ...]

    @property
    def size(self) -> int:
        """The number of images n."""
        return self.parts[0].size

    def quality(self, counts: IntArray) -> Values:
        """Return the mean of the qualities of each draw."""
        mean: Values = np.mean([part.quality(counts) for part in self.parts], axis=0)
        return mean

    def by_class(self, counts: IntArray) -> Values:
        """Return the mean of the qualities of each class (C, B)."""
        mean: Values = np.mean([part.by_class(counts) for part in self.parts], axis=0)
        return mean


@dataclass(frozen=True, slots=True)
class Matches:
    """The k detections of a model on n images; the quality is mAP50, as ultralytics measures it."""

    images: IntArray  # (k,) the image of each
    classes: IntArray  # (k,) its class
    confidence: FloatArray  # (k,)
    right: BoolArray  # (k,) it matches a label of its class with IoU >= .5
    labels: IntArray  # (n, C) number of labels of each class in each image

    @property
    def size(self) -> int:
        """The number of images n."""
        return len(self.labels)

    def quality(self, counts: IntArray) -> Values:
        """Return the mAP50 of each draw: the mean over the classes of which the draw has labels.

        Example: two images with one object each. In the first image the object is detected, and with less confidence
        something else.

        >>> matches = Matches(
        ...     images=np.array([0, 0]), classes=np.array([0, 0]), confidence=np.array([0.9, 0.4]),
        ...     right=np.array([True, False]), labels=np.array([[1], [1]]),
        ... )
        >>> matches.quality(np.array([[1, 1], [2, 0], [0, 2]])).round(2).tolist()
        [0.5, 1.0, 0.0]
        """
        return _mean(self.by_class(counts))

    def by_class(self, counts: IntArray) -> Values:
        """Return the AP50 of each class in each draw (C, B)."""
        precisions: Values = np.full((self.labels.shape[1], len(counts)), np.nan)
        for kind in np.flatnonzero(self.labels.any(axis=0)).tolist():
            precisions[kind] = self._average_precision(kind, counts)
        return precisions

    def _average_precision(self, kind: int, counts: IntArray) -> Values:
        """Return the AP50 of a class in each draw (B,), NaN if the draw has no label of the class."""
        rows = np.flatnonzero(self.classes == kind)
        rows = rows[np.argsort(-self.confidence[rows], kind="stable")]
        # What follows the last right detection adds no recall, so it does not change the area.
        rows = rows[: np.flatnonzero(self.right[rows]).max(initial=-1) + 1]
        labels = counts @ self.labels[:, kind]
        precision: Values = np.full(len(counts), np.nan)
        step = max(_CELLS // max(len(rows), 1), 1)
        for start in range(0, len(counts), step):
            part = slice(start, start + step)
            drawn = counts[part][:, self.images[rows]]
            precision[part] = _areas(drawn, self.right[rows], labels[part])
        return precision


def _areas(drawn: IntArray, right: BoolArray, labels: IntArray) -> Values:
    """Return the areas (B,) under the precision-recall curves of B draws with so many `labels` each (B,).

    `drawn` (B, k) tells how often each draw holds each detection, `right` (k,) which ones are right, both by falling
    confidence.
    """
    hits, detections = (drawn * right).cumsum(axis=1), drawn.cumsum(axis=1)
    precision = hits / np.maximum(detections, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    areas: Values = np.full(len(drawn), np.nan)
    for row in np.flatnonzero(labels > 0):
        recall = hits[row] / labels[row]
        last = recall[-1] if len(recall) else 0.0
        x, y = np.concatenate([[0.0], recall, [last, 1.0]]), np.concatenate([[1.0], precision[row], [0.0, 0.0]])
        areas[row] = np.trapezoid(np.interp(_RECALLS, x, y), _RECALLS) if len(recall) else 0.0
    return areas


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a single-choice classifier on n images; the quality is the share of right answers."""

    right: IntArray  # (n, C) number of right answers, by the class that the annotator chose
    labeled: IntArray  # (n, C) number of answers with a chosen class

    @property
    def size(self) -> int:
        """The number of images n."""
        return len(self.right)

    def quality(self, counts: IntArray) -> Values:
        """Return the share of right answers in each draw.

        >>> answers = Answers(right=np.array([[1, 0], [0, 0]]), labeled=np.array([[1, 0], [0, 1]]))
        >>> answers.quality(np.array([[1, 1], [2, 0]])).tolist()
        [0.5, 1.0]
        """
        return _share(counts @ self.right.sum(axis=1), counts @ self.labeled.sum(axis=1))

    def by_class(self, counts: IntArray) -> Values:
        """Return the share of right answers among the images of each class, in each draw (C, B)."""
        return _share(counts @ self.right, counts @ self.labeled).T


@dataclass(frozen=True, slots=True)
class Rankings:
    """The probabilities of a multi-label classifier in m frames of n images; the quality is the mean AP."""

    images: IntArray  # (m,) the image of each frame
    probs: FloatArray  # (m, C)
    true: BoolArray  # (m, C)
    size: int

    def quality(self, counts: IntArray) -> Values:
        """Return the mean over the classes of their average precision.

        >>> probs, true = np.array([[0.9], [0.8], [0.7]]), np.array([[True], [False], [True]])
        >>> rankings = Rankings(np.array([0, 1, 2]), probs, true, 3)
        >>> rankings.quality(np.array([[1, 1, 1], [2, 0, 1]])).round(3).tolist()
        [0.833, 1.0]
        """
        return _mean(self.by_class(counts))

    def by_class(self, counts: IntArray) -> Values:
        """Return the average precision of each class in each draw (C, B)."""
        times, precisions = counts[:, self.images], np.full((self.true.shape[1], len(counts)), np.nan)
        for kind in np.flatnonzero(self.true.any(axis=0)).tolist():
            precisions[kind] = average_precision(self.probs[:, kind], self.true[:, kind], times)
        return precisions


def average_precision(scores: FloatArray | Values, true: BoolArray, times: IntArray) -> Values:
    """Return the average precision (B,) of scores (m,) in B draws; NaN for a draw without a true score.

    `times` (B, m) tells how often each draw holds each score. The result is the mean, over the true scores, of the
    precision among all scores that are as high or higher.

    >>> scores, true = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    >>> average_precision(scores, true, np.ones((1, 3), dtype=int)).round(3).tolist()
    [0.833]
    """
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    drawn = times[:, order]
    hits = drawn * true[order]
    last_equal = np.searchsorted(falling, falling, side="right") - 1
    precision = (hits.cumsum(axis=1) / np.maximum(drawn.cumsum(axis=1), 1))[:, last_equal]
    return _share((hits * precision).sum(axis=1), hits.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of each class in n images; the quality is the mean IoU."""

    both: Values  # (n, C) pixels in prediction and label
    either: Values  # (n, C) pixels in prediction or label
    labels: Values  # (n, C) number of labels of each class in each image

    @property
    def size(self) -> int:
        """The number of images n."""
        return len(self.both)

    def quality(self, counts: IntArray) -> Values:
        """Return the mean IoU of each draw over the classes of which it has labels.

        >>> pixels = Pixels(np.array([[4.0], [0.0]]), np.array([[4.0], [4.0]]), np.array([[1], [1]]))
        >>> pixels.quality(np.array([[1, 1], [2, 0]])).tolist()
        [0.5, 1.0]
        """
        return _mean(self.by_class(counts))

    def by_class(self, counts: IntArray) -> Values:
        """Return the IoU of each class in each draw (C, B)."""
        shares = _share(counts @ self.both, counts @ self.either)
        return np.where(counts @ self.labels > 0, shares, np.nan).T


def _mean(values: Values) -> Values:
    """Return the mean over the classes (C, B) -> (B,), without NaN values; NaN if all are NaN."""
    is_known = np.isfinite(values)
    return _share(np.where(is_known, values, 0.0).sum(axis=0), is_known.sum(axis=0))


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> Values:
    """Return part / whole, NaN where whole is 0."""
    total = np.asarray(whole, dtype=np.float64)
    share: Values = np.full(total.shape, np.nan)
    return np.divide(part, total, out=share, where=total > 0)


def task_of(name: str) -> str:
    """Return the task of an image of a data set, by its name; all frames of one video belong to one task.

    >>> task_of("12"), task_of("12-340")
    ('12', '12')
    """
    return name.partition("-")[0]


def places(names: Sequence[str]) -> tuple[IntArray, int]:
    """Return the index of each image's task among the sorted tasks (k,), and the number of tasks.

    >>> places(["7-1", "7-20", "3"])
    (array([1, 1, 0]), 2)
    """
    tasks = [task_of(name) for name in names]
    order = {task: place for place, task in enumerate(tasks_of(names))}
    return np.array([order[task] for task in tasks], dtype=np.int64), len(order)


def tasks_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks of images in the order of `places`.

    >>> tasks_of(["7-1", "7-20", "3"])
    ('3', '7')
    """
    return tuple(sorted({task_of(name) for name in names}))


def summed(rows: npt.ArrayLike, place: IntArray, size: int) -> Values:
    """Return the sums (size, C) of the rows (k, C) with the same index `place` (k,)."""
    values = np.asarray(rows, dtype=np.float64)
    total = np.zeros((size, *values.shape[1:]))
    np.add.at(total, place, values)
    return total
