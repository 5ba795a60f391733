from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import geometry

percent = st.floats(0, 100)
sizes = st.integers(1, 20_000)


def test_no_boxes_stay_no_boxes() -> None:
    for convert in (geometry.clip_pixels, geometry.pixels_to_percent, geometry.percent_to_pixels):
        assert convert(np.zeros((0, 4)), 10, 10).shape == (0, 4)


@settings(deadline=None)
@given(st.tuples(percent, percent, percent, percent), sizes, sizes)
def test_pixels_and_percent_are_inverse(box: geometry.Box, width: int, height: int) -> None:
    pixels = geometry.percent_to_pixels([box], width, height)
    assert geometry.pixels_to_percent(pixels, width, height)[0] == pytest.approx(box, abs=1e-9)


@settings(deadline=None)
@given(st.tuples(percent, percent, percent, percent))
def test_normalised_and_percent_are_inverse(box: geometry.Box) -> None:
    assert geometry.normalised_to_percent(geometry.percent_to_normalised(box)) == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((10.0, 10.0, 20.0, 20.0), (10.0, 10.0, 20.0, 20.0)),
        ((-10.0, -10.0, 20.0, 20.0), (0.0, 0.0, 10.0, 10.0)),
        ((90.0, 95.0, 20.0, 20.0), (90.0, 95.0, 10.0, 5.0)),
        ((-50.0, 0.0, 20.0, 20.0), (0.0, 0.0, 0.0, 20.0)),
    ],
)
def test_clip_percent(box: geometry.Box, clipped: geometry.Box) -> None:
    assert geometry.clip_percent(box) == clipped


@pytest.mark.parametrize(
    ("rotation", "hull"),
    [
        (0.0, (50.0, 50.0, 10.0, 20.0)),
        (90.0, (40.0, 50.0, 10.0, 20.0)),  # 20 x 20 pixels on a 200 x 100 image: a square stays one
        (180.0, (40.0, 30.0, 10.0, 20.0)),
        (270.0, (50.0, 30.0, 10.0, 20.0)),
        (-90.0, (50.0, 30.0, 10.0, 20.0)),
        (45.0, (50 - 10 * math.sqrt(0.5), 50.0, 20 * math.sqrt(0.5), 40 * math.sqrt(0.5))),
    ],
)
def test_rotation_is_clockwise_about_the_top_left_corner_in_pixels(rotation: float, hull: geometry.Box) -> None:
    found = geometry.rotated_hull((50.0, 50.0, 10.0, 20.0), rotation, width=200, height=100)
    assert found == pytest.approx(hull, abs=1e-9)
