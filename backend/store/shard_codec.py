"""One shard of a scored pool as an npz file: ragged arrays, no pickle."""

from __future__ import annotations

import io
import itertools
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from backend.acquisition.pool import Committee
from backend.errors import ModelError
from backend.types import DOUBTED_FRAMES, BoolArray, ByteArray, FloatArray, IntArray, Outline, Prediction, Tracks

SHARD_TASKS = 256  # of a scored pool: so many are predicted, and asked of Label Studio, at a time


@dataclass(frozen=True, slots=True)
class PoolShard:
    """k scored tasks of a pool; a prediction of None: the task could not be scored."""

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
    """Which tasks a shard holds, and how many boxes of each: box rows of task i are offsets[i]:offsets[i + 1]."""

    written: int  # ns since 1970
    task_ids: IntArray  # (k,)
    failed: BoolArray  # (k,)
    offsets: IntArray  # (k + 1,)
    classes: int
    dimensions: int  # of the embeddings
    sources: IntArray  # (k,) what each answer is of, 0: not known


@dataclass(frozen=True, slots=True)
class ShardArrays:
    """A shard as stored: k tasks, m boxes, C classes, D embedding dimensions."""

    header: ShardHeader
    sizes: IntArray  # (k, 2) width, height
    boxes: FloatArray  # (m, 4)
    class_probs: FloatArray  # (m, C)
    confidence: FloatArray  # (m,)
    embeddings: FloatArray  # (k, D)
    box_variance: FloatArray  # (m, 4)
    has_variance: BoolArray  # (k,)
    rotated: FloatArray  # (m, 5), or (0, 5) where the boxes are upright
    outline_points: FloatArray  # (p, 2) of all rings
    outline_rings: IntArray  # (r + 1,) where each ring begins, and the end
    outlines: IntArray  # (m + 1,) where each box's rings begin, and the end; (1,) where the boxes have none

    keypoints: FloatArray  # (m, K, 3), or (0, 0, 3) where the boxes have none
    tracks: IntArray  # (m, 3) frame, object, enabled; (0, 3) where the boxes are of images
    clocks: npt.NDArray[np.float64]  # (k, 2) length in frames, frames per second; 0 of an image
    shape_confidence: FloatArray  # (m,), or (0,) where the boxes have none
    video_doubt: FloatArray  # (k,) NaN of an image
    doubted_frames: IntArray  # (k, 10) 0 where there is none
    thumbnails: ByteArray  # (k, 192), or (k, 0) where one is not known

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
            embedding=self.embeddings[row],
            box_variance=self.box_variance[box] if self.has_variance[row] else None,
            rotated=self.rotated[box] if len(self.rotated) else None,
            outlines=self._outlines(box) if len(self.outlines) > 1 else None,
            keypoints=self.keypoints[box] if len(self.keypoints) else None,
            tracks=self._tracks(row, box) if self.clocks[row, 0] else None,
            shape_confidence=self.shape_confidence[box] if len(self.shape_confidence) else None,
            doubted_frames=self.doubted_frames[row][self.doubted_frames[row] > 0] if self.clocks[row, 0] else None,
            video_doubt=None if np.isnan(self.video_doubt[row]) else float(self.video_doubt[row]),
            thumbnail=self.thumbnails[row],
        )

    def _tracks(self, row: int, box: slice) -> Tracks:
        frames, objects, enabled = self.tracks[box].T
        length, rate = self.clocks[row].tolist()
        return Tracks(frames, objects, enabled.astype(np.bool_), int(length), rate)

    def _outlines(self, box: slice) -> tuple[Outline, ...]:
        rings = self.outlines[box.start : box.stop + 1].tolist()
        begin = self.outline_rings
        return tuple(
            tuple(self.outline_points[begin[ring] : begin[ring + 1]] for ring in range(*ends))
            for ends in itertools.pairwise(rings)
        )


