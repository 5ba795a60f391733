from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import MediaError, RegionError
from backend.geometry import keyframes
from backend.geometry.coordinates import Boxes, iou
from backend.geometry.keyframes import KeyFrames, Track, from_sequence, interpolate, select, to_sequence
from backend.types import IntArray, Json

FPS = 25.0
KEY: Json = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "frame": 5, "enabled": True, "time": 0.2}


def smooth(frames: int, seed: int, shake: float = 0.0) -> Track:
    """Return an object that moves, grows and shrinks by slow sines; `shake` is noise in percent, like a detector's."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(frames) / FPS
    columns = []
    for low, high, period in ((0, 80, 15), (0, 80, 12), (8, 20, 20), (8, 20, 20)):
        phase, speed, share = rng.random(3) * 2 * np.pi, (0.5 + rng.random(3)) / period, 0.2 + rng.random(3)
        waves = np.sin(2 * np.pi * speed * seconds[:, None] + phase) @ share / share.sum()
        columns.append(low + (high - low) * (waves + 1) / 2)
    boxes = np.stack(columns, axis=1)
    return Track(np.arange(1, frames + 1), boxes + rng.normal(0, shake, boxes.shape))


def overlaps(left: Boxes, right: Boxes) -> list[float]:
    """Return the IoU of percent boxes, row by row."""
    corners = [np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) for boxes in (left, right)]
    return [float(iou(a, b)[0, 0]) for a, b in zip(*corners, strict=True)]


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 40]), max_size=60))
    start = draw(st.integers(1, 500))
    frames = np.cumsum([start, *steps]) if draw(st.booleans()) or steps else np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    walk = np.cumsum(rng.normal(0, draw(st.sampled_from([0.1, 1.0, 20.0])), (len(frames), 4)), axis=0)
    return Track(frames, np.concatenate([50 + walk[:, :2], 1 + np.abs(walk[:, 2:])], axis=1).reshape(-1, 4))


@settings(deadline=None)
@given(tracks(), st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_the_interpolation_differs_from_the_track_by_less_than_tau(track: Track, tau: float) -> None:
    keys = select(track, tau)
    everything = np.arange(1, 3200)
    drawn = interpolate(keys, everything)
    assert drawn.frames.tolist() == track.frames.tolist()
    assert set(keys.frames.tolist()) <= set(track.frames.tolist())
    assert all(1 - overlap < tau for overlap in overlaps(track.boxes, drawn.boxes))


@settings(deadline=None)
@given(tracks(), st.integers(0, 5))
def test_gaps_up_to_the_bridge_are_drawn(track: Track, bridge: int) -> None:
    drawn = interpolate(select(track, 0.2, bridge), np.arange(1, 3200))
    missing = [
        frame
        for before, after in zip(track.frames[:-1].tolist(), track.frames[1:].tolist(), strict=True)
        if after - before <= bridge + 1
        for frame in range(before + 1, after)
    ]
    assert drawn.frames.tolist() == sorted([*track.frames.tolist(), *missing])


@settings(deadline=None)
@given(tracks(), st.sampled_from([24.0, 25.0, 29.97, 60.0]), st.booleans())
def test_a_sequence_comes_back_as_it_was(track: Track, fps: float, turned: bool) -> None:
    keys = select(track, 0.2)
    if turned and len(keys.frames):
        keys = KeyFrames(
            keys.frames, keys.boxes, keys.enabled, np.linspace(1.0, 90.0, len(keys.frames), dtype=np.float64)
        )
    value = json.loads(json.dumps(to_sequence(keys, 4000, fps)))
    back = from_sequence(value)
    assert back.frames.tolist() == keys.frames.tolist()
    assert back.boxes.tolist() == keys.boxes.tolist()
    assert back.enabled.tolist() == keys.enabled.tolist()
    assert (back.rotation is None) == (keys.rotation is None)
    if keys.rotation is not None and back.rotation is not None:
        assert back.rotation.tolist() == keys.rotation.tolist()
    assert keyframes.frame_rate(value) == pytest.approx(fps)


@pytest.mark.parametrize("shake", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_sixty_seconds_take_few_key_frames(seed: int, shake: float) -> None:
    track = smooth(1500, seed, shake)
    keys = select(track)
    drawn = interpolate(keys, track.frames)
    assert len(keys.frames) <= 0.15 * 1500
    assert np.mean(overlaps(track.boxes, drawn.boxes)) >= 0.9


def test_a_straight_track_takes_two_key_frames_and_a_corner_one_more() -> None:
    boxes = np.linspace([0, 0, 9, 9], [50, 0, 9, 9], 51)
    corner = np.concatenate([boxes, np.linspace([50, 1, 9, 9], [50, 50, 9, 9], 50)])
    keys = select(Track(np.arange(11, 112), corner), 0.1)
    assert keys.frames.tolist() == [11, 61, 111]
    assert keys.enabled.tolist() == [True, True, False]


def test_an_object_that_leaves_is_off_until_it_returns() -> None:
    track = Track(np.array([1, 2, 3, 7, 20, 21]), np.full((6, 4), 10.0))
    keys = select(track, 0.2)
    assert list(zip(keys.frames.tolist(), keys.enabled.tolist(), strict=True)) == [
        *((1, True), (3, False), (7, False)),
        *((20, True), (21, False)),
    ]


def test_an_annotators_last_key_frame_lasts_and_nothing_is_drawn_before_the_first() -> None:
    keys = KeyFrames(np.array([5, 10]), np.array([[0.0, 0, 5, 5], [10, 0, 5, 5]]), np.array([True, True]))
    drawn = interpolate(keys, [1, 4, 5, 7, 10, 99])
    assert drawn.frames.tolist() == [5, 7, 10, 99]
    assert drawn.boxes[:, 0].tolist() == [0, 4, 10, 10]


@pytest.mark.parametrize(
    ("start", "end", "middle"),
    [
        *((0.0, 90.0, 45.0), (-170.0, 170.0, 180.0), (350.0, 10.0, 0.0), (10.0, 350.0, 0.0)),
        *((0.0, 180.0, 90.0), (180.0, 0.0, 270.0), (0.0, -180.0, 90.0)),  # half a turn goes clockwise in the editor
    ],
)
def test_rotation_takes_the_short_way_round(start: float, end: float, middle: float) -> None:
    keys = KeyFrames(np.array([1, 3]), np.full((2, 4), 5.0), np.array([True, False]), np.array([start, end]))
    track = interpolate(keys, [1, 2, 3])
    assert track.rotation is not None
    assert math.remainder(float(track.rotation[1]) - middle, 360) == pytest.approx(0, abs=1e-9)


def test_a_rotated_box_becomes_its_hull() -> None:
    track = Track(np.array([1, 2]), np.array([[50.0, 50, 10, 20], [50, 50, 10, 20]]), np.array([0.0, 90.0]))
    assert keyframes.upright(track, 200, 100).boxes.round(9).tolist() == [[50, 50, 10, 20], [40, 50, 10, 20]]
    with pytest.raises(ValueError, match="upright"):
        select(track)


def test_no_frames_stay_no_frames() -> None:
    nothing = Track(np.zeros(0, dtype=np.int64), np.zeros((0, 4)))
    keys = select(nothing)
    value = to_sequence(keys, 100, FPS)
    assert value == {"framesCount": 100, "duration": 4.0, "sequence": []}
    assert len(interpolate(from_sequence(value), np.arange(1, 101)).frames) == 0
    assert len(interpolate(select(smooth(9, 0)), []).frames) == 0


def test_the_front_ends_spelling() -> None:
    keys = KeyFrames(np.array([5]), np.array([[1.0, 2, 3, 4]]), np.array([True]))
    assert to_sequence(keys, 50, FPS) == {"framesCount": 50, "duration": 2.0, "sequence": [KEY]}


def test_key_frames_in_any_order_and_twice() -> None:
    items = [{**KEY, "frame": 9, "enabled": False}, KEY, {**KEY, "x": 50}]
    keys = from_sequence({"sequence": items})
    assert keys.frames.tolist() == [5, 9]
    assert keys.boxes[:, 0].tolist() == [1, 1]
    assert keys.enabled.tolist() == [True, False]


@pytest.mark.parametrize("turned", [0.0, 40.0])
def test_of_two_boxes_at_a_frame_the_first_is_drawn_and_the_last_starts_the_interpolation(turned: float) -> None:
    """`getShape` of 1.23 reads the sequence this way."""
    two = [{**KEY, "x": 10, "rotation": turned}, {**KEY, "x": 50, "rotation": 10.0}]
    ends = [{**KEY, "frame": 1, "x": 2}, {**KEY, "frame": 9, "x": 90, "rotation": 30.0}]
    drawn = interpolate(from_sequence({"sequence": [*ends, *two]}), np.arange(1, 11))
    assert drawn.boxes[:, 0].tolist() == [2, 4, 6, 8, 10, 60, 70, 80, 90, 90]
    assert drawn.rotation is not None
    assert drawn.rotation.tolist() == [*(turned * step / 4 for step in range(5)), 15, 20, 25, 30, 30]


def test_the_last_box_of_the_last_frame_lasts() -> None:
    keys = from_sequence({"sequence": [KEY, {**KEY, "x": 50}, {**KEY, "x": 60}]})
    assert interpolate(keys, [4, 5, 6, 99]).boxes[:, 0].tolist() == [1, 60, 60]
    with pytest.raises(ValueError, match="one box"):
        to_sequence(keys, 100, FPS)


def test_onward_has_the_same_frames() -> None:
    track, other = (Track(np.array([frame]), np.full((1, 4), 10.0)) for frame in (1, 2))
    with pytest.raises(ValueError, match="other frames"):
        KeyFrames(track.frames, track.boxes, np.array([True]), onward=other)


def test_enabled_as_the_front_end_takes_it() -> None:
    """`closestKeypoint` of 1.23 takes the last of two key frames at one frame; a missing `enabled` means false."""
    silent = {name: value for name, value in KEY.items() if name != "enabled"}
    keys = from_sequence({"sequence": [silent, {**KEY, "frame": 9}, {**KEY, "frame": 9, "enabled": False}]})
    assert keys.enabled.tolist() == [False, False]
    assert interpolate(keys, np.arange(1, 20)).frames.tolist() == [5, 9]


@pytest.mark.parametrize(
    ("value", "where", "problem"),
    [
        ({}, "value.sequence", "no list"),
        ({"sequence": {"0": KEY}}, "value.sequence", "no list"),
        ({"sequence": [KEY, 7]}, "value.sequence[1]", "not an object"),
        ({"sequence": [KEY, {**KEY, "frame": 0}]}, "value.sequence[1]", "has the frame 0"),
        ({"sequence": [{**KEY, "frame": 1.5}]}, "value.sequence[0]", "has the frame 1.5"),
        ({"sequence": [{**KEY, "frame": 10**400}]}, "value.sequence[0]", "frames count from 1"),
        ({"sequence": [{**KEY, "frame": None}]}, "value.sequence[0]", "has the frame None"),
        ({"sequence": [{**KEY, "x": "1"}]}, "value.sequence[0]", "frame 5 has no usable"),
        ({"sequence": [{**KEY, "x": math.nan}]}, "value.sequence[0]", "frame 5 has no usable"),
        ({"sequence": [{**KEY, "y": 1e300}]}, "value.sequence[0]", "frame 5 has no usable"),
        ({"sequence": [{**KEY, "width": -1}]}, "value.sequence[0]", "frame 5 has no usable"),
        ({"sequence": [{**KEY, "rotation": math.inf}]}, "value.sequence[0]", "frame 5 has no usable"),
    ],
)
def test_a_damaged_sequence_says_where(value: dict[str, Any], where: str, problem: str) -> None:
    with pytest.raises(RegionError) as caught:
        from_sequence(value)
    assert problem in caught.value.what
    assert caught.value.where == where
    assert caught.value.fix


@pytest.mark.parametrize("fps", [0, -25.0, math.nan, math.inf])
def test_a_video_without_a_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(MediaError, match="frames per second"):
        to_sequence(select(smooth(9, 0)), 9, fps)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"framesCount": 0, "duration": 1},
        {"framesCount": 9, "duration": 0},
        {"framesCount": 1, "duration": 4},  # submitted before the video was loaded
        {"framesCount": 1, "duration": None},
    ],
)
def test_a_value_without_length_has_no_frame_rate(value: Json) -> None:
    assert keyframes.frame_rate(value) is None


@pytest.mark.parametrize(
    ("frames", "boxes", "problem"),
    [
        ([1, 2], [[0, 0, 1, 1]], "do not fit"),
        ([2, 1], [[0, 0, 1, 1]] * 2, "ascend"),
        ([0, 1], [[0, 0, 1, 1]] * 2, "count from 1"),
        ([1], [[0, 0, 1, math.nan]], "NaN"),
        ([1], [[0, 0, -1, 1]], "negative"),
    ],
)
def test_an_invalid_track_is_refused(frames: list[int], boxes: list[list[float]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Track(np.array(frames), np.array(boxes, dtype=np.float64))


@pytest.mark.parametrize("tau", [0.0, -1.0, 1.5, math.nan])
def test_tau_is_a_share(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        select(smooth(9, 0), tau)


def test_key_frames_past_the_end_are_refused() -> None:
    with pytest.raises(ValueError, match="past the last of 8"):
        to_sequence(select(smooth(9, 0)), 8, FPS)


@pytest.mark.parametrize("kind", ["shaken", "spiral", "jumps"])
def test_a_long_video_is_no_quadratic_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 16_384
    at, small = np.arange(frames), np.full(frames, 0.1)
    boxes = {
        "shaken": smooth(frames, 0, 0.5).boxes,
        "spiral": np.stack([50 + 40 * np.sin(at / 50), 50 + 40 * np.cos(at / 50), small, small], axis=1),
        "jumps": np.stack([at % 2 * 50.0, small, small, small], axis=1),  # each round would split off one frame
    }[kind]
    compared: list[int] = []
    error = keyframes.interpolation_error

    def counted(track: Track, before: IntArray, after: IntArray, at: IntArray) -> Boxes:
        compared.append(len(at))
        return error(track, before, after, at)

    monkeypatch.setattr(keyframes, "interpolation_error", counted)
    select(Track(at + 1, boxes))
    assert sum(compared) <= (keyframes.ROUNDS + math.log2(frames)) * frames
