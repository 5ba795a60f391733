"""The frames of a video: classified one by one, and which of them are learned."""

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
    found = load_predictor(weights, IMGSZ, "cpu")
    assert isinstance(found, Classifier)
    return found


# Watch

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
    assert long < short + 20  # the frames looked at would take 276 MB


@pytest.mark.parametrize(("count", "rate", "frames"), [(23, 25.0, 5), (1, 25.0, 1), (20, 50.0, 8), (20, 12.5, 2)])
def test_every_fifth_frame_is_classified(
    tmp_path: Path, classifier: Classifier, count: int, rate: float, frames: int
) -> None:
    clip = video.probe(clips.write(tmp_path / "a.avi", [Mover("red", (0, 0), (3, 1), (60, 50))], count=count))
    found = frame_classifier.predict_video(classifier, clip, replace(TAG, frame_rate=rate))
    assert found.tracks is not None
    assert found.tracks.frames.tolist() == [1 + 5 * index for index in range(frames)]
    assert (found.tracks.length, found.tracks.rate) == (round(count * rate / 25), rate)
    assert found.class_probs.shape == (frames, 2)
    assert (found.confidence == found.class_probs.max(axis=1)).all()
    assert (found.boxes == [0, 0, 160, 120]).all()
    assert np.isfinite(found.embedding).all()


def test_a_frame_looks_as_it_does_as_an_image(tmp_path: Path, classifier: Classifier) -> None:
    path = clips.write(tmp_path / "a.avi", [Mover("red", (0, 0), (3, 1), (60, 50))], count=40)
    clip = video.probe(path)
    found = frame_classifier.predict_video(classifier, clip, TAG)
    for row, pixels in enumerate(video.frames(clip, range(1, 41, 5), 25)):
        Image.fromarray(pixels[:, :, ::-1]).save(tmp_path / f"{row}.png")
    alone = list(classifier.predict([tmp_path / f"{row}.png" for row in range(8)]))
    np.testing.assert_allclose(found.class_probs, np.concatenate([one.class_probs for one in alone]), atol=1e-5)


def test_a_video_is_doubted_by_its_frames(tmp_path: Path, classifier: Classifier) -> None:
    clip = video.probe(clips.write(tmp_path / "a.avi", [Mover("red", (0, 0), (3, 1), (60, 50))], count=40))
    found = frame_classifier.predict_video(classifier, clip, TAG)
    entropy = video_uncertainty.of_labels(found.class_probs).mean()
    assert found.doubted_frames is not None
    assert set(found.doubted_frames.tolist()) <= set(range(1, 41, 5))
    assert found.thumbnail.shape == (192,)
    assert found.video_doubt is not None
    assert 0 < entropy <= found.video_doubt <= 2 * entropy


# Sample


def test_frames_near_a_border_are_left_out() -> None:
    found = sample([stretch("red", 21, 60)], TAG, 100)
    assert list(found) == [1, 6, 11, 16, 26, 31, 36, 40, 41, 46, 51, 56, 66, 71, 76, 81, 86, 91, 96]
    assert {frame for frame, labels in found.items() if labels} == {26, 31, 36, 40, 41, 46, 51, 56}
    assert {box for labels in found.values() for box in labels} == {
        LabeledBox("red", WHOLE, frame=frame) for frame in (26, 31, 36, 40, 41, 46, 51, 56)
    }


def test_where_labels_overlap_a_frame_has_both() -> None:
    found = sample([stretch("red", 1, 60), stretch("blue", 31, LAST_FRAME)], TAG, 100)
    assert [box.label for box in found[46]] == ["red", "blue"]
    assert [box.label for box in found[96]] == ["blue"]


def test_a_short_segment_has_its_middle() -> None:
    assert [box.label for box in sample([stretch("blue", 42, 44)], TAG, 100)[43]] == ["blue"]


def test_what_nobody_drew_on_is_nothing() -> None:
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
    found = sample(boxes, TAG, length)
    assert list(found) == sorted(found)
    for frame, labels in found.items():
        assert 1 <= frame <= length
        assert {box.label for box in labels} == {box.label for box in boxes if box.frame <= frame <= box.last}
    for box in boxes:
        assert box.frame > length or any(box.frame <= frame <= box.last for frame in found)


# A model that learned some videos


def story(seed: int, count: int = 300) -> tuple[list[Mover], list[LabeledBox]]:
    """Return what moves in a video: a red thing and a blue thing, each for some of the time, and their labels."""
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
    found = []
    for seed in seeds:
        movers, labels = story(seed)
        clip = video.probe(clips.write(folder / f"{seed}.avi", movers, 300))
        learned = sample(labels, TAG, 300)
        for (frame, boxes), pixels in zip(learned.items(), video.frames(clip, learned, 25), strict=True):
            path = folder / f"{seed}-{frame}.png"
            Image.fromarray(pixels[:, :, ::-1]).save(path)
            found.append(LabeledImage(seed, path, boxes, random=True, frame=frame))
    return tuple(found)


def filmed(folder: Path, seed: int) -> LabeledVideo:
    movers, labels = story(seed)
    return LabeledVideo(seed, video.probe(clips.write(folder / f"{seed}.avi", movers, 300)), tuple(labels))


@dataclass(frozen=True, slots=True)
class Shown:
    """What the regions of some videos say: the share of frames with the right labels, IoU of segments, surplus ones."""

    right: float
    overlap: float
    extra: int


def shown(weights: Path, videos: Sequence[LabeledVideo], tag: ControlTag) -> Shown:
    classifier = load_predictor(weights, 64, "cpu")
    assert isinstance(classifier, Classifier)
    overlaps, right, extra = [], [], 0
    for one in videos:
        seen = frame_classifier.predict_video(classifier, one.video, tag)
        found = tags.decode(tag, [each.as_json() for each in tags.encode(tag, seen, classifier.classes, 0.5, "k")])
        right += [_at(frame, found) == _at(frame, one.segments) for frame in range(1, 301)]
        overlaps += [max((_overlap(box, other) for other in found), default=0.0) for box in one.segments]
        extra += len(found) - len(one.segments)
    return Shown(float(np.mean(right)), float(np.mean(overlaps)), extra)


def _at(frame: int, segments: Sequence[LabeledBox]) -> set[str]:
    return {box.label for box in segments if box.frame <= frame <= box.last}


@pytest.mark.slow
def test_segments_are_found_where_they_are(tmp_path: Path) -> None:
    """Six videos learned, eight judged by: frames right in all their labels > .9, temporal IoU of segments > .8.

    So with an LSTM, which gains nothing where each frame tells its labels.
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
    for found in (smoothed, in_order):
        assert found.right > 0.9
        assert found.overlap > 0.8
        assert abs(found.extra) <= 4


def _overlap(one: LabeledBox, other: LabeledBox) -> float:
    """Return the temporal IoU of two segments, 0 for those of different labels."""
    shared = min(one.last, other.last) - max(one.frame, other.frame) + 1
    both = max(one.last, other.last) - min(one.frame, other.frame) + 1
    return max(0, shared) / both if one.label == other.label else 0.0
