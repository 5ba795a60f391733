"""From values of boxes to one value per image, on ragged arrays: boxes of image i are offsets[i]:offsets[i + 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.columns import of_predictions
from backend.acquisition.pool import Empty, Pool
from backend.types import FloatArray, IntArray, Prediction

Floats = npt.NDArray[np.floating[Any]]
Sums = npt.NDArray[np.float64]
BLOCK = 16_384  # rows at a time, so that intermediate arrays stay in the CPU's cache


def pool_of(
    task_ids: IntArray,
    predictions: Sequence[Prediction | None],
    class_weights: FloatArray | None,
    needs: frozenset[str] = frozenset(),
) -> Pool:
    """Return the pool of the tasks that have a prediction: k tasks -> n <= k images.

    The pool has the columns that every pool has, and those that a strategy `needs`.
    """
    scored = [prediction for prediction in predictions if prediction is not None]
    ids = [
        task_id for task_id, prediction in zip(task_ids.tolist(), predictions, strict=True) if prediction is not None
    ]
    offsets = np.cumsum([0, *(len(prediction.class_probs) for prediction in scored)], dtype=np.int64)
    probs = [prediction.class_probs for prediction in scored if len(prediction.class_probs)]
    return Pool(
        np.array(ids, dtype=np.int64),
        offsets,
        np.concatenate(probs) if probs else np.zeros((0, 0), dtype=np.float32),
        of_predictions(scored, needs),
        class_weights,
    )


def blockwise(measure: Callable[[Floats], Floats], values: Floats) -> Floats:
    """Return a measure of each row, computed block by block to save memory: (m, ...) -> (m,)."""
    starts = range(0, len(values), BLOCK)
    return np.concatenate([np.zeros(0), *(measure(values[start : start + BLOCK]) for start in starts)])


def top_rows(values: Floats, offsets: IntArray, k: int) -> IntArray:
    """Return the rows of the k largest values of each image, images in place, largest first within each.

    >>> top_rows(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]), 2)
    array([1, 2, 3])
    """
    rows = [np.zeros(0, dtype=np.int64)]
    cuts = np.searchsorted(offsets, np.arange(0, max(len(values), 1), BLOCK))
    for begin, end in zip(cuts, [*cuts[1:], len(offsets) - 1], strict=True):
        start, stop = offsets[begin], offsets[end]
        counts = np.diff(offsets[begin : end + 1])
        order = np.lexsort((-values[start:stop], np.repeat(np.arange(end - begin), counts)))
        rows.append(start + order[np.arange(stop - start) - np.repeat(offsets[begin:end] - start, counts) < k])
    return np.concatenate(rows)


def top_sum(values: Floats, offsets: IntArray, *, k: int = 10, empty: Empty = "median") -> Sums:
    """Return the sum of the k largest box values of each image: (m,), (n + 1,) -> (n,).

    The limit k keeps images with many boxes from winning by the number alone. For `empty` see `fill`.

    >>> top_sum(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]), k=2)
    array([0.8 , 0.65, 0.5 ])
    """
    rows = top_rows(values, offsets, k)
    return fill(_sum(values[rows], np.minimum(np.diff(offsets), k)), offsets, empty)


def top_mean(values: Floats, offsets: IntArray, *, k: int = 10, empty: Empty = "median") -> Sums:
    """Return the mean of the k largest box values of each image, of all where there are fewer: (m,), (n + 1,) -> (n,).

    >>> top_mean(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]), k=2)
    array([0.4 , 0.45, 0.5 ])
    """
    counts = np.minimum(np.diff(offsets), k)
    return fill(_sum(values[top_rows(values, offsets, k)], counts) / np.maximum(counts, 1), offsets, empty)


def largest(values: Floats, offsets: IntArray, *, empty: Empty = "median") -> Sums:
    """Return the largest box value of each image: (m,), (n + 1,) -> (n,).

    >>> largest(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]))
    array([0.6 , 0.55, 0.5 ])
    """
    return top_sum(values, offsets, k=1, empty=empty)


def mean(values: Floats, offsets: IntArray, *, empty: Empty = "median") -> Sums:
    """Return the mean box value of each image: (m,), (n + 1,) -> (n,).

    >>> mean(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]))
    array([0.3, 0.4, 0.5])
    """
    counts = np.diff(offsets)
    return fill(_sum(values, counts) / np.maximum(counts, 1), offsets, empty)


def total(values: Floats, offsets: IntArray, *, empty: Empty = "median") -> Sums:
    """Return the sum of all box values of each image: (m,), (n + 1,) -> (n,).

    >>> total(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]))
    array([0.9, 0.7, 0.5])
    """
    return fill(_sum(values, np.diff(offsets)), offsets, empty)


def _sum(values: Floats, counts: IntArray) -> Sums:
    image = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(image, weights=values, minlength=len(counts)).astype(np.float64, copy=False)


def fill(sums: Sums, offsets: IntArray, empty: Empty) -> Sums:
    """Give each image without boxes the lowest, the median or the highest value of the images with boxes.

    Without any boxes all values stay 0. The median is the default: an image without detections is unknown to a model
    that has learned little, and background to a good one.
    """
    has_boxes = np.diff(offsets) > 0
    if has_boxes.any() and not has_boxes.all():
        sums[~has_boxes] = np.quantile(sums[has_boxes], {"lowest": 0.0, "median": 0.5, "highest": 1.0}[empty])
    return sums
