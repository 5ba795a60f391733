"""Frames of a video: their classification one by one, and the choice of frames for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.geometry.timeline_segments import LAST_FRAME
from backend.labelstudio import label_config, tags
from backend.media import video
from backend.types import WHOLE, ControlTag, HyperParameters, LabeledBox, LstmOptions
from backend.yolo import evaluate, frame_classifier, timeline_model, training, video_uncertainty
from backend.yolo.base_weights import BaseWeights
from backend.yolo.classifier import Classifier
from backend.yolo.frame_classifier import MOST, LabeledVideo, sample
from backend.yolo.predictors import load_predictor
from backend.yolo.tasks import details
from tests import clips
from tests.clips import Mover
from tests.support import IMGSZ, tiny_yolo

pytestmark = pytest.mark.torch

CONFIG = (
    '<View><Video name="video" value="$video" frameRate="25"/><TimelineLabels name="event" toName="video" '
    'model_every="5"><Label value="red"/><Label value="blue"/></TimelineLabels></View>'
)
(TAG,) = label_config.parse(CONFIG)
LABELS = TAG.labels


def stretch(label: str, first: int, last: int) -> LabeledBox:
    return LabeledBox(label, WHOLE, frame=first, last=last)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    weights = tiny_yolo(tmp_path_factory.mktemp("weights") / "tiny-cls.pt", LABELS, task="classify")
    model = load_predictor(weights, IMGSZ, "cpu")
    assert isinstance(model, Classifier)
    return model


# Predict

PEAK = """
import resource, sys
from pathlib import Path
from backend.media import video
from backend.yolo import frame_classifier
from backend.yolo.predictors import load_predictor
from tests.yolo.test_frame_classifier import TAG
model = load_predictor(Path(sys.argv[2]), 64, "cpu")
prediction = frame_classifier.predict_video(model, video.probe(Path(sys.argv[1])), TAG)
print(prediction.tracks.length, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_video_six_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    weights = tiny_yolo(tmp_path / "tiny-cls.pt", LABELS, task="classify")
    short, long = clips.peaks(tmp_path, PEAK, [Mover("red", (0, 0), (3, 1), (120, 90))], weights)
    assert long < short + 20  # all sampled frames would take 276 MB


@pytest.mark.parametrize(("count", "rate", "frames"), [(23, 25.0, 5), (1, 25.0, 1), (20, 50.0, 8), (20, 12.5, 2)])
def test_every_fifth_frame_is_classified(
    tmp_path: Path, classifier: Classifier, count: int, rate: float, frames: int
) -> None:
    clip = video.probe(clips.write(tmp_path / "a.avi", [Mover("red", (0, 0), (3, 1), (60, 50))], count=count))
    prediction = frame_classifier.predict_video(classifier, clip, replace(TAG, frame_rate=rate))
    assert prediction.tracks is not None
    assert prediction.tracks.frames.tolist() == [1 + 5 * index for index in range(frames)]
    assert (prediction.tracks.length, prediction.tracks.rate) == (round(count * rate / 25), rate)
    assert prediction.class_probs.shape == (frames, 2)
    assert (prediction.confidence == prediction.class_probs.max(axis=1)).all()
    assert (prediction.boxes == [0, 0, 160, 120]).all()
    assert np.isfinite(prediction.embedding).all()


def test_a_frame_has_the_probabilities_of_the_same_image(tmp_path: Path, classifier: Classifier) -> None:
    path = clips.write(tmp_path / "a.avi", [Mover("red", (0, 0), (3, 1), (60, 50))], count=40)
    clip = video.probe(path)
    prediction = frame_classifier.predict_video(classifier, clip, TAG)
    for row, pixels in enumerate(video.frames(clip, range(1, 41, 5), 25)):
        Image.fromarray(pixels[:, :, ::-1]).save(tmp_path / f"{row}.png")
    alone = list(classifier.predict([tmp_path / f"{row}.png" for row in range(8)]))
    np.testing.assert_allclose(
        prediction.class_probs, np.concatenate([image_prediction.class_probs for image_prediction in alone]), atol=1e-5
    )


def test_a_video_is_doubted_by_its_frames(tmp_path: Path, classifier: Classifier) -> None:
    clip = video.probe(clips.write(tmp_path / "a.avi", [Mover("red", (0, 0), (3, 1), (60, 50))], count=40))
    prediction = frame_classifier.predict_video(classifier, clip, TAG)
    entropy = video_uncertainty.of_labels(prediction.class_probs).mean()
    assert prediction.doubted_frames is not None
    assert set(prediction.doubted_frames.tolist()) <= set(range(1, 41, 5))
    assert prediction.thumbnail.shape == (192,)
    assert prediction.video_doubt is not None
    assert 0 < entropy <= prediction.video_doubt <= 2 * entropy


# Sample


def test_frames_near_a_border_are_left_out() -> None:
    learned = sample([stretch("red", 21, 60)], TAG, 100)
    assert list(learned) == [1, 6, 11, 16, 26, 31, 36, 40, 41, 46, 51, 56, 66, 71, 76, 81, 86, 91, 96]
    assert {frame for frame, labels in learned.items() if labels} == {26, 31, 36, 40, 41, 46, 51, 56}
    assert {box for labels in learned.values() for box in labels} == {
        LabeledBox("red", WHOLE, frame=frame) for frame in (26, 31, 36, 40, 41, 46, 51, 56)
    }


def test_where_labels_overlap_a_frame_has_both() -> None:
    learned = sample([stretch("red", 1, 60), stretch("blue", 31, LAST_FRAME)], TAG, 100)
    assert [box.label for box in learned[46]] == ["red", "blue"]
    assert [box.label for box in learned[96]] == ["blue"]


def test_a_short_segment_has_its_middle() -> None:
    assert [box.label for box in sample([stretch("blue", 42, 44)], TAG, 100)[43]] == ["blue"]


def test_frames_without_segments_have_no_labels() -> None:
    assert sample([], TAG, 12) == {1: (), 6: (), 11: ()}
    assert sample([stretch("red", 13, 99)], TAG, 12) == {1: (), 6: (), 11: ()}


def test_a_long_video_gives_no_more_frames_than_a_short_one() -> None:
    long = sample([stretch("red", 1001, 1100)], TAG, 90_000)
    shown = [frame for frame, labels in long.items() if labels]
    assert len(long) - len(shown) == MOST
    assert len(shown) == 20
    assert min(long) == 1
    assert max(long) > 89_990


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 400), st.integers(0, 90)), max_size=6),
    st.integers(1, 400),
)
def test_what_is_learned_is_what_was_drawn(drawn: list[tuple[str, int, int]], length: int) -> None:
    boxes = [stretch(label, first, first + more) for label, first, more in drawn]
    learned = sample(boxes, TAG, length)
    assert list(learned) == sorted(learned)
    for frame, labels in learned.items():
        assert 1 <= frame <= length
        assert {box.label for box in labels} == {box.label for box in boxes if box.frame <= frame <= box.last}
    for box in boxes:
        assert box.frame > length or any(box.frame <= frame <= box.last for frame in learned)


