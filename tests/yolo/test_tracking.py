"""Objects followed through a video by the trackers of ultralytics; what a detector says is drawn up by the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.acquisition.uncertainty import binary_entropy
from backend.labelstudio import tags
from backend.labelstudio.tags.videorectangle import MOTION
from backend.media import video
from backend.media.video import Video
from backend.types import ControlTag, Prediction
from backend.yolo import tracking
from backend.yolo.detector import Detector, load_detector
from backend.yolo.runtime import quiet_ultralytics
from backend.yolo.tracking import Follower
from tests import clips
from tests.clips import Mover
from tests.support import CLASSES, IMGSZ

pytestmark = pytest.mark.torch

quiet_ultralytics()

SIZE = (160, 120)
VIDEO = Video(Path("clip.avi"), *SIZE, fps=25.0, frames=100)
SLOW = Mover("red", start=(0, 10), speed=(1, 0), size=(20, 30))
OTHER = Mover("blue", start=(100, 60), speed=(-1, 0.5), size=(30, 20))


def tag(attributes: Mapping[str, str] | None = None, rate: float = 25.0) -> ControlTag:
    return ControlTag(
        kind="videorectangle",
        from_name="box",
        to_name="video",
        data_key="video",
        labels=CLASSES,
        class_to_label={},
        attributes=attributes or {},
        frame_rate=rate,
    )


def watch(detector: Detector, clip: Video, of: ControlTag) -> Prediction:
    return tracking.predict_video(detector, clip, of.frame_rate, tags.answer_options(of))


def seen(
    movers: Sequence[Mover], frame: int, sure: float = 0.9, shake: float = 0.0, size: tuple[int, int] = SIZE
) -> Prediction:
    """Return what a detector that is never wrong would say of a frame; red things are cats."""
    rng = np.random.default_rng(frame)
    found = [(mover, box) for mover in movers if (box := mover.box(frame, *size)) is not None]
    boxes = np.array([(x, y, x + w, y + h) for _, (x, y, w, h) in found], np.float32).reshape(-1, 4)
    probs = np.full((len(found), 2), 0.01, np.float32)
    probs[range(len(found)), [("red", "blue").index(mover.label) for mover, _ in found]] = sure
    noise = rng.normal(0, shake, boxes.shape).astype(np.float32)
    return Prediction(*size, boxes + noise, probs, probs.max(axis=1, initial=0), np.full(3, frame, np.float32))


def followed(predictions: Mapping[int, Prediction], of: ControlTag | None = None, bridge: int = 5) -> Prediction:
    follower = Follower(tags.answer_options(of or tag()))
    for number, prediction in predictions.items():
        follower.add(number, prediction, np.full((SIZE[1], SIZE[0], 3), 40, np.uint8))
    return follower.prediction(VIDEO, 25.0, bridge)


def spans(found: Prediction) -> list[list[tuple[int, bool]]]:
    """Return the frame of each key frame and whether it is enabled, by object."""
    assert found.tracks is not None
    rows = list(zip(found.tracks.frames.tolist(), found.tracks.enabled.tolist(), strict=True))
    objects = found.tracks.objects
    return [[rows[row] for row in np.flatnonzero(objects == one)] for one in np.unique(objects)]


@pytest.mark.parametrize("tracker", ["botsort", "bytetrack"])
def test_two_objects_are_two_tracks_with_their_ends_as_key_frames(tracker: str) -> None:
    frames = {number: seen([SLOW, OTHER], number - 1) for number in range(1, 51)}
    found = followed(frames, tag({"model_tracker": tracker}))
    assert spans(found) == [[(1, True), (50, False)]] * 2
    assert found.tracks is not None
    assert (found.tracks.length, found.tracks.rate) == (100, 25.0)
    np.testing.assert_allclose(found.boxes, [[0, 10, 20, 40], [49, 10, 69, 40], [100, 60, 130, 80], [51, 84, 81, 104]])
    assert found.class_probs.argmax(axis=1).tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(found.embedding, np.full(3, 24.5))
    assert found.confidence == pytest.approx(0.9)


def test_an_object_that_comes_later_begins_where_it_is_first_seen() -> None:
    late = Mover("red", (10, 10), (1, 0), (20, 30), first=20, last=39)
    frames = {number: seen([OTHER, late], number - 1) for number in range(1, 61)}
    assert spans(followed(frames))[1] == [(21, True), (40, False)]


def test_an_object_that_comes_back_is_the_same_and_not_shown_meanwhile() -> None:
    frames = {number: seen([SLOW] if number not in range(20, 31) else [], number - 1) for number in range(1, 51)}
    assert spans(followed(frames)) == [[(1, True), (19, False), (31, True), (50, False)]]
    assert spans(followed(frames, bridge=11)) == [[(1, True), (50, False)]]


def test_what_is_seen_only_once_is_nothing() -> None:
    flicker = Mover("blue", (100, 60), (0, 0), (30, 20), first=10, last=10)
    found = followed({number: seen([SLOW, flicker], number - 1) for number in range(1, 31)})
    assert len(spans(found)) == 1


def test_a_video_is_doubted_by_its_unsure_frames_and_by_what_comes_and_goes() -> None:
    def doubted(*movers: Mover, sure: float = 0.9) -> float:
        found = followed({number: seen(movers, number - 1, sure) for number in range(1, 101)}).video_doubt
        assert found is not None
        return found

    steady, short = doubted(SLOW), doubted(SLOW, replace(OTHER, first=40, last=45))
    assert steady == pytest.approx(float(binary_entropy(0.9)))
    assert short > 1.5 * steady
    assert doubted(SLOW, sure=0.6) > 2 * steady
    assert doubted() == 0


def test_nothing_found() -> None:
    found = followed({number: seen([], number - 1) for number in range(1, 4)})
    assert found.boxes.shape == (0, 4)
    assert found.class_probs.shape == (0, 2)
    assert spans(found) == []
    np.testing.assert_allclose(found.embedding, np.ones(3))


@pytest.mark.parametrize(
    ("attributes", "tracks"),
    [
        ({}, 0),
        ({"model_conf": "0.1"}, 0),
        ({"model_conf": "0.1", "botsort_new_track_thresh": "0.15", "botsort_track_high_thresh": "0.15"}, 1),
        ({"model_conf": "0.1", "bytetrack_new_track_thresh": "0.15", "bytetrack_track_high_thresh": "0.15"}, 0),
    ],
)
def test_the_tag_says_how_sure_a_box_must_be(attributes: dict[str, str], tracks: int) -> None:
    frames = {number: seen([SLOW], number - 1, sure=0.2) for number in range(1, 20)}
    assert len(spans(followed(frames, tag(attributes)))) == tracks


@pytest.mark.parametrize(
    ("tracker", "key", "text", "expected"),
    [
        ("botsort", "fuse_score", "false", False),
        ("bytetrack", "fuse_score", "True", True),
        ("botsort", "with_reid", "false", False),
        ("botsort", "with_reid", "True", True),
        ("bytetrack", "track_buffer", "60", 60.0),
        *(("botsort", "gmc_method", name.upper(), spelled) for name, spelled in MOTION.items()),
    ],
)
def test_a_tracker_has_the_settings_of_its_tag_and_follows(tracker: str, key: str, text: str, expected: object) -> None:
    attributes = {"model_tracker": tracker, f"{tracker}_{key}": text}
    follower, rng = Follower(tags.answer_options(tag(attributes))), np.random.default_rng(0)
    assert getattr(follower.tracker.args, key) == expected
    scene = rng.integers(0, 255, (SIZE[1], SIZE[0] + 10, 3), dtype=np.uint8)
    mover = Mover("red", (10, 10), (2, 1), (40, 30))
    for number in range(1, 6):  # the camera goes to the left, a pixel each frame
        follower.add(number, seen([mover], number - 1), scene[:, 10 - number : 10 - number + SIZE[0]])
    assert len(spans(follower.prediction(VIDEO, 25.0, bridge=5))) == 1


@pytest.mark.parametrize(
    ("attributes", "swapped"),
    [
        ({}, False),
        ({"botsort_with_reid": "true"}, True),
        ({"botsort_with_reid": "true", "botsort_proximity_thresh": "0.7"}, False),
        ({"botsort_with_reid": "true", "botsort_appearance_thresh": "1"}, False),
    ],
)
def test_with_reid_an_object_is_known_by_its_looks(attributes: dict[str, str], swapped: bool) -> None:
    """Two boxes with an IoU of 0.6 that change places from one frame to the next: by places alone nothing moved."""
    places = np.array([[0, 10, 40, 50], [10, 10, 50, 50]], np.float32)
    looks = np.array([[1, 0.1, 0], [0.1, 0, 1]], np.float32)
    still = seen([SLOW, SLOW], 0)
    rng, frames = np.random.default_rng(0), {}
    for number in range(1, 11):
        order = [0, 1] if number < 6 else [1, 0]
        shaken = looks + rng.normal(0, 0.01, looks.shape).astype(np.float32)
        frames[number] = replace(still, boxes=places[order], box_embeddings=shaken)
    found = followed(frames, tag(attributes))
    assert found.tracks is not None
    last = [found.boxes[(found.tracks.objects == one) & (found.tracks.frames == 10)][0] for one in (0, 1)]
    np.testing.assert_allclose(last, places[[1, 0]] if swapped else places)


def test_shaken_boxes_make_few_key_frames() -> None:
    frames = {number: seen([SLOW, OTHER], number - 1, shake=0.3) for number in range(1, 101)}
    assert sum(map(len, spans(followed(frames)))) < 20


def test_a_video_is_watched_in_label_studios_frames(tmp_path: Path, tiny_weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [SLOW, OTHER], count=20))
    detector = load_detector(tiny_weights, IMGSZ, "cpu", threads=1)
    lax = {f"bytetrack_{key}": "0.05" for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh")}
    found = watch(detector, clip, tag({"model_tracker": "bytetrack", "model_conf": "0.05", **lax}, rate=50))
    assert found.tracks is not None
    assert found.tracks.length == 40
    assert len(found.boxes)
    assert set(found.tracks.frames.tolist()) <= set(range(1, 41, 2))
    assert (found.width, found.height) == SIZE
    alone = list(detector.predict_frames(video.frames(clip, [1], 50)))
    first = found.boxes[found.tracks.frames == 1]
    assert all(np.isclose(alone[0].boxes, box, atol=0.5).all(axis=1).any() for box in first)


def test_the_tag_says_how_far_boxes_may_overlap(tmp_path: Path, tiny_weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [SLOW, OTHER], count=4))
    detector = load_detector(tiny_weights, IMGSZ, "cpu", threads=1)
    lax = {f"bytetrack_{key}": "0.05" for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh")}

    def seen_at(**asked: str) -> Prediction:
        attributes = {"model_tracker": "bytetrack", "model_conf": "0.05", **lax, **asked}
        return watch(detector, clip, tag(attributes))

    usual, strict = seen_at(), seen_at(model_iou="0.1")
    np.testing.assert_array_equal(seen_at(model_iou="0.7").boxes, usual.boxes)
    assert 0 < len(spans(strict)) < len(spans(usual))


def test_the_tag_may_ask_for_boxes_that_are_hardly_any(tmp_path: Path, tiny_weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [SLOW, OTHER], count=4))
    detector = load_detector(tiny_weights, IMGSZ, "cpu", threads=1)
    lax = {f"bytetrack_{key}": "0" for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh")}
    attributes = {"model_tracker": "bytetrack", **lax}
    usual, more = (watch(detector, clip, tag(attributes | {"model_conf": conf})) for conf in ("0.05", "0.01"))
    assert usual.confidence.min() >= 0.05 > more.confidence.min() >= 0.01
