from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.geometry import coordinates, masks
from backend.types import Ring

percent = st.floats(0, 100)
sizes = st.integers(1, 20_000)


def test_no_boxes_stay_no_boxes() -> None:
    for convert in (coordinates.clip_pixels, coordinates.pixels_to_percent):
        assert convert(np.zeros((0, 4)), 10, 10).shape == (0, 4)


@settings(deadline=None)
@given(st.tuples(percent, percent, percent, percent), sizes, sizes)
def test_pixels_and_percent_are_inverse(box: coordinates.Box, width: int, height: int) -> None:
    x, y, across, down = np.array(box) * (width, height, width, height) / 100
    pixels = np.array([[x, y, x + across, y + down]])
    assert coordinates.pixels_to_percent(pixels, width, height)[0] == pytest.approx(box, abs=1e-9)


@settings(deadline=None)
@given(st.tuples(percent, percent, percent, percent))
def test_normalised_and_percent_are_inverse(box: coordinates.Box) -> None:
    assert coordinates.normalised_to_percent(coordinates.percent_to_normalised(box)) == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((10.0, 10.0, 20.0, 20.0), (10.0, 10.0, 20.0, 20.0)),
        ((-10.0, -10.0, 20.0, 20.0), (0.0, 0.0, 10.0, 10.0)),
        ((90.0, 95.0, 20.0, 20.0), (90.0, 95.0, 10.0, 5.0)),
        ((-50.0, 0.0, 20.0, 20.0), (0.0, 0.0, 0.0, 20.0)),
    ],
)
def test_clip_percent(box: coordinates.Box, clipped: coordinates.Box) -> None:
    assert coordinates.clip_percent(box) == clipped


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
def test_rotation_is_clockwise_about_the_top_left_corner_in_pixels(rotation: float, hull: coordinates.Box) -> None:
    turned = coordinates.rotated_hull((50.0, 50.0, 10.0, 20.0), rotation, width=200, height=100)
    assert turned == pytest.approx(hull, abs=1e-9)


points = st.tuples(st.floats(0, 20), st.floats(0, 15))


@settings(deadline=None)
@given(st.lists(st.lists(points, max_size=6).map(tuple), max_size=6))
def test_the_joined_ring_encloses_the_same_area(rings: list[Ring]) -> None:
    joined = coordinates.bridged(rings)
    filled = [ring for ring in rings if ring]
    assert set(joined) == {point for ring in filled for point in ring}
    assert len(joined) == sum(map(len, filled)) + 2 * max(len(filled) - 1, 0)
    assert np.array_equal(masks.fill([joined], 20, 15), masks.fill(rings, 20, 15))


def test_bridges_of_long_rings_are_the_shortest() -> None:
    angle = np.linspace(0, 2 * math.pi, 3000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    wide, far = (tuple(map(tuple, (circle * radius + centre).tolist())) for radius, centre in ((9, 0), (2, 12)))
    joined = coordinates.bridged([wide, far])
    bridge = next(math.dist(*ends) for ends in pairwise(joined) if ends[1] in set(far))
    assert bridge == pytest.approx(math.dist((0, 0), (12, 12)) - 11, abs=1e-3)
