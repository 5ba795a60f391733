"""TimelineLabels on a Video: one region for each range of frames that shows a label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.errors import RegionError
from backend.geometry import timeline_segments
from backend.geometry.timeline_segments import KIND, LAST_FRAME, Segment
from backend.labelstudio import regions
from backend.labelstudio.tags import Result, Tag
from backend.types import WHOLE, ControlTag, IntArray, LabeledBox, LstmOptions, Prediction, Region, frame_step

MAX_EVERY = 1000
SMOOTHED_S = 0.5  # seconds over which the probabilities of frames are averaged
SHORTEST_S = 0.2  # seconds of the shortest segment that becomes a region
EPOCHS = "model_classifier_epochs"  # of a training
# The options of an LSTM over the frames, named as in `LstmOptions`, and the maximum of each.
_LSTM = {
    "model_classifier_sequence_size": 1000.0,
    "model_classifier_hidden_size": 1024.0,
    "model_classifier_num_layers": 8.0,
    EPOCHS: 1e6,
    "model_classifier_f1_threshold": 1.0,
    "model_classifier_accuracy_threshold": 1.0,
}
_SIZES = tuple(_LSTM)[:3]  # a tag with one of them has an LSTM


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return regions where a label's probability, smoothed over time, reaches the tag's own threshold.

    `threshold` applies to a tag without its own. Regions of different labels may overlap. A region's score is the mean
    over its frames. Its borders lie half-way between frames that the model classified.
    """
    tracks = prediction.tracks
    if tracks is None or not len(tracks.frames):  # no model yet
        return ()
    probs, labels = _of_labels(tag, prediction, classes)
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    frames_per_second = tracks.rate * len(probs) / tracks.length
    smooth = timeline_segments.smooth(probs, window=2 * int(SMOOTHED_S * frames_per_second / 2) + 1)
    shortest = min(max(1, round(SHORTEST_S * frames_per_second)), len(probs))
    segments = timeline_segments.segments(smooth, labels, lowest, shortest)
    begins, ends = borders(tracks.frames, tracks.length)
    placed = (
        Segment(int(begins[segment.start - 1]), int(ends[segment.end - 1]), segment.label, segment.score)
        for segment in segments
    )
    return tuple(_region(tag, prediction, key, index, segment) for index, segment in enumerate(placed))


def borders(frames: IntArray, length: int) -> tuple[IntArray, IntArray]:
    """Return the first (n,) and the last (n,) frame that are nearest to each of n ascending frames.

    >>> [ends.tolist() for ends in borders(np.array([1, 6, 11]), 12)]
    [[1, 4, 9], [3, 8, 12]]
    """
    middles = (frames[:-1] + frames[1:]) // 2
    return np.concatenate([[1], middles + 1]), np.concatenate([middles, [max(length, frames[-1])]])


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | str]:
    """Yield a training label for each segment, from its `frame` to its `last`, or why a segment is not learned.

    A segment without an end lasts to LAST_FRAME, because a region does not say how long its video is.
    """
    for item in result:
        if item.get("from_name") != tag.from_name or item.get("type") != tag.kind:
            continue
        name = regions.name_of(item)
        if not regions.labels_of(item, KIND):
            yield f"{name} has no label"
            continue
        try:
            segments = timeline_segments.from_value(item["value"], LAST_FRAME)
        except RegionError as error:
            yield f"{name} ({error.where}): {error.what}"
            continue
        if not segments:
            yield f"{name} has no range of frames"
        for segment in segments:
            if segment.label in tag.labels:
                yield LabeledBox(segment.label, WHOLE, frame=segment.start, last=segment.end)
            else:
                yield f"{name} {regions.unknown_label(segment.label)}"


def epochs(tag: ControlTag) -> int:
    """Return the epochs for a training of a tag's frame classifier, 0 where the tag does not say.

    It is 0 for tags of other kinds. For a tag with an LSTM it is 0 too: there the number is that of the LSTM.
    """
    return math.ceil(regions.setting(tag, EPOCHS, 0)) if tag.kind == KIND and not lstm(tag) else 0


def lstm(tag: ControlTag) -> LstmOptions | None:
    """Return the options of the tag's LSTM; None for a tag that sets none of the LSTM's sizes."""
    if tag.kind != KIND or not any(size in tag.attributes for size in _SIZES):
        return None
    default = LstmOptions()
    sequence, hidden, layers, most, f1, accuracy = (
        regions.setting(tag, name, getattr(default, name.removeprefix("model_classifier_"))) for name in _LSTM
    )
    return LstmOptions(math.ceil(sequence), math.ceil(hidden), math.ceil(layers), math.ceil(most), f1, accuracy)


def _of_labels(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str]
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the probabilities of the labels (n, L) and the L labels; a label of several classes has their maximum."""
    columns: dict[str, list[int]] = {}
    for column, label in enumerate(regions.class_labels(tag, classes)):
        if label is not None:
            columns.setdefault(label, []).append(column)
    probs = [prediction.class_probs[:, of_label].max(axis=1) for of_label in columns.values()]
    by_label = np.array(probs, dtype=np.float64).reshape(len(columns), len(prediction.class_probs))
    return by_label.T, list(columns)


def _region(tag: ControlTag, prediction: Prediction, key: str, index: int, segment: Segment) -> Region:
    value: Mapping[str, Any] = timeline_segments.to_value(segment)
    return Region(
        id=regions.region_id(key, tag.from_name, index),
        kind=tag.kind,
        from_name=tag.from_name,
        to_name=tag.to_name,
        value=value,
        score=segment.score,
        original_width=prediction.width,
        original_height=prediction.height,
    )


TAG = Tag(
    name="TimelineLabels",
    object_name="Video",
    encode=encode,
    read=read,
    task=lambda _: "classify",
    multiple=lambda _: True,  # no label is a frame's only one: some have none, where regions overlap it has several
    numbers={"model_every": MAX_EVERY, **_LSTM},
    above_zero=frozenset({EPOCHS, *_SIZES}),
    answer_options=lambda attributes: {"model_every": frame_step(attributes)},
)