def encode(shard: PoolShard) -> bytes:
    """Return the npz file of a shard; embeddings of boxes are the largest part, and half precision does for them."""
    found = [prediction for prediction in shard.predictions if prediction is not None]
    failed = np.array([prediction is None for prediction in shard.predictions], dtype=np.bool_)
    counts = np.zeros(len(failed), dtype=np.int64)
    counts[~failed] = [len(prediction.boxes) for prediction in found]
    classes = max((prediction.class_probs.shape[1] for prediction in found), default=0)
    dimensions = max((len(prediction.embedding) for prediction in found), default=0)
    sizes, embeddings = np.zeros((len(failed), 2), dtype=np.int64), np.zeros((len(failed), dimensions), np.float32)
    has_variance = np.zeros(len(failed), dtype=np.bool_)
    if found:
        sizes[~failed] = [(prediction.width, prediction.height) for prediction in found]
        embeddings[~failed] = [prediction.embedding for prediction in found]
        has_variance[~failed] = [prediction.box_variance is not None for prediction in found]
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
        boxes=_stack([prediction.boxes for prediction in found], 4),
        class_probs=_stack([prediction.class_probs for prediction in found], classes),
        confidence=_stack([prediction.confidence[:, None] for prediction in found], 1)[:, 0],
        embeddings=embeddings,
        box_variance=_stack([_variance(prediction) for prediction in found], 4),
        has_variance=has_variance,
        **_outline_arrays(found),
        keypoints=_keypoints(found),
        tracks=_tracks(found),
        clocks=_clocks(shard.predictions),
        shape_confidence=_shape_confidence(found),
        video_doubt=_doubts(shard.predictions),
        doubted_frames=_doubted_frames(shard.predictions),
        thumbnails=_thumbnails(shard.predictions),
        rotated=_stack([prediction.rotated for prediction in found if prediction.rotated is not None], 5),
        box_embeddings=_box_embeddings(found),
    )
    return buffer.getvalue()


def read_header(file: BinaryIO, where: str) -> ShardHeader:
    """Return a shard's header without reading its boxes; raises ModelError naming the file if it is damaged."""
    return _header(_load(file, where, ("written", "task_ids", "failed", "offsets", "shape")))


def read(file: BinaryIO, where: str) -> ShardArrays:
    """Return a whole shard; raises ModelError naming the file if it is damaged."""
    boxes = ("sizes", "boxes", "class_probs", "confidence", "embeddings", "box_variance", "has_variance", "rotated")
    drawn = ("outline_points", "outline_rings", "outlines", "keypoints", "tracks", "clocks")
    names = (*boxes, *drawn, "shape_confidence", "video_doubt", "doubted_frames", "thumbnails")
    arrays = _load(file, where, ("written", "task_ids", "failed", "offsets", "shape", *names))
    return ShardArrays(_header(arrays), *(arrays[name] for name in names))


def read_box_embeddings(file: BinaryIO, where: str) -> FloatArray:
    """Return the embeddings of a shard's boxes (m, E), E = 0 where the model gives none; raises as `read`."""
    return _load(file, where, ("box_embeddings",))["box_embeddings"].astype(np.float32)


def encode_votes(task_ids: IntArray, votes: Committee) -> bytes:
    """Return the npz file of what a committee says of k tasks."""
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
    """Return the tasks and the votes of a file; raises ModelError naming it if it is damaged."""
    arrays = _load(file, where, ("task_ids", "offsets", "probs", "boxes", "variance"))
    variance = arrays["variance"] if len(arrays["variance"]) else None
    return arrays["task_ids"], Committee(arrays["offsets"], arrays["probs"], arrays["boxes"], variance)


