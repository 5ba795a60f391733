from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.errors import RegionError
from backend.geometry import timeline_segments
from backend.geometry.timeline_segments import Segment, frame_labels, from_value, segments, to_value
from backend.types import BoolArray

LABELS = ("walk", "run", "jump")


@st.composite
def marks(draw: st.DrawFn) -> BoolArray:
    """Return the labels of each frame as a mask (n, 3), in runs of one to nine frames."""
    lengths = draw(st.lists(st.integers(1, 9), max_size=20))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=len(lengths), max_size=len(lengths)))
    return np.repeat(np.array(rows, dtype=np.bool_).reshape(-1, 3), lengths, axis=0)


@settings(deadline=None)
@given(marks())
def test_frames_to_segments_and_back(marks: BoolArray) -> None:
    assert np.array_equal(frame_labels(segments(marks, LABELS, 0.5), len(marks), LABELS), marks)


@settings(deadline=None)
@given(marks(), st.integers(1, 12))
def test_segments_shorter_than_the_shortest_are_dropped(marks: BoolArray, shortest: int) -> None:
    everything = segments(marks, LABELS, 0.5)
    long_enough = segments(marks, LABELS, 0.5, shortest)
    assert long_enough == tuple(segment for segment in everything if segment.end - segment.start + 1 >= shortest)


@settings(deadline=None)
@given(marks())
def test_label_studios_form_and_back(marks: BoolArray) -> None:
    for segment in segments(marks, LABELS, 0.5):
        value = json.loads(json.dumps(to_value(segment)))
        assert from_value(value, len(marks)) == (segment,)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 10), st.integers(0, 2**32))
@example(frames=4, half=0, seed=2**32)  # a mean of .0003
def test_smoothing_is_the_mean_of_the_frames_around(frames: int, half: int, seed: int) -> None:
    probs = np.random.default_rng(seed).random((frames, 2))
    smoothed = timeline_segments.smooth(probs, 2 * half + 1)
    assert smoothed.shape == probs.shape
    for at in range(frames):
        mean = probs[max(at - half, 0) : at + half + 1].mean(axis=0)
        assert smoothed[at] == pytest.approx(mean, abs=1e-9)  # what it is rounded to


def test_smoothing_closes_a_flicker_and_keeps_the_borders() -> None:
    probs = np.zeros((60, 1))
    probs[20:40] = 0.9
    probs[[5, 27, 33], 0] = 0.9, 0.1, 0.0
    assert len(segments(probs, ["run"], 0.5)) == 4
    (only,) = segments(timeline_segments.smooth(probs, 5), ["run"], 0.5)
    assert (only.start, only.end) == (21, 40)


def test_smoothing_a_long_certain_video_stays_in_range() -> None:
    probs = np.full((90_000, 1), 0.1)
    assert (timeline_segments.smooth(probs, 25) == 0.1).all()
    assert [segment.score for segment in segments(probs, ["run"], 0.1)] == [0.1]


def test_a_segments_score_is_its_mean_probability() -> None:
    probs = [[0.1, 0.9], [0.6, 0.7], [0.8, 0.2]]
    assert segments(probs, ("walk", "run"), 0.5) == (Segment(1, 2, "run", 0.8), Segment(2, 3, "walk", 0.7))


@pytest.mark.parametrize("classes", [0, 3])
def test_no_frames_stay_no_frames(classes: int) -> None:
    nothing = np.zeros((0, classes))
    assert timeline_segments.smooth(nothing, 5).shape == (0, classes)
    assert segments(nothing, LABELS[:classes], 0.5) == ()
    assert frame_labels((), 0, LABELS).shape == (0, 3)
    assert frame_labels((), 4, ()).shape == (4, 0)
    assert segments(np.zeros((4, 0)), (), 0.5) == ()


@pytest.mark.parametrize(
    ("item", "span"),
    [
        ({"start": 3, "end": 5}, (3, 5)),
        ({"start": 5, "end": 3}, (3, 5)),
        ({"start": 4, "end": 4}, (4, 4)),
        ({"start": 3, "end": None}, (3, 10)),
        ({"start": None, "end": 3}, (3, 3)),
        ({"start": 3.0, "end": 5.0}, (3, 5)),
        ({"start": 8, "end": 99}, (8, 10)),
        ({"start": 99, "end": None}, None),
        ({"start": 11, "end": 12}, None),
    ],
)
def test_ranges_as_annotators_leave_them(item: dict[str, Any], span: tuple[int, int] | None) -> None:
    read = from_value({"ranges": [item], "timelinelabels": ["run", "jump"]}, 10)
    assert read == (() if span is None else (Segment(*span, "run"), Segment(*span, "jump")))


@pytest.mark.parametrize(
    ("value", "where", "problem"),
    [
        ({"timelinelabels": ["run"]}, "value.ranges", "no list of ranges"),
        ({"ranges": []}, "value.timelinelabels", "no list of labels"),
        ({"ranges": [], "timelinelabels": [7]}, "value.timelinelabels", "no list of labels"),
        ({"ranges": [{"start": 1, "end": 2}, 5]}, "value.ranges[1]", "not an object"),
        ({"ranges": [{}]}, "value.ranges[0]", "neither start nor end"),
        ({"ranges": [{"start": 0, "end": 5}]}, "value.ranges[0]", "has the frame 0"),
        ({"ranges": [{"start": 1.5, "end": 5}]}, "value.ranges[0]", "has the frame 1.5"),
        ({"ranges": [{"start": 1, "end": math.inf}]}, "value.ranges[0]", "has the frame inf"),
        ({"ranges": [{"start": 1, "end": math.nan}]}, "value.ranges[0]", "has the frame nan"),
        ({"ranges": [{"start": 1, "end": 10**400}]}, "value.ranges[0]", "count from 1"),
        ({"ranges": [{"start": "1", "end": 5}]}, "value.ranges[0]", "has the frame '1'"),
        ({"ranges": [{"start": True, "end": 5}]}, "value.ranges[0]", "has the frame True"),
    ],
)
def test_a_damaged_region_says_where(value: dict[str, Any], where: str, problem: str) -> None:
    labeled = value if len(value) == 2 or where == "value.timelinelabels" else {"timelinelabels": ["run"], **value}
    with pytest.raises(RegionError) as caught:
        from_value(labeled, 10)
    assert problem in caught.value.what
    assert caught.value.where == where
    assert caught.value.fix


def test_a_label_the_config_lost_and_frames_past_the_end_are_left_out() -> None:
    marks = frame_labels([Segment(2, 99, "run"), Segment(1, 3, "gone"), Segment(50, 60, "walk")], 4, LABELS)
    assert marks.tolist() == [[False] * 3, *[[False, True, False]] * 3]


@pytest.mark.parametrize("window", [0, -1, 2, 4])
def test_a_window_has_a_centre(window: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        timeline_segments.smooth(np.zeros((3, 1)), window)


@pytest.mark.parametrize(
    ("probs", "problem"),
    [([[0.1, 0.2]], "do not fit 3"), ([0.1, 0.2, 0.3], "must be"), ([[0.1, 0.2, math.nan]], "NaN")],
)
def test_invalid_probabilities_are_refused(probs: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        segments(probs, LABELS, 0.5)


@pytest.mark.parametrize(("start", "end"), [(0, 3), (4, 3), (-1, -1)])
def test_an_invalid_segment_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="cannot go from frame"):
        Segment(start, end, "run")
