"""How much two orders differ: the same, reversed, and with tasks that only one holds."""

from __future__ import annotations

import numpy as np
import pytest

from backend.sampling.order_agreement import agreement
from backend.types import IntArray

IDS = np.array([7, 3, 9, 1, 5])


@pytest.mark.parametrize(
    ("other", "spearman", "shared"),
    [
        (IDS, 1.0, 2),
        (IDS[::-1], -1.0, 0),
        (np.array([3, 7, 9, 1, 5]), 0.9, 2),
    ],
)
def test_same_reversed_and_swapped(other: IntArray, spearman: float, shared: int) -> None:
    result = agreement(IDS, other, 2)
    assert (result.tasks, result.first, result.shared) == (5, 2, shared)
    assert result.spearman == pytest.approx(spearman)


@pytest.mark.parametrize("other", [np.zeros(0, np.int64), np.array([7]), np.array([100, 200])])
def test_too_few_tasks_in_common(other: IntArray) -> None:
    result = agreement(IDS, other, 24)
    assert result.spearman == 1.0
    assert result.first == result.tasks == len(np.intersect1d(IDS, other))


def test_a_random_order_is_unrelated() -> None:
    ids = np.arange(100_000)
    shuffled = np.random.default_rng(0).permutation(ids)
    assert abs(agreement(ids, shuffled, 24).spearman) < 0.02
