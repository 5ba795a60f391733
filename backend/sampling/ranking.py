"""From a pool to the order of Label Studio's queue: acquisition, batch protocol, explore share, priority in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backend import acquisition
from backend.acquisition.parts import pool_part
from backend.acquisition.pool import Pool
from backend.acquisition.random import dice
from backend.errors import SettingError
from backend.types import BoolArray, FloatArray, IntArray, Ranking

MAX_SHARE_OF_CANDIDATES = 0.25  # a batch of a larger share of its candidates is hardly a selection


@dataclass(frozen=True, slots=True)
class Protocol:
    """How batches are filled by acquisition values."""

    batch: int = 20  # labels between two rankings
    candidates: float = 1.0  # share of the pool, drawn at random, that is ranked first
    uncertain: float = 1.0  # share of a batch picked by value; the others are drawn at random
    limit: int = 0  # highest number of candidates, 0: no limit

    def size(self, n: int) -> int:
        """Return the number of candidates among n images.

        >>> Protocol(candidates=0.2).size(1001), Protocol(limit=100).size(1001), Protocol().size(3)
        (201, 100, 3)
        """
        count = math.ceil(n * self.candidates - 1e-9)
        return min(count, self.limit) if self.limit else count


# name -> (candidates, uncertain)
_SHARES = {"top": (1.0, 1.0), "datahunt1": (0.2, 1.0), "datahunt2": (0.2, 0.5)}
TOP = Protocol()


def protocol(name: str, *, batch: int, uncertain_share: float = 1.0, pool_limit: int = 0) -> Protocol:
    """Return the protocol with this name; a lower `uncertain_share` replaces the protocol's own share.

    Raises SettingError that lists the valid names.
    """
    if name not in _SHARES:
        raise SettingError(f"unknown protocol {name!r}", where="PROTOCOL", fix=f"use one of {', '.join(_SHARES)}")
    candidates, uncertain = _SHARES[name]
    return Protocol(batch, candidates, min(uncertain, uncertain_share), pool_limit)


def rank(
    pool: Pool, strategy: str, *, explore_share: float, rng: np.random.Generator, protocol: Protocol = TOP
) -> Ranking:
    """Return the ranking of a pool, in the pool's row order; the lowest priority is next, all are different.

    Ties go to the lower task id. The order of the pool does not change any task's priority. The explored tasks are
    spread evenly: their number in any prefix of the queue is `explore_share` of its length, within one. The protocol
    orders the others. Raises SettingError for an unknown strategy, ModelError if the pool lacks what it needs.
    """
    # A child generator, because `late_priorities` starts from the same state of `rng`.
    salts = rng.spawn(1)[0].integers(2**63, size=2)
    is_candidate = draw(pool.task_ids, protocol.size(len(pool)), int(salts[0]))
    values = _values(pool, strategy, is_candidate, rng)
    order, explored = _order(pool.task_ids, values, is_candidate, explore_share, protocol, int(salts[1]))
    return Ranking(pool.task_ids, quantiles(order), values, explored, strategy)


def rank_jointly(
    parts: Sequence[Ranking], strategy: str, *, explore_share: float, rng: np.random.Generator, protocol: Protocol = TOP
) -> Ranking:
    """Return one ranking from those of several tags, which were made without an explore share.

    A task's value is 1 − the lowest of its priorities. So a task that is useful for one tag comes early, and the queue
    takes tasks from the fronts of all tags in turn. With the mean, a task that is new to one tag and useless to another
    would land in the middle. Only the batch size and the uncertain share of the protocol are applied. `strategy` is the
    name in the result.
    """
    task_ids, values = best_values([part.task_ids for part in parts], [1 - part.priority for part in parts])
    salts = rng.spawn(1)[0].integers(2**63, size=2)
    is_candidate = np.ones(len(task_ids), dtype=np.bool_)
    order, explored = _order(task_ids, values, is_candidate, explore_share, protocol, int(salts[1]))
    return Ranking(task_ids, quantiles(order), values, explored, strategy)


def best_values(task_ids: Sequence[IntArray], values: Sequence[FloatArray]) -> tuple[IntArray, FloatArray]:
    """Return the union of the tasks (n,), ascending, and the highest value of each task (n,).

    >>> ids, best = best_values([np.array([7, 3]), np.array([3, 5])], [np.float32([.25, .5]), np.float32([.75, 0])])
    >>> ids.tolist(), best.tolist()
    ([3, 5, 7], [0.75, 0.0, 0.25])
    """
    every, row = np.unique(np.concatenate([np.zeros(0, np.int64), *task_ids]), return_inverse=True)
    best = np.zeros(len(every), dtype=np.float32)
    np.maximum.at(best, row, np.concatenate([np.zeros(0, np.float32), *values]))
    return every, best


def _order(
    task_ids: IntArray, values: FloatArray, is_candidate: BoolArray, explore_share: float, protocol: Protocol, salt: int
) -> tuple[IntArray, BoolArray]:
    """Return the rows in queue order, and which rows were drawn at random."""
    is_random_place = _spread(len(task_ids), explore_share)
    explored = draw(task_ids, int(is_random_place.sum()))
    order = np.empty(len(task_ids), dtype=np.int64)
    random_rows = np.flatnonzero(explored)
    order[is_random_place] = random_rows[shuffled(task_ids[random_rows])]
    others = np.flatnonzero(~explored)
    by_value = top(values[others], task_ids[others], is_candidate[others])
    order_of_others = mixed(by_value, shuffled(task_ids[others], salt), batch=protocol.batch, share=protocol.uncertain)
    order[~is_random_place] = others[order_of_others]
    return order, explored


def quantiles(order: IntArray) -> FloatArray:
    """Return each row's place in an order as a quantile: place k of n, from 1, has k / (n + 1). All are different.

    Label Studio shows it as a percentage, so 0.5% stands at a task among the first 0.5% of the queue. Neither 0 nor 1
    is taken: pinned tasks find room before the first place and behind the last one.

    >>> quantiles(np.array([2, 0, 1])).tolist()
    [0.5, 0.75, 0.25]
    """
    priority = np.empty(len(order), dtype=np.float32)
    priority[order] = np.arange(1, len(order) + 1) / (len(order) + 1)
    return priority


def top(values: FloatArray, task_ids: IntArray, is_candidate: BoolArray | None = None) -> IntArray:
    """Return the rows (n,) by falling value, ties by rising task id; rows that are no candidates come last.

    If all rows are candidates, the first B are the pure top-B. A random share of candidates gives DataHunt 1 or a limit
    of the pool size.

    >>> top(np.float32([.1, .9, .5, .9]), np.array([4, 3, 2, 1])).tolist()
    [3, 1, 2, 0]
    >>> top(np.float32([.1, .9, .5, .9]), np.array([4, 3, 2, 1]), np.array([True, False, True, False])).tolist()
    [2, 0, 3, 1]
    """
    is_behind = np.zeros(len(values), dtype=np.bool_) if is_candidate is None else ~is_candidate
    return np.asarray(np.lexsort((task_ids, -values, is_behind)))


def mixed(by_value: IntArray, by_chance: IntArray, *, batch: int, share: float) -> IntArray:
    """Return the rows batch by batch: `share` of each batch from the front of `by_value`, the others from `by_chance`.

    Each order holds all n rows. Both kinds are spread evenly over the batch. With share = 1/2 and the order of DataHunt
    1 this is DataHunt 2; 0 is random selection, and 1 is selection by value alone.

    >>> mixed(np.arange(8), np.arange(8)[::-1], batch=4, share=.5).tolist()
    [7, 0, 6, 1, 5, 2, 4, 3]
    """
    if share >= 1:
        return by_value
    is_placed = np.zeros(len(by_value), dtype=np.bool_)
    valued, drawn = _unplaced(by_value, is_placed), _unplaced(by_chance, is_placed)
    order = np.empty(len(by_value), dtype=np.int64)
    for begin in range(0, len(order), batch):
        rows = order[begin : begin + batch]
        is_random_place = _spread(len(rows), 1 - share)
        # First the batch's top rows, then random rows among those that are left.
        for here, source in ((~is_random_place, valued), (is_random_place, drawn)):
            rows[here] = [next(source) for _ in range(int(here.sum()))]
    return order


def _unplaced(order: IntArray, is_placed: BoolArray) -> Iterator[int]:
    for row in order.tolist():
        if not is_placed[row]:
            is_placed[row] = True
            yield row


def shuffled(task_ids: IntArray, salt: int = 0) -> IntArray:
    """Return the rows in a pseudo-random order by task id: the same tasks always have the same order."""
    return np.argsort(dice(task_ids, salt), kind="stable")


def draw(task_ids: IntArray, count: int, salt: int = 0) -> BoolArray:
    """Return which `count` tasks are drawn at random: (n,) -> (n,).

    A fixed hash of the task id decides, so every ranking explores the same tasks. With a fresh draw each time, nearly
    the whole pool would count as explored after a few rankings. Then images that a strategy picked as hard would count
    as random, and bias the validation set. A draw with another salt is no sample for the validation set.
    """
    is_drawn = np.zeros(len(task_ids), dtype=np.bool_)
    is_drawn[shuffled(task_ids, salt)[:count]] = True
    return is_drawn


def crowding_warning(batch: int, candidates: int) -> str:
    """Return a warning if a batch takes more than a quarter of its candidates, else an empty text.

    >>> crowding_warning(25, 100)
    ''
    >>> crowding_warning(26, 100)
    'a batch of 26 out of 100 candidates leaves almost nothing to select: label less at a time, or look at more'
    """
    if batch <= MAX_SHARE_OF_CANDIDATES * candidates:
        return ""
    return (
        f"a batch of {batch} out of {candidates} candidates leaves almost nothing to select: "
        "label less at a time, or look at more"
    )


def _values(pool: Pool, strategy: str, is_candidate: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Measure the candidates as a pool of their own, and the others as another pool."""
    if is_candidate.all():
        return acquired(pool, strategy, rng)
    values = np.empty(len(pool), dtype=np.float32)
    for rows in (np.flatnonzero(is_candidate), np.flatnonzero(~is_candidate)):
        values[rows] = acquired(pool_part(pool, rows), strategy, rng)
    return values


def acquired(pool: Pool, strategy: str, rng: np.random.Generator) -> FloatArray:
    """Return the acquisition values of a pool (n,). Raises as `rank`."""
    return acquisition.get(strategy)(pool, rng).astype(np.float32)


def _spread(n: int, share: float) -> BoolArray:
    """Return which of n places are filled at random (n,): round(k·share) of the first k places, for every k."""
    filled = np.floor(np.arange(n + 1) * share + 0.5)
    return np.diff(filled) > 0
