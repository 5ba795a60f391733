"""Ranking: order, explore share, priorities, and tasks that come later."""

from __future__ import annotations

import numpy as np
import pytest

from backend import acquisition, ranking
from backend.acquisition import registry
from backend.errors import ModelError, SettingError
from backend.types import Pool, Ranking
from tests.test_acquisition import boxes, make_pool, permuted


def rank(pool: Pool, strategy: str = "entropy", explore_share: float = 0.2, seed: int = 0) -> Ranking:
    return ranking.rank(pool, strategy, explore_share=explore_share, rng=np.random.default_rng(seed))


def queue(ranked: Ranking) -> list[int]:
    """Return the task ids as Label Studio hands them out."""
    return [int(task) for task in ranked.task_ids[np.argsort(ranked.priority)]]


def plain(n: int) -> Pool:
    return Pool(np.arange(1, n + 1), np.zeros(n + 1, np.int64), np.zeros((0, 2), np.float32))


def test_most_uncertain_first() -> None:
    ranked = rank(boxes([[0.9, 0.0]], [[0.5, 0.0]], [[0.7, 0.0]]), explore_share=0.0)
    assert queue(ranked) == [2, 3, 1]
    assert ranked.priority.tolist() == [1.0, 0.0, 0.5]
    assert ranked.strategy == "entropy"
    assert not ranked.explored.any()


@pytest.mark.parametrize("strategy", acquisition.names())
@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_priorities_are_distinct_quantiles(strategy: str, n: int) -> None:
    ranked = rank(make_pool(images=n), strategy)
    assert sorted(ranked.priority.tolist()) == pytest.approx(np.arange(n) / max(n - 1, 1))
    assert len(set(ranked.priority.tolist())) == n
    assert ranked.acquisition.shape == ranked.explored.shape == (n,)
    assert np.isfinite(ranked.acquisition).all()


@pytest.mark.parametrize("strategy", acquisition.names())
def test_permuting_the_pool_permutes_the_ranking(strategy: str) -> None:
    pool = make_pool(images=60, weights=[1, 2, 1, 1, 1])
    order = np.random.default_rng(2).permutation(60)
    one, other = rank(pool, strategy), rank(permuted(pool, order), strategy)
    assert (other.task_ids == one.task_ids[order]).all()
    assert (other.priority == one.priority[order]).all()
    assert (other.explored == one.explored[order]).all()


def test_ties_fall_to_the_lower_task_id() -> None:
    pool = Pool(np.array([30, 10, 20]), np.zeros(4, np.int64), np.zeros((0, 2), np.float32))
    assert queue(rank(pool, explore_share=0.0)) == [10, 20, 30]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.29, 1 / 3, 0.5, 0.9, 1.0])
def test_any_prefix_holds_its_share_of_explored_tasks(share: float) -> None:
    ranked = rank(plain(500), explore_share=share)
    explored = ranked.explored[np.argsort(ranked.priority)]
    expected = np.arange(1, 501) * share
    assert np.abs(np.cumsum(explored) - expected).max() <= 0.5 + 1e-9


def test_a_batch_of_twenty_holds_four() -> None:
    ranked = rank(plain(1000))
    explored = ranked.explored[np.argsort(ranked.priority)]
    assert explored.reshape(-1, 20).sum(axis=1).tolist() == [4] * 50


def test_explored_tasks_are_random_and_the_others_still_in_order() -> None:
    pool = make_pool(images=2000)
    ranked = rank(pool)
    order = np.argsort(ranked.priority)
    chosen = ranked.acquisition[order][~ranked.explored[order]]
    assert (np.diff(chosen) <= 0).all()
    by_chance = ranked.acquisition[ranked.explored]
    assert by_chance.mean() == pytest.approx(ranked.acquisition.mean(), rel=0.1)
    queued = ranked.acquisition[order][ranked.explored[order]]
    assert abs(np.corrcoef(np.arange(len(queued)), queued)[0, 1]) < 0.15


def test_later_rankings_explore_the_same_tasks() -> None:
    pool = make_pool(images=1000)
    first = rank(pool, seed=1)
    left = np.flatnonzero(first.priority > 0.1)  # the head of the queue has been labeled
    second = rank(permuted(pool, left), "margin", seed=2)
    before = set(first.task_ids[first.explored].tolist())
    assert len(set(second.task_ids[second.explored].tolist()) - before) <= 1


def test_all_at_random_before_the_first_training() -> None:
    ranked = rank(plain(50), "random", explore_share=1.0)
    assert ranked.explored.all()
    assert queue(ranked) != sorted(queue(ranked))


def test_a_million_tasks_keep_distinct_priorities() -> None:
    assert len(np.unique(rank(plain(1_000_000)).priority)) == 1_000_000


def test_unknown_strategy() -> None:
    with pytest.raises(SettingError, match="unknown strategy 'best'"):
        rank(plain(3), "best")


def test_a_strategy_whose_needs_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    register = acquisition.acquisition("far", asks="?", needs=frozenset({"embeddings"}), cost="none", paper="none")
    register(lambda pool, rng: np.zeros(len(pool)))
    with pytest.raises(ModelError, match="'far' needs embeddings"):
        rank(plain(3), "far")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(9.0, 0.0), (4.0, 0.0), (2.5, 0.5), (0.0, 1.0), (np.inf, 0.0), (-np.inf, 1.0), (np.nan, 1.0)],
)
def test_quantile_of(value: float, expected: float) -> None:
    acquired = np.array([1, 2, 3, 4], dtype=np.float32)
    last = Ranking(np.arange(4), acquired, acquired, np.zeros(4, np.bool_), "entropy")
    assert ranking.quantile_of(last, value) == expected


def test_quantile_of_without_a_ranking() -> None:
    assert ranking.quantile_of(rank(plain(0)), 3.0) == 0.5
    assert ranking.quantile_of(None, 3.0) == 0.5


def test_tasks_that_come_later_take_their_place() -> None:
    ranked = rank(boxes(*([[s, 0.0]] for s in (0.5, 0.6, 0.7, 0.8, 0.9))), explore_share=0.0)
    later = boxes([[0.5, 0.0]], [[0.99, 0.0]], [], [[0.75, 0.0]])
    places = ranking.place(ranked, later, np.random.default_rng(0))
    assert places.tolist() == pytest.approx([0.0, 1.0, 0.5, 0.6])


def test_later_tasks_of_a_random_queue_are_spread_even_without_boxes() -> None:
    later = Pool(np.arange(200, 300), np.zeros(101, np.int64), np.zeros((0, 2), np.float32))
    places = ranking.place(rank(plain(100), "random"), later, np.random.default_rng(0))
    assert len(set(places.tolist())) > 30


def test_later_tasks_without_a_ranking() -> None:
    assert ranking.place(None, plain(2), np.random.default_rng(0)).tolist() == [0.5, 0.5]
    assert ranking.place(rank(plain(3)), plain(0), np.random.default_rng(0)).tolist() == []
