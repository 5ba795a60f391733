"""Random values for the columns of predictions, made from the table of columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from backend.acquisition.pool import Pool
from backend.types import COLUMNS, Column, Prediction, Tracks

_TRACKS = next(column for column in COLUMNS if column.form == "tracks")
_LENGTH = 5  # of dimensions that the model decides


def value(column: Column, n: int, rng: np.random.Generator) -> Any:
    """Return a random value of a column for an image with n boxes; half precision can store it."""
    return _OF_FORM[column.form](column, n, rng)


def prediction(n: int, *columns: Column, seed: int = 0) -> Prediction:
    """Return a prediction of n boxes with these optional columns and no others."""
    rng = np.random.default_rng((seed, n))
    probs = rng.random((n, 3), np.float32)
    beside = [_TRACKS] if any(column.form == "frames" for column in columns) else []  # frames are of videos
    values = {column.name: value(column, n, rng) for column in (*beside, *columns)}
    return Prediction(64, 48, rng.random((n, 4), np.float32), probs, probs.max(axis=1, initial=0), **values)


def with_columns(pool: Pool, **columns: Any) -> Pool:
    """Return the pool with new values in some columns."""
    return replace(pool, columns={**pool.columns, **columns})


def assert_same(actual: Any, expected: Any) -> None:
    """Compare values of columns, with the types of their arrays."""
    if is_dataclass(expected):
        for part in fields(expected):
            assert_same(getattr(actual, part.name), getattr(expected, part.name))
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for actual_item, expected_item in zip(actual, expected, strict=True):
            assert_same(actual_item, expected_item)
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    else:
        assert actual == expected


def _array(column: Column, n: int, rng: np.random.Generator) -> Any:
    lengths = [_LENGTH if isinstance(length, str) else length for length in column.shape]
    shape = (*(() if column.per == "image" else (n,)), *lengths)
    sixteenths = rng.integers(1, 16, shape) / 16
    values = sixteenths if np.issubdtype(column.dtype, np.floating) else sixteenths * 16
    in_memory = np.float32 if column.dtype is np.float16 else column.dtype
    return np.asarray(values, in_memory) if shape else np.asarray(values, in_memory).item()


def _rings(_column: Column, n: int, rng: np.random.Generator) -> Any:
    return tuple(tuple(rng.random((points, 2), np.float32) for points in (4, 3)[: 1 + box % 2]) for box in range(n))


def _tracks(_column: Column, n: int, _rng: np.random.Generator) -> Tracks:
    return Tracks(np.arange(1, n + 1), np.zeros(n, np.int64), np.arange(n) % 2 == 0, length=9, rate=25.0)


def _frames(_column: Column, n: int, _rng: np.random.Generator) -> Any:
    return np.arange(n, 0, -1)


def _pages(_column: Column, n: int, rng: np.random.Generator) -> Any:
    others = [column for column in COLUMNS if column.form == "array" and column.pooled != "needed"]
    return tuple(
        Prediction(
            *(64, 48, rng.random((boxes, 4), np.float32), rng.random((boxes, 3), np.float32)),
            rng.random(boxes, np.float32),
            **{column.name: value(column, boxes, rng) for column in others},
        )
        for boxes in (n, 0, 1)
    )


_OF_FORM: Mapping[str, Callable[[Column, int, np.random.Generator], Any]] = {
    "array": _array,
    "rings": _rings,
    "tracks": _tracks,
    "frames": _frames,
    "pages": _pages,
}
