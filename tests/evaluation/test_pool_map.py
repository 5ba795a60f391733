"""The plane of a map, and the images that do not belong."""

from __future__ import annotations

import numpy as np
import pytest

from backend.evaluation.pool_map import drawn_boxes, oddness, plane
from backend.types import FloatArray


def clusters(count: int, dimensions: int = 16, seed: int = 0) -> FloatArray:
    """Return points in two clusters that differ along one direction."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.1, (count, dimensions))
    points[: count // 2, 3] += 5
    return points.astype(np.float32)


def test_the_first_axis_is_the_direction_in_which_images_differ_most() -> None:
    places, explained = plane(clusters(400))
    assert places.shape == (400, 2)
    assert places[:200, 0].min() > 2 > -2 > places[200:, 0].max(), "the largest component is positive"
    assert explained > 0.9


def test_the_map_does_not_depend_on_the_order_or_the_blocks() -> None:
    points = clusters(5000)
    places, _ = plane(points)
    turned, _ = plane(points[::-1])
    np.testing.assert_allclose(turned[::-1], places, atol=1e-3)


@pytest.mark.parametrize("points", [np.zeros((0, 8)), np.ones((1, 8)), np.ones((5, 8)), np.zeros((5, 0))])
def test_points_without_a_direction_lie_in_the_middle(points: FloatArray) -> None:
    places, explained = plane(points.astype(np.float32))
    assert not places.any()
    assert places.shape == (len(points), 2)
    assert explained == 0


def test_one_dimension_gives_a_line() -> None:
    places, explained = plane(np.arange(4, dtype=np.float32)[:, None])
    assert places[:, 0].tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert not places[:, 1].any()
    assert explained == pytest.approx(1)


def test_an_image_far_from_all_others_is_odd_even_with_three_copies() -> None:
    points = clusters(600)
    points[[7, 8, 9]] = 9.0
    odd = oddness(points, np.arange(600))
    assert np.flatnonzero(odd > 1).tolist() == [7, 8, 9]


@pytest.mark.parametrize("count", [0, 1, 5, 19])
def test_few_images_are_not_judged(count: int) -> None:
    assert not oddness(clusters(count), np.arange(count)).any()


def test_equal_images_are_not_odd() -> None:
    assert not (oddness(np.ones((50, 4), np.float32), np.arange(50)) > 1).any()


def test_neighbours_are_found_among_a_sample_of_a_large_pool() -> None:
    points = clusters(12_000, dimensions=4)
    points[11_111] = 7.0
    odd = oddness(points, np.arange(12_000) * 3)
    assert odd[11_111] == odd.max() > 1
    assert (odd > 1).mean() < 0.02


def test_the_boxes_on_a_map_do_not_depend_on_the_parts() -> None:
    tasks, places = np.repeat(np.arange(300), 4), np.tile(np.arange(4), 300)
    whole = drawn_boxes(tasks, places, 100)
    assert whole.sum() == 100
    kept = [part[drawn_boxes(tasks[part], places[part], 100)] for part in np.array_split(np.arange(1200), 3)]
    rows = np.concatenate(kept)
    assert set(rows[drawn_boxes(tasks[rows], places[rows], 100)]) == set(np.flatnonzero(whole))
