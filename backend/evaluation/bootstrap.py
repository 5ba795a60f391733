"""How sure a measured quality is: the bootstrap over the images that it was measured on.

What a model said of each image is matched with the labels once. A draw only counts how often each image is in it, so a
thousand draws cost about as much as measuring the model once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from backend.model_versions import Metrics
from backend.types import BoolArray, FloatArray, IntArray

Values: TypeAlias = npt.NDArray[np.float64]

DRAWS, STRICT_DRAWS = 500, 200  # of the mean over ten overlaps fewer: each costs ten times as much
LEVEL = 0.95
_RECALLS = np.linspace(0, 1, 101)  # where ultralytics reads the precision, as COCO does
_CELLS = 1 << 22  # of a table of draws and detections: bounds the memory


class Sample(Protocol):
    """What a model said of n images, beside their labels; frames of one video count as one image."""

    @property
    def size(self) -> int:
        """n."""

    def quality(self, counts: IntArray) -> Values:
        """Return the quality (B,) of B draws, which hold each image so many times (B, n); NaN without any label."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The quality of one model on a set of images, and what it was computed from."""

    metrics: Metrics
    sample: Sample


@dataclass(frozen=True, slots=True)
class Mean:
    """Several samples of the same images; the quality is the mean of theirs, as mAP50-95 is of ten overlaps."""

    parts: tuple[Sample, ...]

    @property
    def size(self) -> int:
        return self.parts[0].size

    def quality(self, counts: IntArray) -> Values:
        """Return the mean of the qualities of each draw."""
        mean: Values = np.mean([part.quality(counts) for part in self.parts], axis=0)
        return mean


def measured(metrics: Metrics, sample: Sample, strict: Sample | None = None) -> Measured:
    """Return a measurement with its intervals; the same images give the same ones.

    `strict` is what mAP50-95 was computed from; a task without it has one figure for both.
    """
    span = interval(sample, np.random.default_rng(0))
    strict_span = span if strict is None else interval(strict, np.random.default_rng(0), STRICT_DRAWS)
    return Measured(replace(metrics, interval=span, interval_50_95=strict_span), sample)


def gained(challenger: Measured, champion: Measured) -> Measured:
    """Return the challenger's measurement with the interval of what it is better by than the champion."""
    span = difference(challenger.sample, champion.sample, np.random.default_rng(0))
    return replace(challenger, metrics=replace(challenger.metrics, gained=span))


