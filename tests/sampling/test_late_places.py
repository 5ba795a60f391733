"""Tasks that come after the ranking: their place in it."""

from __future__ import annotations

import numpy as np
import pytest

from backend import acquisition
from backend.acquisition import registry
from backend.acquisition.pool import Empty, Pool
from backend.sampling.late_places import (
    front_priority,
    late_priorities,
    quantile_of,
    stand_in,
    with_late_tasks,
    without_tasks,
)
from backend.types import Ranking
from tests.acquisition.test_contract import boxes, make_pool
from tests.sampling.test_ranking import by_value, plain, rank


@pytest.mark.parametrize(
    ("value", "expected"),
    [(9.0, 0.1), (4.0, 0.1), (2.5, 0.5), (0.0, 0.9), (np.inf, 0.1), (-np.inf, 0.9), (np.nan, 1.0)],
)
def test_quantile_of(value: float, expected: float) -> None:
    acquired = np.array([1, 2, 3, 4], dtype=np.float32)
    last = Ranking(np.arange(4), acquired, acquired, np.zeros(4, np.bool_), "entropy")
    assert quantile_of(last, value) == expected


def test_quantile_of_without_a_ranking() -> None:
    assert quantile_of(rank(plain(0)), 3.0) == 0.5
    assert quantile_of(None, 3.0) == 0.5


def test_tasks_that_come_later_take_their_place() -> None:
    ranked = rank(boxes(*([[s, 0.0]] for s in (0.5, 0.6, 0.7, 0.8, 0.9))), explore_share=0.0)
    later = boxes([[0.5, 0.0]], [[0.99, 0.0]], [], [[0.75, 0.0]])
    places = late_priorities(ranked, later, np.random.default_rng(0))
    assert places.tolist() == pytest.approx([0.5 / 6, 5.5 / 6, 0.5, 3.5 / 6])


@pytest.mark.parametrize(("empty", "place"), [("highest", 0), ("median", 0.5), ("lowest", 1)])
def test_empty_decides_the_place_of_a_late_task_without_boxes(empty: Empty, place: float) -> None:
    order = rank(make_pool(), "entropy", explore_share=0.0)
    nothing = Pool(np.array([1]), np.zeros(2, np.int64), np.zeros((0, 5), np.float32), empty=empty)
    (late,) = late_priorities(order, nothing, np.random.default_rng(0)).tolist()
    before = np.count_nonzero(order.priority < late) / len(order.priority)
    assert before == pytest.approx(place, abs=0.5 / len(order.priority))
    assert 0 < late < 1


def test_later_tasks_of_a_random_queue_are_spread_even_without_boxes() -> None:
    later = Pool(np.arange(200, 300), np.zeros(101, np.int64), np.zeros((0, 2), np.float32))
    places = late_priorities(rank(plain(100), "random"), later, np.random.default_rng(0))
    assert len(set(places.tolist())) > 30


def test_later_tasks_without_a_ranking() -> None:
    assert late_priorities(None, plain(2), np.random.default_rng(0)).tolist() == [0.5, 0.5]
    assert late_priorities(rank(plain(3)), plain(0), np.random.default_rng(0)).tolist() == []


def test_the_front_is_right_behind_the_first() -> None:
    ranked = rank(by_value(10), explore_share=0.0)
    second = sorted(ranked.priority.tolist())[1]
    fronts = [front_priority(ranked, place) for place in (0.0, 0.4, 1.0)]
    assert fronts == sorted(fronts)
    assert 0 <= fronts[0] < fronts[2] < second


def test_late_tasks_join_the_ranking_without_moving_the_quantiles() -> None:
    ranked = rank(by_value(100), explore_share=0.0)
    places = np.array([0.0, 0.5, 1.0, 0.9], dtype=np.float32)
    priority = np.array([0.001, 0.5, 1.0, 0.9], dtype=np.float32)
    longer = with_late_tasks(ranked, np.array([200, 201, 202, 5]), places, priority)
    assert longer.task_ids.tolist()[-4:] == [200, 201, 202, 5]
    assert longer.priority[-4:].tolist() == pytest.approx([0.001, 0.5, 1.0, 0.9])
    assert len(longer.task_ids) == 103
    assert len(without_tasks(longer, np.array([5, 7])).task_ids) == 101
    assert not longer.explored.any()
    for value in ranked.acquisition[::9]:
        assert quantile_of(longer, value) == pytest.approx(quantile_of(ranked, value), abs=0.02)


def test_late_tasks_of_a_random_queue_are_chosen_by_chance() -> None:
    ranked, middle = rank(plain(5), "random", explore_share=1.0), np.array([0.5], dtype=np.float32)
    assert with_late_tasks(ranked, np.array([9]), middle, middle).explored.all()


def test_a_strategy_of_places_has_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    register = acquisition.acquisition("ordered", asks="?", cost="none", paper="none", relative=True)
    register(lambda pool, rng: np.arange(len(pool), dtype=np.float64))
    pool = by_value(10)
    ranked = rank(pool, "ordered", explore_share=0.0)
    late = boxes([[0.5, 0.0]], [[0.01, 0.0]])
    assert late_priorities(ranked, late, np.random.default_rng(0)).tolist() == [0.5, 0.5]
    assert late_priorities(stand_in(ranked, pool), late, np.random.default_rng(0)).tolist() == [
        pytest.approx(0.5 / 11),
        pytest.approx(10.5 / 11),
    ]
    comparable = rank(pool, "entropy")
    assert stand_in(comparable, pool) is comparable
