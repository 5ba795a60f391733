"""The columns of `types.COLUMNS` as arrays of a shard, for k images with m boxes in all, and back."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.acquisition.columns import Array, Arrays, value_of
from backend.types import COLUMNS, Column, Outline, Prediction, Tracks

Predictions = Sequence[Prediction | None]  # k; None: the task failed


@dataclass(frozen=True, slots=True)
class _Form:
    """How the values of a column become arrays of a shard, and how the value of one image is read back."""

    arrays: Callable[[Column], tuple[str, ...]]  # their names
    encode: Callable[[Column, Predictions], dict[str, Array]]
    # (column, arrays, row of the image, rows of its boxes) -> value, None without one
    decode: Callable[[Column, Arrays, int, slice], Any]


def names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the names of the arrays that hold these columns."""
    return tuple(dict.fromkeys(name for column in columns for name in _FORMS[column.form].arrays(column)))


def encode(columns: Sequence[Column], predictions: Predictions) -> dict[str, Array]:
    """Return the arrays that hold these columns of k predictions."""
    encoded = (_FORMS[column.form].encode(column, predictions) for column in columns)
    return {name: array for arrays in encoded for name, array in arrays.items()}


def decode(columns: Sequence[Column], arrays: Arrays, row: int, boxes: slice) -> dict[str, Any]:
    """Return the fields of the Prediction in a row; a column without an array, as in old shards, is left out."""
    values = {
        column.name: _FORMS[column.form].decode(column, arrays, row, boxes)
        for column in columns
        if all(name in arrays for name in _FORMS[column.form].arrays(column))
    }
    return {name: value for name, value in values.items() if value is not None}


def _array_names(column: Column) -> tuple[str, ...]:
    return (column.table, column.flags) if column.flags else (column.table,)


def _encode_array(column: Column, predictions: Predictions) -> dict[str, Array]:
    values = [None if prediction is None else value_of(prediction, column) for prediction in predictions]
    if column.per == "image":
        return {column.table: _of_images(column, predictions, values)}
    flags = {column.flags: np.array([value is not None for value in values], np.bool_)} if column.flags else {}
    return {column.table: _of_boxes(column, predictions, values), **flags}


def _of_images(column: Column, predictions: Predictions, values: Sequence[Array | None]) -> Array:
    """Return one row per image, or an array (k, 0) or (0,) if an image lacks the column; failed tasks have zeros."""
    present = [value for value in values if value is not None]
    scored = sum(prediction is not None for prediction in predictions)
    if column.missing is None and (len(present) < scored or not present):
        return np.zeros((len(values), 0) if column.shape else 0, column.dtype)
    shape = present[0].shape if present else column.lengths(0)
    array = np.full((len(values), *shape), 0 if column.missing is None else column.missing, column.dtype)
    for row, value in enumerate(values):
        if value is not None:
            array[row] = value
    return array


def _of_boxes(column: Column, predictions: Predictions, values: Sequence[Array | None]) -> Array:
    """Return one row per box; no rows, or empty rows, if the boxes of an image lack the column."""
    counts = [0 if prediction is None else len(prediction.boxes) for prediction in predictions]
    lengths = column.lengths(0)
    parts = [
        np.zeros((count, *lengths), column.dtype) if value is None and column.flags else value
        for count, value in zip(counts, values, strict=True)
        if count
    ]
    present = [part for part in parts if part is not None]
    if present and len(present) == len(parts):
        return np.concatenate(present).astype(column.dtype, copy=False)
    vectors_of_any_length = len(lengths) == 1 and isinstance(column.shape[0], str)
    return np.zeros((sum(counts) if vectors_of_any_length else 0, *lengths), column.dtype)


def _decode_array(column: Column, arrays: Arrays, row: int, boxes: slice) -> Any:
    array = arrays[column.table]
    if column.per == "box":
        has_values = bool(arrays[column.flags][row]) if column.flags else len(array) > 0
        return array[boxes] if has_values else None
    if not array.size or (column.missing is not None and np.isnan(array[row])):
        return None
    return array[row] if column.shape else array[row].item()


def _ring_names(column: Column) -> tuple[str, ...]:
    return "outline_points", "outline_rings", column.table


def _encode_rings(column: Column, predictions: Predictions) -> dict[str, Array]:
    """Return the points of all rings (p, 2), the start of each ring (r + 1,) and of each box's rings (m + 1,).

    The last array is (1,) if the boxes have no outlines.
    """
    shapes = [
        value
        for prediction in predictions
        if prediction is not None and (value := getattr(prediction, column.name)) is not None
    ]
    outlines: list[Outline] = [outline for value in shapes for outline in value]
    rings = [ring for outline in outlines for ring in outline]
    points = np.concatenate([np.zeros((0, 2), np.float32), *rings]).astype(np.float32, copy=False)
    ends = [np.cumsum([0, *map(len, parts)], dtype=np.int64) for parts in (rings, outlines)]
    return dict(zip(_ring_names(column), (points, *ends), strict=True))


