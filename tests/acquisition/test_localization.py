"""Localization: uncertain sides of boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import acquisition
from backend.acquisition.localization import blur, dfl_variance
from backend.acquisition.pool import Pool
from backend.errors import ModelError


def pool_of(images: list[list[tuple[float, float]]], classes: int = 1) -> Pool:
    """Return a pool of boxes (score, variance of every side)."""
    flat = [box for image in images for box in image]
    return Pool(
        task_ids=np.arange(len(images), dtype=np.int64),
        offsets=np.cumsum([0, *map(len, images)]).astype(np.int64),
        class_probs=np.array([[score] * classes for score, _ in flat], np.float32).reshape(-1, classes),
        columns={"box_variance": np.array([[variance] * 4 for _, variance in flat], np.float32).reshape(-1, 4)},
    )


def values(pool: Pool) -> list[float]:
    scores: list[float] = acquisition.get("localization")(pool, np.random.default_rng(0)).tolist()
    return scores


def test_variance_of_known_distributions() -> None:
    assert dfl_variance([[1 / 16] * 16]) == pytest.approx([21.25])
    assert dfl_variance(np.zeros((0, 16))).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=16), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_variance_is_that_of_the_formula(raw: list[float], at: int) -> None:
    p = np.array(raw)
    p[at % len(p)] += 1
    p /= p.sum()
    k = np.arange(len(p))
    assert dfl_variance(p) == pytest.approx((k**2 * p).sum() - (k * p).sum() ** 2, abs=1e-9)


@pytest.mark.parametrize("classes", [1, 80])
def test_blurred_before_sharp_and_objects_before_noise(classes: int) -> None:
    sharp, blurred, noise = values(pool_of([[(0.9, 1.0)], [(0.9, 16.0)], [(0.05, 16.0)]], classes))
    assert blurred == pytest.approx(4 * sharp)
    assert blurred == pytest.approx(18 * noise)


def test_sides_and_boxes_add_up_by_their_deviation() -> None:
    assert blur(np.array([[1.0, 1.0, 4.0, 16.0]]), np.array([0.5])) == pytest.approx([1.0])
    assert values(pool_of([[(1.0, 4.0)] * 12])) == pytest.approx([20.0])  # the top 10


def test_images_without_boxes_and_empty_pools() -> None:
    assert values(pool_of([[(1.0, 4.0)], [], [(1.0, 16.0)]])) == pytest.approx([2.0, 3.0, 4.0])
    assert values(pool_of([[], []])) == [0.0, 0.0]
    assert values(pool_of([])) == []


def test_a_model_without_dfl_is_refused_by_name() -> None:
    pool = Pool(np.arange(1), np.array([0, 1]), np.ones((1, 2), np.float32))
    with pytest.raises(ModelError, match=r"localization.*box_variance.*YOLO26"):
        acquisition.get("localization")(pool, np.random.default_rng(0))