# A model that learned some videos


def story(seed: int, count: int = 300) -> tuple[list[Mover], list[LabeledBox]]:
    """Return what moves in a video: a red and a blue rectangle, each for a part of the video, and their labels."""
    rng = np.random.default_rng(seed)
    movers, labels = [], []
    for label in LABELS:
        first = int(rng.integers(20, 120))
        last = first + int(rng.integers(60, 150))
        start = (float(rng.uniform(0, 100)), float(rng.uniform(0, 80)))
        movers.append(Mover(label, start, tuple(rng.uniform(-2, 2, 2)), (45, 35), first - 1, last - 1))
        labels.append(stretch(label, first, min(last, count)))
    return movers, labels


def shots(folder: Path, seeds: range) -> tuple[LabeledImage, ...]:
    images = []
    for seed in seeds:
        movers, labels = story(seed)
        clip = video.probe(clips.write(folder / f"{seed}.avi", movers, 300))
        learned = sample(labels, TAG, 300)
        for (frame, boxes), pixels in zip(learned.items(), video.frames(clip, learned, 25), strict=True):
            path = folder / f"{seed}-{frame}.png"
            Image.fromarray(pixels[:, :, ::-1]).save(path)
            images.append(LabeledImage(seed, path, boxes, random=True, frame=frame))
    return tuple(images)