def _decode_rings(column: Column, arrays: Arrays, _row: int, boxes: slice) -> tuple[Outline, ...] | None:
    points, begin, outlines = (arrays[name] for name in _ring_names(column))
    if len(outlines) <= 1:
        return None
    rings = outlines[boxes.start : boxes.stop + 1].tolist()
    return tuple(
        tuple(points[begin[ring] : begin[ring + 1]] for ring in range(*ends)) for ends in itertools.pairwise(rings)
    )


_CLOCKS = "clocks"  # (k, 2) length in frames, frames per second; 0 for an image


def _video_names(column: Column) -> tuple[str, ...]:
    return column.table, _CLOCKS


def _encode_tracks(column: Column, predictions: Predictions) -> dict[str, Array]:
    """Return frame, object and visibility of each box (m, 3), and the clocks of the videos (k, 2)."""
    tracks = [None if prediction is None else prediction.tracks for prediction in predictions]
    rows = [np.stack([track.frames, track.objects, track.enabled], axis=1) for track in tracks if track is not None]
    clocks = [(0.0, 0.0) if track is None else (track.length, track.rate) for track in tracks]
    return {
        column.table: np.concatenate([np.zeros((0, 3), column.dtype), *rows]).astype(column.dtype, copy=False),
        _CLOCKS: np.array(clocks, np.float64).reshape(-1, 2),
    }


def _decode_tracks(column: Column, arrays: Arrays, row: int, boxes: slice) -> Tracks | None:
    length, rate = arrays[_CLOCKS][row].tolist()
    if not length:
        return None
    frames, objects, enabled = arrays[column.table][boxes].T
    return Tracks(frames, objects, enabled.astype(np.bool_), int(length), rate)


def _encode_frames(column: Column, predictions: Predictions) -> dict[str, Array]:
    """Return the frames of each video (k, `shape`), padded with 0."""
    table = np.zeros((len(predictions), *column.lengths(0)), column.dtype)
    for row, prediction in zip(table, predictions, strict=True):
        frames = None if prediction is None else getattr(prediction, column.name)
        if frames is not None:
            row[: len(frames)] = frames[: len(row)]
    return {column.table: table}


def _decode_frames(column: Column, arrays: Arrays, row: int, _boxes: slice) -> Array | None:
    frames = arrays[column.table][row]
    return frames[frames > 0] if arrays[_CLOCKS][row, 0] else None


_OF_PAGES = tuple(column for column in COLUMNS if column.form != "pages" and column.pooled != "needed")


def _page_names(column: Column) -> tuple[str, ...]:
    return column.table, "page_ends"


def _encode_pages(column: Column, predictions: Predictions) -> dict[str, Array]:
    """Return the npz files of all tasks' pages as bytes (b,), and the end of each task's file (k,)."""
    pages = [None if prediction is None else prediction.pages for prediction in predictions]
    files = [b"" if of_task is None else _packed(of_task) for of_task in pages]
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    return dict(zip(_page_names(column), (np.frombuffer(b"".join(files), np.uint8), ends), strict=True))


def _decode_pages(column: Column, arrays: Arrays, row: int, _boxes: slice) -> tuple[Prediction, ...] | None:
    files, ends = (arrays[name] for name in _page_names(column))
    file = files[ends[row - 1] if row else 0 : ends[row]]
    return _unpacked(file.tobytes()) if len(file) else None


def _packed(pages: Sequence[Prediction]) -> bytes:
    """Return the pages of a task as an npz file."""
    buffer = io.BytesIO()
    probs = [page.class_probs for page in pages if len(page.class_probs)]
    np.savez(
        buffer,
        allow_pickle=False,
        ends=np.cumsum([0, *(len(page.boxes) for page in pages)], dtype=np.int64),
        sizes=np.array([(page.width, page.height) for page in pages], np.int64),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(page.boxes.reshape(-1, 4) for page in pages)]),
        class_probs=np.concatenate(probs) if probs else np.zeros((0, 0), np.float32),
        confidence=np.concatenate([page.confidence for page in pages]),
        **encode(_OF_PAGES, pages),
    )
    return buffer.getvalue()


def _unpacked(file: bytes) -> tuple[Prediction, ...]:
    with np.load(io.BytesIO(file), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return tuple(
        Prediction(
            width=size[0],
            height=size[1],
            boxes=arrays["boxes"][start:end],
            class_probs=arrays["class_probs"][start:end],
            confidence=arrays["confidence"][start:end],
            **decode(_OF_PAGES, arrays, row, slice(start, end)),
        )
        for row, (size, (start, end)) in enumerate(
            zip(arrays["sizes"].tolist(), itertools.pairwise(arrays["ends"].tolist()), strict=True)
        )
    )


_FORMS = {
    "array": _Form(_array_names, _encode_array, _decode_array),
    "rings": _Form(_ring_names, _encode_rings, _decode_rings),
    "tracks": _Form(_video_names, _encode_tracks, _decode_tracks),
    "frames": _Form(_video_names, _encode_frames, _decode_frames),
    "pages": _Form(_page_names, _encode_pages, _decode_pages),
}
