from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backend.geometry import masks
from backend.geometry.coordinates import ring_area
from backend.types import BoolArray

SIZES = st.tuples(st.integers(1, 25), st.integers(1, 25))
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)


def smooth(height: int, width: int, share: float, seed: int) -> BoolArray:
    """Return a mask of blobs with holes."""
    noise = np.random.default_rng(seed).random((height, width))
    blurred = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.asarray(blurred > np.quantile(blurred, 1 - share))


@settings(deadline=None)
@given(SIZES.flatmap(lambda size: arrays.arrays(np.bool_, size)))
def test_fill_undoes_trace(mask: BoolArray) -> None:
    assert np.array_equal(masks.fill(masks.trace(mask), mask.shape[1], mask.shape[0]), mask)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_blobs_come_back_whole_with_fewer_points_than_their_border_has_pixels(share: float, seed: int) -> None:
    mask = smooth(120, 200, share, seed)
    rings = masks.trace(mask)
    assert np.array_equal(masks.fill(rings, 200, 120), mask)
    assert 3 * len(rings) <= sum(map(len, rings)) < np.count_nonzero(mask & ~_inside(mask))


def _inside(mask: BoolArray) -> BoolArray:
    framed = np.pad(mask, 1).astype(np.uint8)
    return np.asarray(cv2.erode(framed, CROSS)[1:-1, 1:-1] > 0)


def test_rings_run_along_the_edges_of_pixels() -> None:
    mask = np.zeros((6, 8), dtype=np.bool_)
    mask[2:5, 3:7] = True
    (ring,) = masks.trace(mask)
    assert ring.min(axis=0).tolist() == [3, 2]
    assert ring.max(axis=0).tolist() == [7, 5]
    assert ring_area(tuple(map(tuple, ring.tolist()))) == 12 - 4 / 8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 7)])
def test_masks_of_nothing_and_of_everything(size: tuple[int, int]) -> None:
    width, height = size
    assert masks.trace(np.zeros((height, width), dtype=np.bool_)) == ()
    assert not masks.fill([], width, height).any()
    assert not masks.fill([np.zeros((0, 2)), np.zeros((1, 2))], width, height).any()
    whole = masks.trace(np.ones((height, width), dtype=np.bool_))
    assert masks.fill(whole, width, height).all()


corner = st.tuples(st.floats(-5, 15), st.floats(-5, 12))


@settings(deadline=None)
@given(st.lists(corner, min_size=3, max_size=8))
def test_a_pixel_is_inside_when_its_centre_is(ring: list[tuple[float, float]]) -> None:
    filled = masks.fill([ring], 10, 8)
    assert filled.shape == (8, 10)
    contour = np.array(ring, dtype=np.float32)
    for row, column in np.ndindex(8, 10):
        distance = cv2.pointPolygonTest(contour, (column + 0.5, row + 0.5), True)
        if abs(distance) > 1e-3:
            assert filled[row, column] == (distance > 0)


@pytest.mark.parametrize("turn", range(4))
def test_rings_count_by_even_and_odd_in_any_order_and_direction(turn: int) -> None:
    outer, hole, island = (np.array([(a, a), (b, a), (b, b), (a, b)]) for a, b in ((1, 11), (3, 9), (5, 7)))
    rings: list[npt.NDArray[np.int64]] = [outer, hole[::-1], island]
    rings = rings[turn % 3 :] + rings[: turn % 3] if turn < 3 else rings[::-1]
    assert masks.fill(rings, 12, 12).sum() == 100 - 36 + 4
