"""Pinned tasks stand before and behind all others, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import RequestError
from backend.sampling.pins import Pins, as_place, pinned, pinned_places
from backend.sampling.ranking import quantiles
from backend.types import FloatArray, Ranking


def ranking_of(n: int, priority: FloatArray | None = None) -> Ranking:
    """Return a ranking of the tasks 1 to n in this order."""
    values = np.arange(n, 0, -1, dtype=np.float32)
    return Ranking(
        np.arange(1, n + 1),
        quantiles(np.arange(n)) if priority is None else priority,
        values,
        np.ones(n, np.bool_),
        "entropy",
    )


def queue(places: dict[int, float]) -> list[int]:
    return sorted(places, key=places.__getitem__)


def test_the_front_and_the_back_in_the_order_of_pinning() -> None:
    places = pinned_places(ranking_of(6), Pins(front=(5, 2), back=(1, 3)))
    assert queue(places) == [5, 2, 4, 6, 1, 3]
    assert places[4] == pytest.approx(4 / 7), "the others keep their places"
    assert places[6] == pytest.approx(6 / 7)


@given(st.integers(1, 30), st.lists(st.integers(1, 40), unique=True, max_size=40), st.integers(0, 40), st.booleans())
def test_every_order_is_exact_and_lies_between_0_and_1(n: int, tasks: list[int], cut: int, old: bool) -> None:
    """Also for a ranking of an earlier release, which goes from 0 to 1, and with pins of tasks that are gone."""
    priority = np.linspace(0, 1, n, dtype=np.float32) if old else None
    pins = Pins(tuple(tasks[:cut]), tuple(tasks[cut:]))
    places = pinned_places(ranking_of(n, priority), pins)
    pinned_tasks = set(tasks)
    free = [task for task in range(1, n + 1) if task not in pinned_tasks]
    ranked = [[task for task in side if task <= n] for side in (pins.front, pins.back)]
    assert queue(places) == [*ranked[0], *free, *ranked[1]]
    assert len(set(places.values())) == n
    assert all(0 < place < 1 for place in places.values()) or not any(ranked)


def test_places_stay_apart_in_a_large_pool() -> None:
    n = 100_000
    pins = Pins(tuple(range(1, 501)), tuple(range(n - 500, n + 1)))
    places = pinned_places(ranking_of(n), pins)
    assert np.diff(sorted(places.values())).min() > 1e-9
    assert queue(places) == list(range(1, n + 1))


def test_a_pinned_task_is_not_drawn_at_random() -> None:
    with_pins = pinned(ranking_of(4), Pins(front=(3,), back=(1,)))
    assert with_pins.task_ids[np.argsort(with_pins.priority)].tolist() == [3, 2, 4, 1]
    assert with_pins.explored.tolist() == [False, True, False, True]
    assert sorted(with_pins.priority.tolist()) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert len(pinned(ranking_of(0), Pins(front=(3,))).task_ids) == 0


@pytest.mark.parametrize("text", ["", "middle", "FRONT", "front ", "'; drop", "x" * 500])
def test_another_place_is_answered_with_the_places(text: str) -> None:
    with pytest.raises(RequestError, match=r"unknown place .* use one of front, back, none"):
        as_place(text)


def test_the_places() -> None:
    assert [as_place(text) for text in ("front", "back", "none")] == ["front", "back", "none"]
