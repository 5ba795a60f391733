"""Objects are tracked through a video by the trackers of ultralytics; the tests make up the detector's predictions."""

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


def predict(detector: Detector, clip: Video, of: ControlTag) -> Prediction:
    return tracking.predict_video(detector, clip, of.frame_rate, tags.answer_options(of))


def perfect_prediction(
    movers: Sequence[Mover], frame: int, sure: float = 0.9, shake: float = 0.0, size: tuple[int, int] = SIZE
) -> Prediction:
    """Return the prediction of a perfect detector for a frame; red rectangles are of class 0, blue ones of class 1."""
    rng = np.random.default_rng(frame)
    visible = [(mover, box) for mover in movers if (box := mover.box(frame, *size)) is not None]
    boxes = np.array([(x, y, x + w, y + h) for _, (x, y, w, h) in visible], np.float32).reshape(-1, 4)
    probs = np.full((len(visible), 2), 0.01, np.float32)
    probs[range(len(visible)), [("red", "blue").index(mover.label) for mover, _ in visible]] = sure
    noise = rng.normal(0, shake, boxes.shape).astype(np.float32)
    return Prediction(*size, boxes + noise, probs, probs.max(axis=1, initial=0), np.full(3, frame, np.float32))


def followed(predictions: Mapping[int, Prediction], of: ControlTag | None = None, bridge: int = 5) -> Prediction:
    follower = Follower(tags.answer_options(of or tag()))
    for number, prediction in predictions.items():
        follower.add(number, prediction, np.full((SIZE[1], SIZE[0], 3), 40, np.uint8))
    return follower.prediction(VIDEO, 25.0, bridge)


def spans(prediction: Prediction) -> list[list[tuple[int, bool]]]:
    """Return the number and `enabled` of each key frame, for each object."""
    assert prediction.tracks is not None
    rows = list(zip(prediction.tracks.frames.tolist(), prediction.tracks.enabled.tolist(), strict=True))
    objects = prediction.tracks.objects
    return [[rows[row] for row in np.flatnonzero(objects == object_)] for object_ in np.unique(objects)]


@pytest.mark.parametrize("tracker", ["botsort", "bytetrack"])
def test_two_objects_are_two_tracks_with_their_ends_as_key_frames(tracker: str) -> None:
    frames = {number: perfect_prediction([SLOW, OTHER], number - 1) for number in range(1, 51)}
    prediction = followed(frames, tag({"model_tracker": tracker}))
    assert spans(prediction) == [[(1, True), (50, False)]] * 2
    assert prediction.tracks is not None
    assert (prediction.tracks.length, prediction.tracks.rate) == (100, 25.0)
    np.testing.assert_allclose(
        prediction.boxes, [[0, 10, 20, 40], [49, 10, 69, 40], [100, 60, 130, 80], [51, 84, 81, 104]]
    )
    assert prediction.class_probs.argmax(axis=1).tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(prediction.embedding, np.full(3, 24.5))
    assert prediction.confidence == pytest.approx(0.9)


def test_an_object_that_comes_later_begins_where_it_is_first_seen() -> None:
    late = Mover("red", (10, 10), (1, 0), (20, 30), first=20, last=39)
    frames = {number: perfect_prediction([OTHER, late], number - 1) for number in range(1, 61)}
    assert spans(followed(frames))[1] == [(21, True), (40, False)]


def test_an_object_that_comes_back_is_the_same_and_not_shown_meanwhile() -> None:
    frames = {
        number: perfect_prediction([SLOW] if number not in range(20, 31) else [], number - 1) for number in range(1, 51)
    }
    assert spans(followed(frames)) == [[(1, True), (19, False), (31, True), (50, False)]]
    assert spans(followed(frames, bridge=11)) == [[(1, True), (50, False)]]


def test_an_object_that_is_detected_once_is_dropped() -> None:
    flicker = Mover("blue", (100, 60), (0, 0), (30, 20), first=10, last=10)
    prediction = followed({number: perfect_prediction([SLOW, flicker], number - 1) for number in range(1, 31)})
    assert len(spans(prediction)) == 1


def test_unsure_frames_and_short_pieces_raise_the_doubt_of_a_video() -> None:
    def doubted(*movers: Mover, sure: float = 0.9) -> float:
        doubt = followed({number: perfect_prediction(movers, number - 1, sure) for number in range(1, 101)}).video_doubt
        assert doubt is not None
        return doubt

    steady, short = doubted(SLOW), doubted(SLOW, replace(OTHER, first=40, last=45))
    assert steady == pytest.approx(float(binary_entropy(0.9)))
    assert short > 1.5 * steady
    assert doubted(SLOW, sure=0.6) > 2 * steady
    assert doubted() == 0