@dataclass(frozen=True, slots=True)
class Matches:
    """The k detections of a model on n images; its quality is mAP50, as ultralytics measures it."""

    images: IntArray  # (k,) the image of each
    classes: IntArray  # (k,) its class
    confidence: FloatArray  # (k,)
    right: BoolArray  # (k,) it found a label of its class, by IoU >= .5
    labels: IntArray  # (n, C) how many labels of each class an image has

    @property
    def size(self) -> int:
        return len(self.labels)

    def quality(self, counts: IntArray) -> Values:
        """Return the mAP50 of each draw: the mean over the classes that it has labels of.

        Two images, one object in each; the first is found, and something else with less confidence beside it.

        >>> found = Matches(
        ...     images=np.array([0, 0]), classes=np.array([0, 0]), confidence=np.array([0.9, 0.4]),
        ...     right=np.array([True, False]), labels=np.array([[1], [1]]),
        ... )
        >>> found.quality(np.array([[1, 1], [2, 0], [0, 2]])).round(2).tolist()
        [0.5, 1.0, 0.0]
        """
        there = np.flatnonzero(self.labels.any(axis=0))
        each = [self._average_precision(int(kind), counts) for kind in there]
        return _mean(np.array(each).reshape(len(there), len(counts)))

    def _average_precision(self, kind: int, counts: IntArray) -> Values:
        """Return the AP50 of a class in each draw, NaN where the draw has no label of it."""
        rows = np.flatnonzero(self.classes == kind)
        rows = rows[np.argsort(-self.confidence[rows], kind="stable")]
        given = counts @ self.labels[:, kind]
        found: Values = np.full(len(counts), np.nan)
        step = max(_CELLS // max(len(rows), 1), 1)
        for start in range(0, len(counts), step):
            part = slice(start, start + step)
            times = counts[part][:, self.images[rows]]
            found[part] = _areas(times, self.right[rows], given[part])
        return found


def _areas(times: IntArray, right: BoolArray, given: IntArray) -> Values:
    """Return the areas (B,) under precision against recall; detections by falling confidence are drawn (B, k) times."""
    hits, seen = (times * right).cumsum(axis=1), times.cumsum(axis=1)
    precision = hits / np.maximum(seen, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    areas: Values = np.full(len(times), np.nan)
    for row in np.flatnonzero(given > 0):
        recall = hits[row] / given[row]
        last = recall[-1] if len(recall) else 0.0
        x, y = np.concatenate([[0.0], recall, [last, 1.0]]), np.concatenate([[1.0], precision[row], [0.0, 0.0]])
        areas[row] = np.trapezoid(np.interp(_RECALLS, x, y), _RECALLS) if len(recall) else 0.0
    return areas


@dataclass(frozen=True, slots=True)
class Answers:
    """How often a classifier of one class is right on n images; its quality is the share of right ones."""

    right: IntArray  # (n,)
    known: IntArray  # (n,) how many have a class at all

    @property
    def size(self) -> int:
        return len(self.right)

    def quality(self, counts: IntArray) -> Values:
        """Return the share of right answers in each draw.

        >>> Answers(right=np.array([1, 0]), known=np.array([1, 1])).quality(np.array([[1, 1], [2, 0]])).tolist()
        [0.5, 1.0]
        """
        return _share(counts @ self.right, counts @ self.known)


@dataclass(frozen=True, slots=True)
class Rankings:
    """The probabilities of a classifier of several classes in m frames of n images; its quality is the mean AP."""

    images: IntArray  # (m,) the image that each frame is of
    probs: FloatArray  # (m, C)
    true: BoolArray  # (m, C)
    size: int

    def quality(self, counts: IntArray) -> Values:
        """Return the mean over the classes of their average precision.

        >>> probs, true = np.array([[0.9], [0.8], [0.7]]), np.array([[True], [False], [True]])
        >>> said = Rankings(np.array([0, 1, 2]), probs, true, 3)
        >>> said.quality(np.array([[1, 1, 1], [2, 0, 1]])).round(3).tolist()
        [0.833, 1.0]
        """
        times = counts[:, self.images]
        there = np.flatnonzero(self.true.any(axis=0))
        precisions = [average_precision(self.probs[:, c], self.true[:, c], times) for c in there]
        return _mean(np.array(precisions).reshape(-1, len(counts)))


def average_precision(scores: FloatArray | Values, true: BoolArray, times: IntArray) -> Values:
    """Return the average precision (B,) of scores (m,) that are drawn `times` (B, m); NaN without a true one.

    That is the mean, over the true ones, of the precision among all whose score is as high or higher.

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

    both: Values  # (n, C) where class and label are
    either: Values  # (n, C) where one of them is
    labels: Values  # (n, C) how many labels of each class an image has

    @property
    def size(self) -> int:
        return len(self.both)

    def quality(self, counts: IntArray) -> Values:
        """Return the mean IoU over the classes that a draw has labels of.

        >>> found = Pixels(np.array([[4.0], [0.0]]), np.array([[4.0], [4.0]]), np.array([[1], [1]]))
        >>> found.quality(np.array([[1, 1], [2, 0]])).tolist()
        [0.5, 1.0]
        """
        shares = _share(counts @ self.both, counts @ self.either)
        return _mean(np.where(counts @ self.labels > 0, shares, np.nan).T)


def interval(sample: Sample, rng: np.random.Generator, draws: int = DRAWS) -> tuple[float, float] | None:
    """Return between which values the quality lies in 95% of draws of n images; None where nothing can be drawn.

    >>> sure = Answers(right=np.array([1] * 90 + [0] * 10), known=np.ones(100, dtype=np.int64))
    >>> low, high = interval(sure, np.random.default_rng(0))
    >>> round(low, 2), round(high, 2)
    (0.84, 0.95)
    """
    if sample.size < 2:
        return None
    return _between(sample.quality(_drawn(sample.size, rng, draws)))


def difference(
    sample: Sample, other: Sample, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float] | None:
    """Return the same of how much better one model is than the other, both on the same images in the same order."""
    if sample.size != other.size:
        raise ValueError(f"{sample.size} images against {other.size}: they must be the same ones")
    if sample.size < 2:
        return None
    counts = _drawn(sample.size, rng, draws)
    return _between(sample.quality(counts) - other.quality(counts))


def _drawn(size: int, rng: np.random.Generator, draws: int) -> IntArray:
    """Return how often each image is in each draw of as many (draws, size)."""
    counts: IntArray = rng.multinomial(size, np.full(size, 1 / size), size=draws)
    return counts


def _between(values: Values) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _mean(values: Values) -> Values:
    """Return the mean over the classes (C, B), without those that are NaN; NaN where all are."""
    known = np.isfinite(values)
    return _share(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> Values:
    """Return part / whole, NaN where there is nothing."""
    total = np.asarray(whole, dtype=np.float64)
    share: Values = np.full(total.shape, np.nan)
    return np.divide(part, total, out=share, where=total > 0)


def task_of(name: str) -> str:
    """Return the task that an image of a data set is of: frames of one video tell less than as many pictures.

    >>> task_of("12"), task_of("12-340")
    ('12', '12')
    """
    return name.partition("-")[0]


def places(names: Sequence[str]) -> tuple[IntArray, int]:
    """Return the place of each image's task among all tasks (k,), and how many there are.

    >>> places(["7-1", "7-20", "3"])
    (array([1, 1, 0]), 2)
    """
    tasks = [task_of(name) for name in names]
    order = {task: place for place, task in enumerate(sorted(set(tasks)))}
    return np.array([order[task] for task in tasks], dtype=np.int64), len(order)


def summed(rows: npt.ArrayLike, place: IntArray, size: int) -> Values:
    """Return the sums (size, C) of the rows (k, C) that have the same place (k,)."""
    values = np.asarray(rows, dtype=np.float64)
    total = np.zeros((size, *values.shape[1:]))
    np.add.at(total, place, values)
    return total