def filmed(folder: Path, seed: int) -> LabeledVideo:
    movers, labels = story(seed)
    return LabeledVideo(seed, video.probe(clips.write(folder / f"{seed}.avi", movers, 300)), tuple(labels), 25)


@dataclass(frozen=True, slots=True)
class Shown:
    """How regions agree with labels: the share of frames with the right labels, IoU of segments, surplus segments."""

    right: float
    overlap: float
    extra: int


def shown(weights: Path, videos: Sequence[LabeledVideo], tag: ControlTag) -> Shown:
    classifier = load_predictor(weights, 64, "cpu")
    assert isinstance(classifier, Classifier)
    overlaps, right, extra = [], [], 0
    for labeled in videos:
        prediction = frame_classifier.predict_video(classifier, labeled.video, tag)
        decoded = tags.decode(
            tag, [region.as_json() for region in tags.encode(tag, prediction, classifier.classes, 0.5, "k")]
        )
        right += [_at(frame, decoded) == _at(frame, labeled.segments) for frame in range(1, 301)]
        overlaps += [max((_overlap(box, other) for other in decoded), default=0.0) for box in labeled.segments]
        extra += len(decoded) - len(labeled.segments)
    return Shown(float(np.mean(right)), float(np.mean(overlaps)), extra)


def _at(frame: int, segments: Sequence[LabeledBox]) -> set[str]:
    return {box.label for box in segments if box.frame <= frame <= box.last}


@pytest.mark.slow
def test_segments_are_found_where_they_are(tmp_path: Path) -> None:
    """After training on six videos, on eight others: right frames > .9, temporal IoU of segments > .8.

    An LSTM reaches the same; it gains nothing where each frame shows its labels.
    """
    split = Split(shots(tmp_path, range(6)), shots(tmp_path, range(6, 8)), held_out=True)
    data_yaml = writer.write(split, LABELS, tmp_path / "data", "classify", details(TAG))
    base = BaseWeights("yolo11n-cls.yaml", pretrained=False, note="", task="classify")
    hyper = HyperParameters(epochs=12, batch=16, imgsz=64, seed=0, device="cpu")
    weights = training.train(data_yaml, base, hyper, tmp_path / "run", lambda _: None).weights
    metrics = evaluate.evaluate(weights, data_yaml, 64, "cpu")
    unseen = [filmed(tmp_path, seed) for seed in range(10, 18)]
    smoothed = shown(weights, unseen, TAG)
    learned, missing = [filmed(tmp_path, seed) for seed in range(6)], list[int]()
    timeline_model.train(
        weights, learned, TAG, LstmOptions(), hyper, lambda _: None, lambda task_id, _: missing.append(task_id)
    )
    in_order = shown(weights, unseen, TAG)
    print(f"frame mAP {metrics.map50:.3f}, frame by frame: {smoothed}, with an LSTM: {in_order}")
    assert metrics.map50 > 0.9
    assert not missing
    for agreement in (smoothed, in_order):
        assert agreement.right > 0.9
        assert agreement.overlap > 0.8
        assert abs(agreement.extra) <= 4


def _overlap(segment: LabeledBox, other: LabeledBox) -> float:
    """Return the temporal IoU of two segments, 0 for segments with different labels."""
    shared = min(segment.last, other.last) - max(segment.frame, other.frame) + 1
    both = max(segment.last, other.last) - min(segment.frame, other.frame) + 1
    return max(0, shared) / both if segment.label == other.label else 0.0
