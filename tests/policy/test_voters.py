from __future__ import annotations

import pytest

from backend.policy.voters import voters


@pytest.mark.parametrize(
    ("models", "size", "places"),
    [
        ([], 3, []),
        ([("c", False), ("b", False), ("a", False)], 2, [0, 1]),
        ([("c", False), ("b", False), ("a", False)], 8, [0, 1, 2]),
        ([("a", True), ("a", True), ("a", False), ("b", False)], 3, [0, 3]),  # twice carried over: one vote
        ([("a", True), ("b", False), ("a", False)], 3, [0, 1]),  # somebody rolled back to the oldest
        ([("a", False), ("a", False)], 3, [0, 1]),  # two trainings that gave the same weights
    ],
)
def test_the_newest_weights_vote_once_each(models: list[tuple[str, bool]], size: int, places: list[int]) -> None:
    assert voters(models, size) == places
