"""One shard of a scored pool as an npz file: ragged arrays, no pickle."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from backend.acquisition.columns import Array, Arrays
from backend.acquisition.pool import Committee
from backend.store import column_codec
from backend.store.npz import load_arrays
from backend.types import COLUMNS, BoolArray, Column, FloatArray, IntArray, Prediction

OF_PREDICTIONS = tuple(column for column in COLUMNS if column.pooled != "needed")  # "needed" columns are large
_HEADER = ("written", "task_ids", "failed", "offsets", "shape")
SHARD_TASKS = 256  # tasks per shard, which are fetched from Label Studio and predicted together


@dataclass(frozen=True, slots=True)
class PoolShard:
    """k scored tasks of a pool; the prediction of a task that could not be scored is None."""

    index: int
    task_ids: IntArray  # (k,)
    predictions: tuple[Prediction | None, ...]
    sources: IntArray | None = None  # (k,) `ControlTag.source` of each task, None: not known

    def __post_init__(self) -> None:
        if self.task_ids.shape != (len(self.predictions),):
            raise ValueError(f"{self.task_ids.shape} task ids for {len(self.predictions)} predictions")
        if self.sources is not None and self.sources.shape != self.task_ids.shape:
            raise ValueError(f"{self.sources.shape} sources for {len(self.predictions)} predictions")


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """The tasks of a shard, and the boxes of each: box rows of task i are offsets[i]:offsets[i + 1]."""

    written: int  # ns since 1970
    task_ids: IntArray  # (k,)
    failed: BoolArray  # (k,)
    offsets: IntArray  # (k + 1,)
    classes: int
    sources: IntArray  # (k,) `ControlTag.source` of each task when it was scored, 0: not known


@dataclass(frozen=True, slots=True)
class ShardArrays:
    """A shard as stored: k tasks, m boxes, C classes."""

    header: ShardHeader
    sizes: IntArray  # (k, 2) width, height
    boxes: FloatArray  # (m, 4)
    class_probs: FloatArray  # (m, C)
    confidence: FloatArray  # (m,)
    columns: Arrays  # by name, as `column_codec` makes them

    @property
    def nbytes(self) -> int:
        """The memory that the shard takes."""
        arrays: list[Array] = [self.sizes, self.boxes, self.class_probs, self.confidence, *self.columns.values()]
        return sum(array.nbytes for array in arrays)

    def prediction(self, row: int) -> Prediction | None:
        """Return the prediction of one row, None if it failed."""
        if self.header.failed[row]:
            return None
        box = slice(int(self.header.offsets[row]), int(self.header.offsets[row + 1]))
        return Prediction(
            width=int(self.sizes[row, 0]),
            height=int(self.sizes[row, 1]),
            boxes=self.boxes[box],
            class_probs=self.class_probs[box],
            confidence=self.confidence[box],
            **column_codec.decode(OF_PREDICTIONS, self.columns, row, box),
        )

    def part(self, column: Column, images: BoolArray) -> Array | None:
        """Return a column's rows of some images (k,), or of their boxes; None if one of the images lacks the column."""
        counts = np.diff(self.header.offsets)
        rows = images if column.per == "image" else np.repeat(images, counts)
        array = self.columns.get(column.table)
        if array is None or len(array) != len(rows):
            return None
        if column.flags and not (self.columns[column.flags] | (counts == 0))[images].all():
            return None
        return array[rows]


def encode(shard: PoolShard) -> bytes:
    """Return the npz file of a shard."""
    scored = [prediction for prediction in shard.predictions if prediction is not None]
    failed = np.array([prediction is None for prediction in shard.predictions], dtype=np.bool_)
    counts, sizes = np.zeros(len(failed), dtype=np.int64), np.zeros((len(failed), 2), dtype=np.int64)
    if scored:
        counts[~failed] = [len(prediction.boxes) for prediction in scored]
        sizes[~failed] = [(prediction.width, prediction.height) for prediction in scored]
    classes = max((prediction.class_probs.shape[1] for prediction in scored), default=0)
    dimensions = max((len(prediction.embedding) for prediction in scored), default=0)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        written=np.int64(time.time_ns()),
        task_ids=shard.task_ids.astype(np.int64),
        sources=np.zeros(len(failed), dtype=np.int64) if shard.sources is None else shard.sources,
        failed=failed,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        shape=np.array([classes, dimensions], dtype=np.int64),
        sizes=sizes,
        boxes=_stack([prediction.boxes for prediction in scored], 4),
        class_probs=_stack([prediction.class_probs for prediction in scored], classes),
        confidence=_stack([prediction.confidence[:, None] for prediction in scored], 1)[:, 0],
        **column_codec.encode(COLUMNS, shard.predictions),
    )
    return buffer.getvalue()


def read_header(file: BinaryIO, where: str) -> ShardHeader:
    """Return a shard's header without reading its boxes. Raises ModelError naming a damaged file."""
    return _header(_load(file, where, _HEADER))


def read(file: BinaryIO, where: str, columns: Sequence[Column] = OF_PREDICTIONS) -> ShardArrays:
    """Return a shard with some columns. Raises ModelError naming a damaged file."""
    core, names = ("sizes", "boxes", "class_probs", "confidence"), column_codec.names(columns)
    arrays = _load(file, where, (*_HEADER, *core), names)
    stored = {name: arrays[name] for name in names if name in arrays}
    return ShardArrays(_header(arrays), **{name: arrays[name] for name in core}, columns=stored)


def encode_votes(task_ids: IntArray, votes: Committee) -> bytes:
    """Return the npz file of a committee's predictions for k tasks."""
    variance = votes.member_variance
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        task_ids=task_ids,
        offsets=votes.offsets,
        probs=votes.member_probs,
        boxes=votes.member_boxes,
        variance=np.zeros((0, 0, 4), dtype=np.float32) if variance is None else variance,
    )
    return buffer.getvalue()


def read_votes(file: BinaryIO, where: str) -> tuple[IntArray, Committee]:
    """Return the task ids (k,) and the votes of a file. Raises ModelError naming a damaged file."""
    arrays = _load(file, where, ("task_ids", "offsets", "probs", "boxes", "variance"))
    variance = arrays["variance"] if len(arrays["variance"]) else None
    return arrays["task_ids"], Committee(arrays["offsets"], arrays["probs"], arrays["boxes"], variance)


def _load(
    file: BinaryIO, where: str, names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    fix = "delete this file and score the project again"
    return load_arrays(file, where, names, fix, optional=("sources", *optional))


def _header(arrays: Arrays) -> ShardHeader:
    task_ids, classes = arrays["task_ids"], int(arrays["shape"][0])
    sources = arrays.get("sources", np.zeros(len(task_ids), dtype=np.int64))
    return ShardHeader(int(arrays["written"]), task_ids, arrays["failed"], arrays["offsets"], classes, sources)


def _stack(arrays: Sequence[FloatArray], width: int) -> FloatArray:
    """Join (n_i, width) arrays; an empty one may have any width, as a prediction without boxes may not know it."""
    filled = [array for array in arrays if len(array)]
    return np.concatenate([np.zeros((0, width), dtype=np.float32), *filled]).astype(np.float32, copy=False)
