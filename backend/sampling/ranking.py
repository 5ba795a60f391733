"""From a pool to the order of Label Studio's queue: acquisition, batch protocol, explore share, priority in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import acquisition
from backend.acquisition.parts import pool_part
from backend.acquisition.pool import Pool
from backend.acquisition.random import dice
from backend.errors import SettingError
from backend.types import BoolArray, FloatArray, IntArray, Ranking

STAND_IN = "class_entropy"  # places tasks that come late, where the strategy has no value for one image alone
MOST_OF_CANDIDATES = 0.25  # a batch of more than this share of its candidates is hardly a selection


@dataclass(frozen=True, slots=True)
class Protocol:
    """How batches are made of acquisition values."""

    batch: int = 20  # labels between two rankings
    candidates: float = 1.0  # share of the pool that is looked at first, drawn by chance
    uncertain: float = 1.0  # share of a batch picked by value; the others are drawn from what is left
    limit: int = 0  # most images looked at first, 0: all

    def size(self, n: int) -> int:
        """Return how many of n images are looked at first.

        >>> Protocol(candidates=0.2).size(1001), Protocol(limit=100).size(1001), Protocol().size(3)
        (201, 100, 3)
        """
        looked = math.ceil(n * self.candidates - 1e-9)
        return min(looked, self.limit) if self.limit else looked


_NOTHING = {"highest": 0.0, "median": 0.5, "lowest": 1.0}  # the priority of a late task without boxes

# name -> (candidates, uncertain)
_SHARES = {"top": (1.0, 1.0), "datahunt1": (0.2, 1.0), "datahunt2": (0.2, 0.5)}
TOP = Protocol()


def protocol(name: str, *, batch: int, uncertain_share: float = 1.0, pool_limit: int = 0) -> Protocol:
    """Return the protocol of that name; `uncertain_share` lowers its share of picks by value further.

    Raises SettingError that lists the valid names.
    """
    if name not in _SHARES:
        raise SettingError(f"unknown protocol {name!r}", where="PROTOCOL", fix=f"use one of {', '.join(_SHARES)}")
    candidates, uncertain = _SHARES[name]
    return Protocol(batch, candidates, min(uncertain, uncertain_share), pool_limit)


def rank(
    pool: Pool, strategy: str, *, explore_share: float, rng: np.random.Generator, protocol: Protocol = TOP
) -> Ranking:
    """Return the ranking of a pool, row by row as the pool; priority 0 is next, 1 is last, no two alike.

    Ties fall to the lower task id. Permuting the pool permutes the ranking, nothing else. The explored tasks are spread
    evenly: any prefix of the queue holds `explore_share` of them, within one; the protocol orders the others. Raises
    SettingError for an unknown strategy, ModelError where the pool lacks what the strategy needs.
    """
    salts = rng.spawn(1)[0].integers(2**63, size=2)  # leaves `rng` as it is, which `place` starts from too
    looked = draw(pool.task_ids, protocol.size(len(pool)), int(salts[0]))
    values = _values(pool, strategy, looked, rng)
    order, explored = _order(pool.task_ids, values, looked, explore_share, protocol, int(salts[1]))
    return Ranking(pool.task_ids, _quantiles(order), values, explored, strategy)


def jointly(
    parts: Sequence[Ranking], strategy: str, *, explore_share: float, rng: np.random.Generator, protocol: Protocol = TOP
) -> Ranking:
    """Return one ranking of all that was ranked by several tags, each by itself and without an explore share.

    A task's value is 1 - the lowest of its priorities: one that is useful for any tag comes early, and the queue takes
    from the front of each tag's own in turn. The mean would put what is new to one tag and old to another in the
    middle. Of the protocol only batches and the uncertain share are left to apply; `strategy` is the name it goes by.
    """
    task_ids, values = together([part.task_ids for part in parts], [1 - part.priority for part in parts])
    salts = rng.spawn(1)[0].integers(2**63, size=2)
    looked = np.ones(len(task_ids), dtype=np.bool_)
    order, explored = _order(task_ids, values, looked, explore_share, protocol, int(salts[1]))
    return Ranking(task_ids, _quantiles(order), values, explored, strategy)


def together(task_ids: Sequence[IntArray], values: Sequence[FloatArray]) -> tuple[IntArray, FloatArray]:
    """Return all tasks (n,), ascending, and the highest value of each (n,).

    >>> ids, best = together([np.array([7, 3]), np.array([3, 5])], [np.float32([.25, .5]), np.float32([.75, 0])])
    >>> ids.tolist(), best.tolist()
    ([3, 5, 7], [0.75, 0.0, 0.25])
    """
    every, row = np.unique(np.concatenate([np.zeros(0, np.int64), *task_ids]), return_inverse=True)
    best = np.zeros(len(every), dtype=np.float32)
    np.maximum.at(best, row, np.concatenate([np.zeros(0, np.float32), *values]))
    return every, best


def _order(
    task_ids: IntArray, values: FloatArray, looked: BoolArray, explore_share: float, protocol: Protocol, salt: int
) -> tuple[IntArray, BoolArray]:
    """Return the rows in the order of the queue, and which of them chance chose."""
    slot = _spread(len(task_ids), explore_share)
    explored = draw(task_ids, int(slot.sum()))
    order = np.empty(len(task_ids), dtype=np.int64)
    by_chance = np.flatnonzero(explored)
    order[slot] = by_chance[shuffled(task_ids[by_chance])]
    rest = np.flatnonzero(~explored)
    first = top(values[rest], task_ids[rest], looked[rest])
    mix = mixed(first, shuffled(task_ids[rest], salt), batch=protocol.batch, share=protocol.uncertain)
    order[~slot] = rest[mix]
    return order, explored


def _quantiles(order: IntArray) -> FloatArray:
    """Return each row's place in an order as a quantile; no two alike."""
    priority = np.empty(len(order), dtype=np.float32)
    priority[order] = np.arange(len(order)) / max(len(order) - 1, 1)
    return priority


