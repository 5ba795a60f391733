"""From a pool to the order of Label Studio's queue: acquisition, explore share, and a priority in [0, 1]."""

from __future__ import annotations

import math

import numpy as np

from backend import acquisition
from backend.acquisition.baseline import dice
from backend.errors import ModelError
from backend.types import BoolArray, FloatArray, IntArray, Pool, Ranking


def rank(pool: Pool, strategy: str, *, explore_share: float, rng: np.random.Generator) -> Ranking:
    """Return the ranking of a pool, row by row as the pool; priority 0 is next, 1 is last, no two alike.

    Ties fall to the lower task id. Permuting the pool permutes the ranking, nothing else. The explored tasks are spread
    evenly: any prefix of the queue holds `explore_share` of them, within one. Raises SettingError for an unknown
    strategy, ModelError where the pool lacks what the strategy needs.
    """
    values = _measure(pool, strategy, rng)
    slot = _explore_slots(len(pool), explore_share)
    explored = _explored(pool.task_ids, int(slot.sum()))
    order = np.empty(len(pool), dtype=np.int64)
    by_chance = np.flatnonzero(explored)
    order[slot] = by_chance[np.argsort(dice(pool.task_ids[by_chance]), kind="stable")]
    by_value = np.flatnonzero(~explored)
    order[~slot] = by_value[np.lexsort((pool.task_ids[by_value], -values[by_value]))]
    priority = np.empty(len(pool), dtype=np.float32)
    priority[order] = np.arange(len(pool)) / max(len(pool) - 1, 1)
    return Ranking(pool.task_ids, priority, values, explored, strategy)


def _explored(task_ids: IntArray, count: int) -> BoolArray:
    """Return which tasks chance puts into the queue: (n,) -> (n,), `count` of them.

    A fixed hash of the task id decides, so that every ranking explores the same tasks. Drawn afresh each time, nearly
    all of the pool would have been "explored" after a few rankings, and images that were in truth picked for being hard
    would pass for random ones and bias the validation set.
    """
    chosen = np.zeros(len(task_ids), dtype=np.bool_)
    chosen[np.argsort(dice(task_ids), kind="stable")[:count]] = True
    return chosen


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

    To a strategy that looks at boxes an image without any is in the middle, as it is within a ranking: alone it has no
    pool to take the median of. Raises as `rank` does.
    """
    if ranking is None:
        return np.full(len(pool), 0.5, dtype=np.float32)
    values = _measure(pool, ranking.strategy, rng)
    found = (np.diff(pool.offsets) > 0) | ("class_probs" not in acquisition.get(ranking.strategy).needs)
    places = [quantile_of(ranking, float(value)) if seen else 0.5 for value, seen in zip(values, found, strict=True)]
    return np.array(places, dtype=np.float32)


def _measure(pool: Pool, strategy: str, rng: np.random.Generator) -> FloatArray:
    function = acquisition.get(strategy)
    missing = sorted(need for need in function.needs if getattr(pool, need) is None)
    if missing:
        raise ModelError(
            f"strategy {strategy!r} needs {missing[0]}, which this model does not give", fix="choose another"
        )
    return function(pool, rng).astype(np.float32)


def _explore_slots(n: int, share: float) -> BoolArray:
    """Return which places of a queue of n chance fills: after every place i + 1, round((i + 1)·share) have been."""
    filled = np.floor(np.arange(n + 1) * share + 0.5)
    return np.diff(filled) > 0
