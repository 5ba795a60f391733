"""Classification of the frames of a video, and the choice of frames for training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.geometry import timeline_segments
from backend.geometry.timeline_segments import Segment
from backend.media.video import Video, frames
from backend.types import WHOLE, BoolArray, ControlTag, FloatArray, IntArray, LabeledBox, Prediction, Tracks, frame_step
from backend.yolo import lstm, thumbnails, video_uncertainty
from backend.yolo.classifier import Classifier
from backend.yolo.runtime import check_finite

MOST = 60  # frames with the same labels that are learned from one video, as more of them show little new
_LIKELY = 0.5  # probability from which on a frame has a label
BLUR = 3  # frames beside the border of a segment, about which annotators disagree


@dataclass(frozen=True, slots=True)
class LabeledVideo:
    """The video of a task, and all segments that were drawn on it."""

    task_id: int
    video: Video
    segments: tuple[LabeledBox, ...]
    rate: float  # frames per second by which Label Studio counts

    def timed(self, tag: ControlTag) -> ControlTag:
        """Return a tag with the rate of this video."""
        return replace(tag, frame_rate=self.rate)


def predict_video(classifier: Classifier, video: Video, tag: ControlTag) -> Prediction:
    """Return the Prediction of a video: one box per sampled frame, the whole frame, with all class probabilities.

    If the model holds an LSTM, the probabilities are those of the LSTM. Memory grows with the probabilities (with an
    LSTM: with the embeddings), not with the pixels. Raises MediaError as `video.frames` does.
    """
    rate, length = tag.frame_rate, video.length(tag.frame_rate)
    sampled = sampled_frames(video, tag)
    probs: list[FloatArray] = []
    embeddings: list[FloatArray] = []
    embedding: FloatArray = np.zeros(1, np.float32)  # (D,) the sum so far
    thumbnail: IntArray = np.zeros(1, np.int64)  # (192,) the sum so far
    for prediction in classifier.predict_frames(frames(video, sampled, rate)):
        probs.append(prediction.class_probs[0])
        if classifier.temporal is not None:
            embeddings.append(prediction.embedding)
        embedding = embedding + prediction.embedding
        thumbnail = thumbnail + prediction.thumbnail
    n = len(probs)  # frames may be missing at the end
    table = np.stack(probs) if probs else np.zeros((0, len(classifier.classes)), np.float32)
    if embeddings:
        table = check_finite(lstm.probabilities(classifier.temporal, np.stack(embeddings)))
    numbers, entropy = np.array(sampled[:n], np.int64), video_uncertainty.of_labels(table)
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
    """Return the embeddings (n, D) of the sampled frames: the inputs of the last layer. Raises as `predict_video`."""
    predictions = classifier.predict_frames(frames(video, sampled_frames(video, tag), tag.frame_rate))
    return np.stack([prediction.embedding for prediction in predictions])


def labels_of(labeled: LabeledVideo, tag: ControlTag, n: int) -> BoolArray:
    """Return the labels (n, L) of the first n sampled frames."""
    length = labeled.video.length(tag.frame_rate)
    marks = timeline_segments.frame_labels(_segments(labeled.segments, length), length, tag.labels)
    return marks[:: frame_step(tag.attributes)][:n]


def sampled_frames(video: Video, tag: ControlTag) -> range:
    """Return the numbers of the sampled frames, as Label Studio counts them."""
    return range(1, video.length(tag.frame_rate) + 1, frame_step(tag.attributes))


def sample(drawn: Sequence[LabeledBox], tag: ControlTag, length: int) -> Mapping[int, tuple[LabeledBox, ...]]:
    """Return the frames of a video that are learned, ascending, with the labels of each; a frame may have no label.

    They are the sampled frames, without those near the border of a segment. Of frames with the same labels at most MOST
    are taken, at even distances. The frame in the middle of each segment is always a candidate.
    """
    segments = _segments(drawn, length)
    marks = timeline_segments.frame_labels(segments, length, tag.labels)
    middles = [(segment.start + min(segment.end, length)) // 2 - 1 for segment in segments]
    rows = np.union1d(_clear(marks, frame_step(tag.attributes)), np.array(middles, np.int64))
    chosen = np.sort(np.concatenate([np.zeros(0, np.int64), *(_spread(group) for group in _alike(marks, rows))]))
    return {
        int(row) + 1: tuple(
            LabeledBox(tag.labels[label], WHOLE, frame=int(row) + 1) for label in np.flatnonzero(marks[row])
        )
        for row in chosen
    }


def _segments(drawn: Sequence[LabeledBox], length: int) -> list[Segment]:
    return [Segment(region.frame, region.last, region.label) for region in drawn if region.frame <= length]


def _clear(marks: BoolArray, step: int) -> IntArray:
    """Return every `step`-th row of (n, L) that equals the rows BLUR before and BLUR after it."""
    rows = np.arange(0, len(marks), step)
    around = (np.clip(rows + shift, 0, len(marks) - 1) for shift in (-BLUR, BLUR))
    same = np.all([(marks[other] == marks[rows]).all(axis=1) for other in around], axis=0)
    return rows[same]


def _alike(marks: BoolArray, rows: IntArray) -> Iterator[IntArray]:
    """Yield groups of the `rows` whose labels in `marks` are the same."""
    _, group = np.unique(marks[rows], axis=0, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        yield rows[group.ravel() == number]


def _spread(rows: IntArray) -> IntArray:
    """Return at most MOST of the rows, at even distances."""
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).round().astype(np.int64)]