def top(values: FloatArray, task_ids: IntArray, looked: BoolArray | None = None) -> IntArray:
    """Return the rows (n,) by falling value, ties by rising task id; those not `looked` at come behind.

    With all looked at, the first B are the pure top-B; with a random share, DataHunt 1 or a pool size limit.

    >>> top(np.float32([.1, .9, .5, .9]), np.array([4, 3, 2, 1])).tolist()
    [3, 1, 2, 0]
    >>> top(np.float32([.1, .9, .5, .9]), np.array([4, 3, 2, 1]), np.array([True, False, True, False])).tolist()
    [2, 0, 3, 1]
    """
    behind = np.zeros(len(values), dtype=np.bool_) if looked is None else ~looked
    return np.asarray(np.lexsort((task_ids, -values, behind)))


def mixed(by_value: IntArray, by_chance: IntArray, *, batch: int, share: float) -> IntArray:
    """Return the rows batch by batch: `share` of each from the front of `by_value`, then the others by chance.

    Each order holds all n rows. The two kinds are spread evenly over the batch. A share of one half of DataHunt 1's
    order is DataHunt 2; 0 is pure chance and 1 pure value, the sweep of uncertain shares on CIFAR-10.

    >>> mixed(np.arange(8), np.arange(8)[::-1], batch=4, share=.5).tolist()
    [7, 0, 6, 1, 5, 2, 4, 3]
    """
    if share >= 1:
        return by_value
    taken = np.zeros(len(by_value), dtype=np.bool_)
    valued, drawn = _untaken(by_value, taken), _untaken(by_chance, taken)
    order = np.empty(len(by_value), dtype=np.int64)
    for begin in range(0, len(order), batch):
        rows = order[begin : begin + batch]
        chance = _spread(len(rows), 1 - share)
        for which, source in ((~chance, valued), (chance, drawn)):  # the batch's top first, then from what is left
            rows[which] = [next(source) for _ in range(int(which.sum()))]
    return order


def _untaken(order: IntArray, taken: BoolArray) -> Iterator[int]:
    for row in order.tolist():
        if not taken[row]:
            taken[row] = True
            yield row


def shuffled(task_ids: IntArray, salt: int = 0) -> IntArray:
    """Return the rows in an order that chance decides by task id: the same tasks, the same order."""
    return np.argsort(dice(task_ids, salt), kind="stable")


def draw(task_ids: IntArray, count: int, salt: int = 0) -> BoolArray:
    """Return which tasks chance chooses: (n,) -> (n,), `count` of them.

    A fixed hash of the task id decides, so that every ranking explores the same tasks. Drawn afresh each time, nearly
    all of the pool would have been "explored" after a few rankings, and images that were in truth picked for being hard
    would pass for random ones and bias the validation set. What is drawn with another salt is no such sample.
    """
    chosen = np.zeros(len(task_ids), dtype=np.bool_)
    chosen[shuffled(task_ids, salt)[:count]] = True
    return chosen


