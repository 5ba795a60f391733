"""The frames of a video, one by one, as a classifier sees them, and which of them a training learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.geometry import timeline_segments
from backend.geometry.timeline_segments import Segment
from backend.media.video import Video, frames
from backend.types import WHOLE, BoolArray, ControlTag, FloatArray, IntArray, LabeledBox, Prediction, Tracks, frame_step
from backend.yolo import lstm, thumbnails, video_uncertainty
from backend.yolo.classifier import Classifier
from backend.yolo.runtime import check_finite

MOST = 60  # frames of one video with the same labels that are learned: a long one has nothing new to say
_LIKELY = 0.5  # probability of a label
BLUR = 3  # frames: nearer to the border of a segment people do not agree what a frame shows


@dataclass(frozen=True, slots=True)
class LabeledVideo:
    """A task's video and all the segments that were drawn on it."""

    task_id: int
    video: Video
    segments: tuple[LabeledBox, ...]


def watch(classifier: Classifier, video: Video, tag: ControlTag) -> Prediction:
    """Return what every so many frames of a video show: n whole frames, with the probabilities of all classes.

    A classifier with an LSTM beside it says what that says of them. Memory grows with the probabilities, or else with
    the embeddings, not with the pixels seen. Raises MediaError as `video.frames` does.
    """
    rate, length = tag.frame_rate, video.length(tag.frame_rate)
    wanted = looked_at(video, tag)
    probs: list[FloatArray] = []
    embeddings: list[FloatArray] = []
    embedding: FloatArray = np.zeros(1, np.float32)  # (D,) the sum so far
    thumbnail: IntArray = np.zeros(1, np.int64)  # (192,) the sum so far
    for found in classifier.watch(frames(video, wanted, rate)):
        probs.append(found.class_probs[0])
        if classifier.temporal is not None:
            embeddings.append(found.embedding)
        embedding = embedding + found.embedding
        thumbnail = thumbnail + found.thumbnail
    n = len(probs)  # a header may promise a frame too many
    table = np.stack(probs) if probs else np.zeros((0, len(classifier.classes)), np.float32)
    if embeddings:
        table = check_finite(lstm.probabilities(classifier.temporal, np.stack(embeddings)))
    numbers, entropy = np.array(wanted[:n], np.int64), video_uncertainty.of_labels(table)
    labels, rows = np.nonzero(table.T >= _LIKELY)
    return Prediction(
        width=video.width,
        height=video.height,
        boxes=np.tile(np.array([0, 0, video.width, video.height], np.float32), (n, 1)),
        class_probs=table,
        confidence=table.max(axis=1, initial=0),
        embedding=embedding / np.float32(max(n, 1)),
        tracks=Tracks(numbers, np.zeros(n, np.int64), np.ones(n, np.bool_), length, rate),
        doubted_frames=video_uncertainty.worst(numbers, entropy, rate),
        video_doubt=video_uncertainty.of_video(
            entropy, video_uncertainty.fragmentation(numbers[rows], labels, numbers, rate)
        ),
        thumbnail=thumbnails.mean(thumbnail, n),
    )


def embeddings_of(classifier: Classifier, video: Video, tag: ControlTag) -> FloatArray:
    """Return what the last layer sees of the frames that are looked at (n, D). Raises MediaError as `watch` does."""
    found = classifier.watch(frames(video, looked_at(video, tag), tag.frame_rate))
    return np.stack([one.embedding for one in found])


def labels_of(labeled: LabeledVideo, tag: ControlTag, n: int) -> BoolArray:
    """Return the labels (n, L) of the first n frames that are looked at."""
    length = labeled.video.length(tag.frame_rate)
    marks = timeline_segments.frame_labels(_segments(labeled.segments, length), length, tag.labels)
    return marks[:: frame_step(tag.attributes)][:n]


def looked_at(video: Video, tag: ControlTag) -> range:
    """Return the frames that are looked at, as Label Studio counts them."""
    return range(1, video.length(tag.frame_rate) + 1, frame_step(tag.attributes))


def sample(found: Sequence[LabeledBox], tag: ControlTag, length: int) -> Mapping[int, tuple[LabeledBox, ...]]:
    """Return the frames of a video that are learned, ascending, and the labels of each; none: nothing is to be seen.

    Of the frames looked at, those near a border are left out, and of many with the same labels some: MOST at even
    distances. A segment that would have none of its own has the one in its middle.
    """
    segments = _segments(found, length)
    marks = timeline_segments.frame_labels(segments, length, tag.labels)
    middles = [(one.start + min(one.end, length)) // 2 - 1 for one in segments]
    rows = np.union1d(_clear(marks, frame_step(tag.attributes)), np.array(middles, np.int64))
    kept = np.sort(np.concatenate([np.zeros(0, np.int64), *(_spread(group) for group in _alike(marks, rows))]))
    return {
        int(row) + 1: tuple(
            LabeledBox(tag.labels[label], WHOLE, frame=int(row) + 1) for label in np.flatnonzero(marks[row])
        )
        for row in kept
    }


def _segments(found: Sequence[LabeledBox], length: int) -> list[Segment]:
    return [Segment(one.frame, one.last, one.label) for one in found if one.frame <= length]


def _clear(marks: BoolArray, step: int) -> IntArray:
    """Return every `step`-th row of (n, L) that is like those BLUR before and after it."""
    rows = np.arange(0, len(marks), step)
    around = (np.clip(rows + shift, 0, len(marks) - 1) for shift in (-BLUR, BLUR))
    same = np.all([(marks[other] == marks[rows]).all(axis=1) for other in around], axis=0)
    return rows[same]


def _alike(marks: BoolArray, rows: IntArray) -> Iterator[IntArray]:
    """Yield the rows that have the same marks, group by group."""
    _, group = np.unique(marks[rows], axis=0, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        yield rows[group.ravel() == number]


def _spread(rows: IntArray) -> IntArray:
    """Return MOST of the rows at most, at even distances."""
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).round().astype(np.int64)]