def load_arrays(
    file: BinaryIO, where: str, names: Sequence[str], fix: str, optional: Sequence[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Return the named arrays of an npz file, never unpickling; raises ModelError naming the file if it is damaged.

    The optional ones are left out where an earlier release wrote none.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            present = [name for name in optional if name in stored.files]
            return {name: stored[name] for name in (*names, *present)}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, TypeError) as error:
        raise ModelError(f"damaged file: {error}", where=where, fix=fix) from error


def _load(file: BinaryIO, where: str, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    fix = "delete this file and score the project again"
    return load_arrays(file, where, names, fix, optional=("sources",))


def _header(arrays: dict[str, npt.NDArray[Any]]) -> ShardHeader:
    classes, dimensions = arrays["shape"].tolist()
    written, task_ids = int(arrays["written"]), arrays["task_ids"]
    sources = arrays.get("sources", np.zeros(len(task_ids), dtype=np.int64))
    return ShardHeader(written, task_ids, arrays["failed"], arrays["offsets"], classes, dimensions, sources)


def _variance(prediction: Prediction) -> FloatArray:
    if prediction.box_variance is None:
        return np.zeros((len(prediction.boxes), 4), dtype=np.float32)
    return prediction.box_variance


def _outline_arrays(found: Sequence[Prediction]) -> dict[str, npt.NDArray[Any]]:
    outlines = [outline for prediction in found for outline in prediction.outlines or ()]
    rings = [ring for outline in outlines for ring in outline]
    return {
        "outline_points": _stack(rings, 2),
        "outline_rings": np.cumsum([0, *map(len, rings)], dtype=np.int64),
        "outlines": np.cumsum([0, *map(len, outlines)], dtype=np.int64),
    }


def _keypoints(found: Sequence[Prediction]) -> FloatArray:
    points = [one.keypoints for one in found if one.keypoints is not None and len(one.keypoints)]
    return np.concatenate(points) if points else np.zeros((0, 0, 3), dtype=np.float32)


def _tracks(found: Sequence[Prediction]) -> IntArray:
    known = [one.tracks for one in found if one.tracks is not None]
    rows = [np.stack([one.frames, one.objects, one.enabled], axis=1).astype(np.int64) for one in known]
    return np.concatenate([np.zeros((0, 3), np.int64), *rows])


def _clocks(predictions: Sequence[Prediction | None]) -> npt.NDArray[np.float64]:
    known = [None if one is None else one.tracks for one in predictions]
    rows = [(0.0, 0.0) if one is None else (one.length, one.rate) for one in known]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _doubts(predictions: Sequence[Prediction | None]) -> FloatArray:
    known = [None if one is None else one.video_doubt for one in predictions]
    return np.array([np.nan if one is None else one for one in known], dtype=np.float32)


def _doubted_frames(predictions: Sequence[Prediction | None]) -> IntArray:
    table = np.zeros((len(predictions), DOUBTED_FRAMES), dtype=np.int64)
    for row, one in zip(table, predictions, strict=True):
        if one is not None and one.doubted_frames is not None:
            row[: len(one.doubted_frames)] = one.doubted_frames[:DOUBTED_FRAMES]
    return table


def _thumbnails(predictions: Sequence[Prediction | None]) -> ByteArray:
    known = [None if one is None else one.thumbnail for one in predictions]
    size = min((len(one) for one in known if one is not None), default=0)
    table = np.zeros((len(known), size), dtype=np.uint8)
    for row, one in zip(table, known, strict=True):
        if one is not None and size:
            row[:] = one
    return table


def _shape_confidence(found: Sequence[Prediction]) -> FloatArray:
    known = [one.shape_confidence for one in found if one.shape_confidence is not None and len(one.boxes)]
    if sum(map(len, known)) != sum(len(one.boxes) for one in found):
        return np.zeros(0, dtype=np.float32)
    return np.concatenate([np.zeros(0, dtype=np.float32), *known])


def _box_embeddings(found: Sequence[Prediction]) -> npt.NDArray[np.float16]:
    """Join what the predictions embed of their boxes (m, E); E = 0 if one of them embeds none."""
    boxes = sum(len(prediction.boxes) for prediction in found)
    known = [one.box_embeddings for one in found if one.box_embeddings is not None and len(one.boxes)]
    if sum(map(len, known)) != boxes or not known:
        return np.zeros((boxes, 0), dtype=np.float16)
    return np.concatenate(known).astype(np.float16)


def _stack(arrays: Sequence[FloatArray], width: int) -> FloatArray:
    """Join (n_i, width) arrays; an empty one may have any width, for a model without boxes may not know it."""
    kept = [array for array in arrays if len(array)]
    return np.concatenate([np.zeros((0, width), dtype=np.float32), *kept]).astype(np.float32, copy=False)