def crowded(batch: int, candidates: int) -> str:
    """Return a warning where a batch takes more than a quarter of its candidates, else nothing.

    >>> crowded(25, 100)
    ''
    >>> crowded(26, 100)
    'a batch of 26 out of 100 candidates leaves almost nothing to select: label less at a time, or look at more'
    """
    if batch <= MOST_OF_CANDIDATES * candidates:
        return ""
    return (
        f"a batch of {batch} out of {candidates} candidates leaves almost nothing to select: "
        "label less at a time, or look at more"
    )


def quantile_of(ranking: Ranking | None, value: float) -> float:
    """Return the priority of a task scored alone: the share of the ranking that its acquisition value leaves before it.

    Always finite and in [0, 1]; 0.5 against no ranking or an empty one; a NaN counts as "could not be scored", 1.
    """
    if math.isnan(value):
        return 1.0
    if ranking is None or not len(ranking.acquisition):
        return 0.5
    return float(np.count_nonzero(ranking.acquisition > np.float32(value)) / len(ranking.acquisition))


def place(ranking: Ranking | None, pool: Pool, rng: np.random.Generator) -> FloatArray:
    """Return priorities (n,) for tasks scored after the ranking was made, into which they are to be sorted.

    To a strategy that looks at boxes an image without any is where `pool.empty` puts it within a ranking: alone it has
    no others to be measured by. To a strategy that has no value for one image alone every task is in the middle: see
    `stand_in`.
    Raises as `rank` does.
    """
    if ranking is None or not acquisition.get(ranking.strategy).alone:
        return np.full(len(pool), 0.5, dtype=np.float32)
    values = _measure(pool, ranking.strategy, rng)
    found = (np.diff(pool.offsets) > 0) | ("class_probs" not in acquisition.get(ranking.strategy).needs)
    nothing = _NOTHING[pool.empty]
    places = [
        quantile_of(ranking, float(value)) if seen else nothing for value, seen in zip(values, found, strict=True)
    ]
    return np.array(places, dtype=np.float32)


def stand_in(ranking: Ranking, pool: Pool) -> Ranking:
    """Return what late tasks can be placed in: the ranking itself, or the ranked pool by STAND_IN."""
    if acquisition.get(ranking.strategy).alone:
        return ranking
    return rank(pool, STAND_IN, explore_share=0.0, rng=np.random.default_rng(0))


def at_front(ranking: Ranking, place: float) -> float:
    """Return the priority of a late task that enters the front: right behind the queue's very first.

    The lower its `place`, the further in front among its like; always below the ranking's second priority.
    """
    return place / (2 * max(len(ranking.task_ids), 1))


def extended(ranking: Ranking, task_ids: IntArray, places: FloatArray, priority: FloatArray) -> Ranking:
    """Return the ranking with late tasks added at their priority; one that is in it already gets another place.

    They count as chosen by chance only if the whole ranking was. `places` are their quantiles: each gets the value of
    the task that is there, so that the quantiles of still later ones stay what they were.
    """
    known = -np.sort(-ranking.acquisition) if len(ranking.acquisition) else np.zeros(1, dtype=np.float32)
    values = known[np.rint(places * (len(known) - 1)).astype(np.int64)]
    kept = ~np.isin(ranking.task_ids, task_ids)
    return Ranking(
        np.concatenate([ranking.task_ids[kept], task_ids]),
        np.concatenate([ranking.priority[kept], priority.astype(np.float32)]),
        np.concatenate([ranking.acquisition[kept], values]),
        np.concatenate([ranking.explored[kept], np.full(len(task_ids), bool(ranking.explored.all()))]),
        ranking.strategy,
    )


def without(ranking: Ranking, task_ids: IntArray) -> Ranking:
    """Return the ranking but for some tasks."""
    kept = ~np.isin(ranking.task_ids, task_ids)
    return replace(
        ranking,
        task_ids=ranking.task_ids[kept],
        priority=ranking.priority[kept],
        acquisition=ranking.acquisition[kept],
        explored=ranking.explored[kept],
    )


def _values(pool: Pool, strategy: str, looked: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Measure the candidates by themselves, as if they were the pool, and then the others."""
    if looked.all():
        return _measure(pool, strategy, rng)
    values = np.empty(len(pool), dtype=np.float32)
    for rows in (np.flatnonzero(looked), np.flatnonzero(~looked)):
        values[rows] = _measure(pool_part(pool, rows), strategy, rng)
    return values


def _measure(pool: Pool, strategy: str, rng: np.random.Generator) -> FloatArray:
    return acquisition.get(strategy)(pool, rng).astype(np.float32)


def _spread(n: int, share: float) -> BoolArray:
    """Return which of n places chance fills: after every place i + 1, round((i + 1)·share) have been."""
    filled = np.floor(np.arange(n + 1) * share + 0.5)
    return np.diff(filled) > 0
