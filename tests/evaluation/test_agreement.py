"""The agreement of two versions: on images, and frame by frame on videos."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from backend.evaluation import agreement
from backend.evaluation.agreement import label_objects, stability
from backend.types import Prediction, Tracks


def prediction(*detections: tuple[float, int, float]) -> Prediction:
    """Return boxes of 10 px at x, with a class of three and a confidence."""
    probs = np.zeros((len(detections), 3), dtype=np.float32)
    for row, (_, kind, sure) in enumerate(detections):
        probs[row, kind] = sure
    return Prediction(
        100,
        100,
        np.array([[x, 0, x + 10, 10] for x, _, _ in detections], dtype=np.float32).reshape(-1, 4),
        probs,
        np.array([sure for *_, sure in detections], dtype=np.float32),
        np.zeros(0, dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("after", "f1"),
    [
        ([(0, 0, 0.9), (50, 1, 0.9)], 1.0),
        ([(3, 0, 0.9), (50, 1, 0.9)], 1.0),  # IoU 7 / 13
        ([(4, 0, 0.9), (50, 1, 0.9)], 0.5),  # IoU 6 / 14
        ([(0, 2, 0.9), (50, 1, 0.9)], 0.5),
        ([(0, 0, 0.9)], 2 / 3),
        ([(0, 0, 0.9), (50, 1, 0.9), (1, 0, 0.9)], 0.8),  # a box counts once
        ([(0, 0, 0.9), (50, 1, 0.2)], 2 / 3),  # too faint to be shown
        ([], 0.0),
    ],
)
def test_stability_is_f1(after: list[tuple[float, int, float]], f1: float) -> None:
    assert stability([prediction((0, 0, 0.9), (50, 1, 0.9))], [prediction(*after)]) == pytest.approx(f1)


def test_stability_counts_boxes_over_all_images() -> None:
    single, triple = prediction((0, 0, 0.9)), prediction((0, 0, 0.9), (30, 0, 0.9), (60, 0, 0.9))
    assert stability([single, triple], [prediction(), triple]) == pytest.approx(6 / 7)


def test_images_without_boxes_are_no_agreement() -> None:
    assert stability([prediction()], [prediction((0, 0, 0.1))]) is None
    assert stability([], []) is None


# Videos

LENGTH = 50


def film(*drawn: tuple[float, int, float, int, int], length: int = LENGTH, rate: float = 25.0) -> Prediction:
    """Return a video with boxes of 10 px at x, a class of three and a confidence, from one frame to another."""
    still = prediction(*(each_object[:3] for each_object in drawn for _ in range(2)))
    frames = np.array([frame for *_, first, last in drawn for frame in (first, last)], np.int64)
    objects, enabled = np.arange(len(frames)) // 2, np.arange(len(frames)) % 2 == 0
    return Prediction(
        *(still.width, still.height, still.boxes, still.class_probs, still.confidence, still.embedding),
        tracks=Tracks(frames, objects, enabled, length, rate),
    )


CAT = (0.0, 0, 0.9, 1, 50)


@pytest.mark.parametrize(
    ("after", "f1"),
    [
        ([CAT], 1.0),
        ([(3.0, 0, 0.9, 1, 50)], 1.0),
        ([(4.0, 0, 0.9, 1, 50)], 0.0),
        ([(0.0, 1, 0.9, 1, 50)], 0.0),
        ([(0.0, 0, 0.2, 1, 50)], 0.0),  # too faint to be shown
        ([(0.0, 0, 0.9, 1, 25)], 2 * 25 / 75),
        ([(0.0, 0, 0.9, 1, 25), (0.0, 0, 0.9, 26, 50)], 1.0),  # in two pieces, and in each frame the same
        ([(0.0, 0, 0.9, 1, 25), (50.0, 0, 0.9, 26, 50)], 0.5),
        ([CAT, (50.0, 1, 0.9, 11, 20)], 2 * 50 / 110),
        ([], 0.0),
    ],
)
def test_videos_are_compared_frame_by_frame(after: list[tuple[float, int, float, int, int]], f1: float) -> None:
    assert stability([film(CAT)], [film(*after)]) == pytest.approx(f1)
    assert stability([film(*after)], [film(CAT)]) == pytest.approx(f1)


def test_boxes_of_other_frames_are_no_agreement() -> None:
    """Two objects at the same place, one after the other."""
    assert stability([film((0.0, 0, 0.9, 1, 25))], [film((0.0, 0, 0.9, 26, 50))]) == 0.0


def test_other_key_frames_of_the_same_way_agree() -> None:
    """The interpolated boxes count, not the position of the key frames."""
    way = film((0.0, 0, 0.9, 1, 41))
    way.boxes[1] += (40, 0, 40, 0)
    finer = film((0.0, 0, 0.9, 1, 21), (21.0, 0, 0.9, 22, 41))
    finer.boxes[[1, 3]] += np.array([(20, 0, 20, 0), (19, 0, 19, 0)], np.float32)
    tracks = Tracks(np.array([1, 21, 22, 41]), np.zeros(4, np.int64), np.array([True, True, True, False]), LENGTH, 25.0)
    finer = replace(finer, tracks=tracks)
    assert stability([way], [finer]) == 1.0


def test_videos_without_boxes_are_no_agreement() -> None:
    assert stability([film()], [film()]) is None


@pytest.mark.parametrize("other", [film(CAT, length=60), film(CAT, rate=24.0), prediction((0, 0, 0.9))])
def test_videos_with_different_frame_counts_are_left_out(other: Prediction) -> None:
    assert stability([film(CAT)], [other]) is None
    assert stability([other], [film(CAT)]) is None


def timeline(*rows: tuple[float, float], every: int = 5) -> Prediction:
    """Return a prediction of two labels in every fifth frame of a video."""
    probs, n = np.array(rows, np.float32), len(rows)
    frames = np.arange(n) * every + 1
    return Prediction(
        *(40, 30, np.tile(np.array([0, 0, 40, 30], np.float32), (n, 1)), probs, probs.max(axis=1)),
        np.zeros(0, np.float32),
        tracks=Tracks(frames, np.zeros(n, np.int64), np.ones(n, np.bool_), n * every, 25.0),
    )


BOTH, FIRST, NONE = (0.9, 0.8), (0.7, 0.1), (0.1, 0.1)


@pytest.mark.parametrize(
    ("after", "f1"),
    [
        ([BOTH, BOTH, BOTH], 1.0),
        ([FIRST, FIRST, FIRST], 2 / 3),
        ([FIRST, NONE, NONE], 2 * 1 / (22 + 1)),  # to the next frame that shows it, too
        ([NONE, NONE, NONE], 0.0),
    ],
)
def test_labels_of_a_timeline_are_compared_frame_by_frame(after: list[tuple[float, float]], f1: float) -> None:
    """Of 15 frames, 1, 6 and 11 are analysed."""
    earlier, later = label_objects(timeline(BOTH, BOTH, BOTH)), label_objects(timeline(*after))
    assert stability([earlier], [later]) == pytest.approx(f1)


def test_more_analysed_frames_give_the_same_agreement() -> None:
    earlier, later = label_objects(timeline(BOTH, BOTH, BOTH)), label_objects(timeline(*[BOTH] * 15, every=1))
    agreed = stability([earlier], [later])
    assert agreed == pytest.approx(2 * 22 / (22 + 30))  # nothing is known after the last frame that was looked at


def test_a_long_video_takes_no_longer_for_its_frames() -> None:
    """A million frames, and twice a thousand objects, in the time of a few images."""
    rng, count = np.random.default_rng(0), 1000
    starts = np.sort(rng.integers(1, 999_000, count)).tolist()
    long = film(*((float(rng.integers(0, 80)), 0, 0.9, start, start + 900) for start in starts), length=1_000_000)
    begun = time.perf_counter()
    assert stability([long], [long]) == 1.0
    assert time.perf_counter() - begun < 5
    assert len(agreement.shown_in(long, np.arange(1, 1001))) == 1000
