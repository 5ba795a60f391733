"""Ranking: order, explore share and priorities."""

from __future__ import annotations

import numpy as np
import pytest

from backend import acquisition
from backend.acquisition import registry
from backend.acquisition.pool import Pool
from backend.errors import ModelError, SettingError
from backend.sampling import ranking
from backend.sampling.ranking import TOP, Protocol
from backend.types import FloatArray, Ranking
from tests.acquisition.test_contract import boxes, make_pool, permuted


def rank(
    pool: Pool, strategy: str = "entropy", explore_share: float = 0.2, seed: int = 0, protocol: Protocol = TOP
) -> Ranking:
    rng = np.random.default_rng(seed)
    return ranking.rank(pool, strategy, explore_share=explore_share, rng=rng, protocol=protocol)


def queue(ranked: Ranking) -> list[int]:
    """Return the task ids in the order of Label Studio's queue."""
    return [int(task) for task in ranked.task_ids[np.argsort(ranked.priority)]]


def plain(n: int) -> Pool:
    return Pool(np.arange(1, n + 1), np.zeros(n + 1, np.int64), np.zeros((0, 2), np.float32))


def test_most_uncertain_first() -> None:
    ranked = rank(boxes([[0.9, 0.0]], [[0.5, 0.0]], [[0.7, 0.0]]), explore_share=0.0)
    assert queue(ranked) == [2, 3, 1]
    assert ranked.priority.tolist() == [0.75, 0.25, 0.5]
    assert ranked.strategy == "entropy"
    assert not ranked.explored.any()


FAMILIES = (
    "entropy",
    "class_entropy",
    "random",
    "margin",
)  # the contract of all is tests/acquisition/test_contract.py's


@pytest.mark.parametrize("strategy", FAMILIES)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_priorities_are_distinct_quantiles(strategy: str, n: int) -> None:
    ranked = rank(make_pool(images=n), strategy)
    assert sorted(ranked.priority.tolist()) == pytest.approx(np.arange(1, n + 1) / (n + 1))
    assert len(set(ranked.priority.tolist())) == n
    assert ranked.acquisition.shape == ranked.explored.shape == (n,)
    assert np.isfinite(ranked.acquisition).all()


@pytest.mark.parametrize("strategy", FAMILIES)
@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(),
        ranking.protocol("datahunt1", batch=7),
        ranking.protocol("datahunt2", batch=7),
        ranking.protocol("top", batch=7, uncertain_share=0.3, pool_limit=25),
    ],
)
def test_permuting_the_pool_permutes_the_ranking(strategy: str, protocol: Protocol) -> None:
    pool = make_pool(images=60, weights=[1, 2, 1, 1, 1])
    order = np.random.default_rng(2).permutation(60)
    ranked, of_permuted = (
        rank(pool, strategy, protocol=protocol),
        rank(permuted(pool, order), strategy, protocol=protocol),
    )
    assert (of_permuted.task_ids == ranked.task_ids[order]).all()
    assert (of_permuted.priority == ranked.priority[order]).all()
    assert (of_permuted.explored == ranked.explored[order]).all()


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
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    register = acquisition.acquisition("far", asks="?", needs=frozenset({"embeddings"}), cost="none", paper="none")
    register(lambda pool, rng: np.zeros(len(pool)))
    with pytest.raises(ModelError, match="'far' needs embeddings"):
        rank(plain(3), "far")


# Batch protocols


def by_value(n: int) -> Pool:
    """Return a pool whose task i has entropy rising with i."""
    return boxes(*([[0.5 * (i + 1) / n, 0.0]] for i in range(n)))


def test_datahunt1_takes_the_top_of_a_random_fifth() -> None:
    """|U| = 50, |D| = 10, B = 4: the four highest of D, and D before all others."""
    ranked = rank(by_value(50), explore_share=0.0, protocol=ranking.protocol("datahunt1", batch=4))
    order = queue(ranked)
    fifth, others = order[:10], order[10:]
    assert fifth == sorted(fifth, reverse=True)
    assert others == sorted(others, reverse=True)
    assert max(others) > min(fifth), "the fifth is random, not the top of all"
    assert (
        fifth
        != queue(rank(by_value(50), explore_share=0.0, seed=1, protocol=ranking.protocol("datahunt1", batch=4)))[:10]
    )


