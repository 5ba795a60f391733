"""The jobs: functions that rq calls by name, with ids and plain JSON. Each performs one step of `loop.cycle`."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from backend import settings as settings_table
from backend.loop.context import build
from backend.loop.cycle import Cycle
from backend.queue.rq_queue import Jobs
from backend.simulate import unit_process


@functools.cache
def cycle() -> Cycle:
    """Return the cycle that all jobs of this process use; it is built from the environment at the first call."""
    context = build(settings_table.from_env(os.environ))
    return Cycle(context, Jobs(context.redis))


def check(project_id: int) -> None:
    """Count new labels, and enqueue a training if there are enough."""
    cycle().check(project_id)


def retrain(project_id: int, forced: int) -> None:
    """Train, judge and publish a version."""
    cycle().retrain(project_id, forced)


def start_scoring(project_id: int) -> None:
    """Cut the pool into shards."""
    cycle().start_scoring(project_id)


def score_shard(project_id: int, run: int, index: int, labeled: int, task_ids: list[int]) -> None:
    """Score one shard."""
    cycle().score_shard(project_id, run, index, labeled, task_ids)


def rank_and_push(project_id: int, run: int) -> None:
    """Rank the pool, write all predictions, and switch Label Studio's queue to the version."""
    cycle().rank_and_push(project_id, run)


def reorder(project_id: int, rank_again: int) -> None:
    """Write the scores of a new order of the queue; with `rank_again` the pool is ranked again before."""
    cycle().reorder(project_id, rank_again)


def score_new(project_id: int) -> None:
    """Give late tasks their place in the queue."""
    cycle().score_new(project_id)


def review_labels(project_id: int, number: int) -> None:
    """Look for wrong labels with version `number`."""
    cycle().review_labels(project_id, number)


def delete_old(project_id: int) -> None:
    """Delete a few predictions of old versions."""
    cycle().delete_old(project_id)


def map_pool(project_id: int, number: int) -> None:
    """Draw the maps of the pool of version `number`."""
    cycle().map_pool(project_id, number)


def measure_effort(project_id: int) -> None:
    """Measure how the annotations came about that are new or changed."""
    cycle().measure_effort(project_id)


def configure(project_id: int) -> None:
    """Set the project up in Label Studio."""
    cycle().configure(project_id)


def reconcile() -> None:
    """Find the steps that were lost, in every project."""
    cycle().reconcile()


def simulate(folder: str, strategy: str, seed: int) -> None:
    """Run the missing rounds of an experiment for one strategy and seed, in a separate process as without redis."""
    unit_process.run_queued(Path(folder), strategy, seed)