def test_nothing_found() -> None:
    prediction = followed({number: perfect_prediction([], number - 1) for number in range(1, 4)})
    assert prediction.boxes.shape == (0, 4)
    assert prediction.class_probs.shape == (0, 2)
    assert spans(prediction) == []
    np.testing.assert_allclose(prediction.embedding, np.ones(3))


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
    frames = {number: perfect_prediction([SLOW], number - 1, sure=0.2) for number in range(1, 20)}
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
        follower.add(number, perfect_prediction([mover], number - 1), scene[:, 10 - number : 10 - number + SIZE[0]])
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
def test_with_reid_an_object_is_recognised_by_its_embedding(attributes: dict[str, str], swapped: bool) -> None:
    """Two boxes with an IoU of 0.6 change places from one frame to the next; by their places alone, nothing moved."""
    places = np.array([[0, 10, 40, 50], [10, 10, 50, 50]], np.float32)
    looks = np.array([[1, 0.1, 0], [0.1, 0, 1]], np.float32)
    still = perfect_prediction([SLOW, SLOW], 0)
    rng, frames = np.random.default_rng(0), {}
    for number in range(1, 11):
        order = [0, 1] if number < 6 else [1, 0]
        shaken = looks + rng.normal(0, 0.01, looks.shape).astype(np.float32)
        frames[number] = replace(still, boxes=places[order], box_embeddings=shaken)
    prediction = followed(frames, tag(attributes))
    assert prediction.tracks is not None
    last = [
        prediction.boxes[(prediction.tracks.objects == object_) & (prediction.tracks.frames == 10)][0]
        for object_ in (0, 1)
    ]
    np.testing.assert_allclose(last, places[[1, 0]] if swapped else places)


def test_shaken_boxes_make_few_key_frames() -> None:
    frames = {number: perfect_prediction([SLOW, OTHER], number - 1, shake=0.3) for number in range(1, 101)}
    assert sum(map(len, spans(followed(frames)))) < 20


def test_a_video_is_predicted_in_label_studios_frames(tmp_path: Path, tiny_weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [SLOW, OTHER], count=20))
    detector = load_detector(tiny_weights, IMGSZ, "cpu", threads=1)
    lax = {f"bytetrack_{key}": "0.05" for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh")}
    prediction = predict(detector, clip, tag({"model_tracker": "bytetrack", "model_conf": "0.05", **lax}, rate=50))
    assert prediction.tracks is not None
    assert prediction.tracks.length == 40
    assert len(prediction.boxes)
    assert set(prediction.tracks.frames.tolist()) <= set(range(1, 41, 2))
    assert (prediction.width, prediction.height) == SIZE
    alone = list(detector.predict_frames(video.frames(clip, [1], 50)))
    first = prediction.boxes[prediction.tracks.frames == 1]
    assert all(np.isclose(alone[0].boxes, box, atol=0.5).all(axis=1).any() for box in first)


def test_the_tag_says_how_far_boxes_may_overlap(tmp_path: Path, tiny_weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [SLOW, OTHER], count=4))
    detector = load_detector(tiny_weights, IMGSZ, "cpu", threads=1)
    lax = {f"bytetrack_{key}": "0.05" for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh")}

    def predict_at(**options: str) -> Prediction:
        attributes = {"model_tracker": "bytetrack", "model_conf": "0.05", **lax, **options}
        return predict(detector, clip, tag(attributes))

    usual, strict = predict_at(), predict_at(model_iou="0.1")
    np.testing.assert_array_equal(predict_at(model_iou="0.7").boxes, usual.boxes)
    assert 0 < len(spans(strict)) < len(spans(usual))


def test_the_tag_may_ask_for_boxes_of_very_low_confidence(tmp_path: Path, tiny_weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [SLOW, OTHER], count=4))
    detector = load_detector(tiny_weights, IMGSZ, "cpu", threads=1)
    lax = {f"bytetrack_{key}": "0" for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh")}
    attributes = {"model_tracker": "bytetrack", **lax}
    usual, more = (predict(detector, clip, tag(attributes | {"model_conf": conf})) for conf in ("0.05", "0.01"))
    assert usual.confidence.min() >= 0.05 > more.confidence.min() >= 0.01
