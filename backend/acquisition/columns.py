"""Columns of pools: one array for each row of `types.COLUMNS`, with the values of many images or of their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.types import COLUMNS, Column, IntArray, Prediction

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]  # by `Column.table`: (n, ...) of n images, (m, ...) of their m boxes

BY_TABLE = {column.table: column for column in COLUMNS}
OF_EVERY_POOL = frozenset(column.table for column in COLUMNS if column.pooled == "always")


def pooled(needs: frozenset[str] = frozenset()) -> tuple[Column, ...]:
    """Return the columns of a pool: those of every pool, and those that a strategy `needs`.

    >>> [column.name for column in pooled(frozenset({"box_embeddings"})) if column.pooled == "needed"]
    ['box_embeddings']
    """
    needed = (column for column in COLUMNS if column.pooled == "needed" and column.table in needs)
    return (*(column for column in COLUMNS if column.pooled == "always"), *needed)


def value_of(prediction: Prediction, column: Column) -> Array | None:
    """Return a prediction's values in a column, of n boxes (n, ...) or of the image (...); None: the model lacks it."""
    value = getattr(prediction, column.name)
    if value is None or (column.per == "image" and not np.size(value)):
        return None
    return np.asarray(value)


def of_predictions(predictions: Sequence[Prediction], needs: frozenset[str] = frozenset()) -> dict[str, Array]:
    """Return the columns of the pool of these predictions."""
    return gathered({column.table: joined(column, predictions) for column in pooled(needs)})


def joined(column: Column, predictions: Sequence[Prediction]) -> Array | None:
    """Return one column of many predictions, rounded as in a shard; None if a prediction lacks it, see `Filling`."""
    if column.per == "image":
        filling = Filling(column, len(predictions))
        for prediction in predictions:
            value = value_of(prediction, column)
            filling.add(None if value is None else value[None].astype(column.dtype, copy=False))
        return filling.array()
    filling = Filling(column, sum(len(prediction.class_probs) for prediction in predictions))
    for prediction in predictions:
        value = value_of(prediction, column)
        if len(prediction.class_probs):
            filling.add(None if value is None else value.astype(column.dtype, copy=False))
    return filling.array()


def gathered(arrays: Mapping[str, Array | None]) -> dict[str, Array]:
    """Return the arrays that are not None."""
    return {name: array for name, array in arrays.items() if array is not None}


def without_others(prediction: Prediction, needs: frozenset[str]) -> Prediction:
    """Return a prediction without the columns that the pool of a strategy with these `needs` does not hold."""
    pooled_columns = pooled(needs)
    cleared: dict[str, Any] = {column.name: None for column in COLUMNS if column not in pooled_columns}
    return replace(prediction, **cleared)


class Filling:
    """One column of a pool, filled part by part, so that it is in memory only once.

    The whole column is missing if one part lacks it, or if the rows of two parts differ in shape.
    """

    def __init__(self, column: Column, rows: int) -> None:
        """Prepare a column with this number of rows."""
        self._column = column
        self._rows = rows
        self._end = 0
        self._array: Array | None = None
        self._complete = True

    def add(self, part: Array | None) -> None:
        """Append the next rows (k, ...), k >= 1; None: the model lacks the column."""
        if not self._complete:
            return
        self._complete = part is not None and self._fits(part)
        if part is None or not self._complete:
            self._array = None
            return
        if self._array is None:
            self._array = np.empty((self._rows, *part.shape[1:]), _in_memory(self._column))
        self._array[self._end : self._end + len(part)] = part
        self._end += len(part)

    def array(self) -> Array | None:
        """Return all rows (n, ...), or None if the column is missing."""
        if self._rows or not self._complete:
            return self._array
        return np.zeros((0, *self._column.lengths(1)), _in_memory(self._column)) if self._column.empty else None

    def _fits(self, part: Array) -> bool:
        same = self._array is None or part.shape[1:] == self._array.shape[1:]
        blank = self._column.missing is not None and bool(np.isnan(part).any())
        return same and not blank and 0 not in part.shape[1:] and _has_shape(self._column, part)


def select_rows(arrays: Arrays, boxes: IntArray, images: IntArray | None = None) -> dict[str, Array]:
    """Return some rows of each column: `boxes` of columns per box, `images` of columns per image (None: all)."""
    rows = {"box": boxes, "image": slice(None) if images is None else images}
    return {name: array[rows[BY_TABLE[name].per]] for name, array in arrays.items()}


def check(arrays: Arrays, images: int, boxes: int) -> None:
    """Raise ValueError for an unknown column, one that does not fit n images and m boxes, NaN and infinity."""
    for name, array in arrays.items():
        column = BY_TABLE.get(name)
        if column is None:
            raise ValueError(f"{name!r} is no column; use one of {', '.join(BY_TABLE)}")
        rows, fix = (images, "leave those images out") if column.per == "image" else (boxes, "drop those boxes")
        if len(array) != rows or not _has_shape(column, array):
            raise ValueError(f"{name} {array.shape} must have {rows} rows of shape {column.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; {fix} before ranking")


def _has_shape(column: Column, array: Array) -> bool:
    lengths = array.shape[1:]
    return len(lengths) == len(column.shape) and all(
        isinstance(wanted, str) or wanted == length for wanted, length in zip(column.shape, lengths, strict=True)
    )


def _in_memory(column: Column) -> type[np.generic]:
    """Return the dtype of a column in pools and predictions; half precision is used in shards only."""
    return np.float32 if column.dtype is np.float16 else column.dtype
