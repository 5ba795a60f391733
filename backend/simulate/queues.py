"""The order in which the simulated annotator gets the unlabeled tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backend.policy import queue_order
from backend.sampling import ranking
from backend.settings import Settings
from backend.simulate.simulated_pool import Knowledge, Scored, gather
from backend.types import IntArray


@dataclass(frozen=True, slots=True)
class Queue:
    """The order of the unlabeled tasks, with the tasks that were placed at random."""

    order: tuple[int, ...]
    explored: frozenset[int]
    losses: Mapping[int, float] = field(default_factory=dict)
    unranked: str = ""
    score_s: float = 0.0
    rank_s: float = 0.0


def by_chance(task_ids: IntArray) -> Queue:
    """Return the random queue of tasks (n,), as before the first training."""
    order = task_ids[ranking.shuffled(task_ids)].tolist()
    return Queue(tuple(order), frozenset(order))


def by_first_batch(knowledge: Knowledge, first: str, settings: Settings, project_id: int) -> Queue:
    """Return the queue before the first training, as the first batch `first` ranks it by the base weights."""
    started = time.perf_counter()
    scored = gather(knowledge, first, settings)
    ended = time.perf_counter()
    return by_strategy(scored, first, settings, project_id, number=0, score_s=ended - started)


def by_strategy(
    scored: Scored, strategy: str, settings: Settings, project_id: int, *, number: int, score_s: float
) -> Queue:
    """Return the queue as version `number` ranks it; raises ModelError if the pool lacks what the strategy needs."""
    started = time.perf_counter()
    ranked = ranking.rank(
        scored.pool,
        strategy,
        explore_share=settings.explore_share,
        rng=queue_order.chance(settings, project_id, number),
        protocol=queue_order.protocol(settings),
    )
    return Queue(
        tuple(ranked.task_ids[np.argsort(ranked.priority, kind="stable")].tolist()),
        frozenset(ranked.task_ids[ranked.explored].tolist()),
        scored.losses,
        score_s=score_s,
        rank_s=time.perf_counter() - started,
    )
