"""The priorities of late tasks: they were scored after the ranking was made, and get a place in it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from backend import acquisition
from backend.acquisition.pool import Pool
from backend.sampling.ranking import acquired, rank
from backend.types import BoolArray, FloatArray, IntArray, Ranking

STAND_IN = "class_entropy"  # places late tasks if the strategy has no value for a single image
_WITHOUT_BOXES = {"highest": 0.0, "median": 0.5, "lowest": 1.0}  # a late task without boxes comes behind this share


def quantile_of(ranking: Ranking | None, value: float) -> float:
    """Return the priority of a task scored alone: between those of the tasks with a higher value and the others.

    With k of n ranked tasks of a higher acquisition value it is (k + 1/2) / (n + 1); see `ranking.quantiles`. It is 0.5
    without a ranking or with an empty one, and 1 for NaN, a task that could not be scored.
    """
    if math.isnan(value):
        return 1.0
    if ranking is None:
        return 0.5
    return _between(int(np.count_nonzero(ranking.acquisition > np.float32(value))), len(ranking.acquisition))


def _between(count: float, n: int) -> float:
    """Return the place behind the first `count` of n ranked tasks."""
    return (count + 0.5) / (n + 1)


def late_priorities(ranking: Ranking | None, pool: Pool, rng: np.random.Generator) -> FloatArray:
    """Return the priorities (n,) of late tasks, which were scored after the ranking was made.

    A strategy that reads boxes has no value for an image without boxes; `pool.empty` decides its priority. A strategy
    that has no value for a single image puts every late task in the middle; `stand_in` avoids that. Raises as `rank`.
    """
    if ranking is None or not acquisition.get(ranking.strategy).alone:
        return np.full(len(pool), 0.5, dtype=np.float32)
    values = acquired(pool, ranking.strategy, rng)
    has_boxes = (np.diff(pool.offsets) > 0) | ("class_probs" not in acquisition.get(ranking.strategy).needs)
    count = len(ranking.acquisition)
    without_boxes = _between(_WITHOUT_BOXES[pool.empty] * count, count)
    places = [
        quantile_of(ranking, float(value)) if measured else without_boxes
        for value, measured in zip(values, has_boxes, strict=True)
    ]
    return np.array(places, dtype=np.float32)


def stand_in(ranking: Ranking, pool: Pool) -> Ranking:
    """Return a ranking in which `late_priorities` can place late tasks: this one, or that of the pool by STAND_IN."""
    if acquisition.get(ranking.strategy).alone:
        return ranking
    return rank(pool, STAND_IN, explore_share=0.0, rng=np.random.default_rng(0))


def front_priority(ranking: Ranking, place: float) -> float:
    """Return the priority of a late task that is admitted to the front: behind the first task of the ranking.

    It is always below the ranking's second priority. Among admitted tasks, a lower `place`, the quantile in the
    ranking, comes first.
    """
    return (1.25 + place / 2) / (len(ranking.task_ids) + 1)


def with_late_tasks(ranking: Ranking, task_ids: IntArray, places: FloatArray, priority: FloatArray) -> Ranking:
    """Return the ranking with late tasks added at their priority; a task that it holds already is moved.

    Late tasks count as explored only if the whole ranking does. `places` (n,) are their quantiles. A late task gets the
    acquisition value of the task at its quantile, so that the quantiles of later tasks do not change.
    """
    descending = -np.sort(-ranking.acquisition) if len(ranking.acquisition) else np.zeros(1, dtype=np.float32)
    values = descending[np.rint(places * (len(descending) - 1)).astype(np.int64)]
    stays = ~np.isin(ranking.task_ids, task_ids)
    return Ranking(
        np.concatenate([ranking.task_ids[stays], task_ids]),
        np.concatenate([ranking.priority[stays], priority.astype(np.float32)]),
        np.concatenate([ranking.acquisition[stays], values]),
        np.concatenate([ranking.explored[stays], np.full(len(task_ids), bool(ranking.explored.all()))]),
        ranking.strategy,
        np.concatenate([_late(ranking)[stays], np.ones(len(task_ids), np.bool_)]),
    )


def _late(ranking: Ranking) -> BoolArray:
    return np.zeros(len(ranking.task_ids), np.bool_) if ranking.late is None else ranking.late


def without_tasks(ranking: Ranking, task_ids: IntArray) -> Ranking:
    """Return the ranking without some tasks."""
    stays = ~np.isin(ranking.task_ids, task_ids)
    return replace(
        ranking,
        task_ids=ranking.task_ids[stays],
        priority=ranking.priority[stays],
        acquisition=ranking.acquisition[stays],
        explored=ranking.explored[stays],
        late=None if ranking.late is None else ranking.late[stays],
    )