def test_datahunt2_takes_half_of_a_batch_by_chance() -> None:
    """B = 4: the two highest of D, and two random ones of all others."""
    pool = by_value(50)
    fifth = queue(rank(pool, explore_share=0.0, protocol=ranking.protocol("datahunt1", batch=4)))[:10]
    ranked = queue(rank(pool, explore_share=0.0, protocol=ranking.protocol("datahunt2", batch=4)))
    assert sorted(ranked) == list(range(1, 51))
    assert ranked[1] == fifth[0]
    assert ranked[3] == fifth[1]
    drawn = [
        queue(rank(pool, explore_share=0.0, seed=s, protocol=ranking.protocol("datahunt2", batch=4)))[0]
        for s in range(40)
    ]
    assert np.mean(drawn) == pytest.approx(25, abs=6)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_batch_holds_its_share_of_uncertain_picks(share: float) -> None:
    values = np.arange(40)[::-1]
    chance = np.random.default_rng(0).permutation(40)
    order = ranking.mixed(values, chance, batch=8, share=share)
    assert sorted(order.tolist()) == list(range(40))
    count = round(8 * share)
    assert set(range(39, 39 - count, -1)) <= set(order[:8].tolist())
    left = [row for row in chance.tolist() if row < 40 - count]
    assert set(order[:8].tolist()) == set(range(39, 39 - count, -1)) | set(left[: 8 - count])


def test_uncertain_share_of_nothing_is_chance() -> None:
    chance = np.array([2, 0, 1])
    assert ranking.mixed(np.array([0, 1, 2]), chance, batch=2, share=0.0).tolist() == [2, 0, 1]
    assert ranking.mixed(np.zeros(0, np.int64), np.zeros(0, np.int64), batch=2, share=0.5).tolist() == []


def test_a_pool_limit_ranks_some_and_scores_the_rest_behind() -> None:
    ranked = rank(by_value(50), explore_share=0.0, protocol=Protocol(limit=12))
    order = queue(ranked)
    assert order[:12] == sorted(order[:12], reverse=True)
    assert order[12:] == sorted(order[12:], reverse=True)
    assert (ranked.acquisition > 0).all(), "the rest has its scores too"


def test_the_strategy_gets_the_candidates_as_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[list[int]] = []
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))

    def look(pool: Pool, rng: np.random.Generator) -> FloatArray:
        pools.append(sorted(pool.task_ids.tolist()))
        assert len(pool.class_probs) == int(pool.offsets[-1])
        assert (pool.class_probs[:, 0] == np.repeat(0.5 * pool.task_ids / 30, 1).astype(np.float32)).all()
        return np.zeros(len(pool), dtype=np.float32)

    acquisition.acquisition("looks", asks="?", cost="none", paper="none")(look)
    rank(by_value(30), "looks", protocol=Protocol(limit=10))
    assert [len(ids) for ids in pools] == [10, 20]
    assert sorted(pools[0] + pools[1]) == list(range(1, 31))


def test_explored_tasks_stay_the_same_under_every_protocol() -> None:
    pool = make_pool(images=100)
    explored = [
        rank(pool, protocol=ranking.protocol(name, batch=10)).explored.tolist()
        for name in ("top", "datahunt1", "datahunt2")
    ]
    assert explored[0] == explored[1] == explored[2]


def test_unknown_protocol() -> None:
    with pytest.raises(SettingError, match=r"unknown protocol 'best'.*top, datahunt1, datahunt2"):
        ranking.protocol("best", batch=20)


def test_a_batch_of_most_candidates_is_warned_of() -> None:
    assert ranking.crowding_warning(20, 80) == ""
    assert "21 out of 80" in ranking.crowding_warning(21, 80)
