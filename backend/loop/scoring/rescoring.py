"""A new order of the queue without new predictions: a person pinned tasks, or chose another strategy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from backend.errors import BusyError, ModelError, SettingError
from backend.labelstudio.client.tasks import IDS_PER_QUERY
from backend.loop.context import Context
from backend.loop.scoring import holdings, late_tasks, pool_ranking, push, stored_answers
from backend.loop.scoring.push import Check, is_same_score, no_check
from backend.loop.served_models import ServedModel, models_for, project_record, serving_number
from backend.queue.rq_queue import Jobs

log = logging.getLogger(__name__)

SCORING_PAUSE_S = 30.0  # before a new ranking is tried again while the pool is scored
BUSY_PAUSE_S = 5.0  # before an order is written again that found the lock taken
AT_ONCE = late_tasks.AT_ONCE  # scores per job, so that other projects have their turn before the next job


def can_rank_again(context: Context, project_id: int) -> bool:
    """Return whether the stored pool of the served version can be ranked: it is complete, and it is the accepted one.

    Otherwise a scoring has to predict the pool first.
    """
    record = project_record(context, project_id)
    if context.store.current(project_id) != context.store.serving(project_id):
        return False
    if context.store.pools.ranking(project_id, serving_number(context, project_id)) is None:
        return False
    answers = stored_answers.of_accepted(context, project_id)
    return answers.state != "scoring" and not answers.are_due(record)


def reorder(context: Context, jobs: Jobs, project_id: int, *, rank: bool) -> None:
    """Write a new order: tasks were pinned, or with `rank` the stored pool is ranked under the settings of now before.

    While a scoring of the pool is at work, a ranking waits for its end. Where the pool has to be predicted first, a
    scoring is enqueued, which ranks. If the model lacks what the strategy needs, the order stays and the status says
    why.
    """
    if rank and context.progress.scoring(project_id) is not None:
        jobs.once("reorder", project_id, 1, delay_s=SCORING_PAUSE_S)
    elif rank and not can_rank_again(context, project_id):
        jobs.once("start_scoring", project_id)
    else:
        _reorder(context, jobs, project_id, rank=rank)


def _reorder(context: Context, jobs: Jobs, project_id: int, *, rank: bool) -> None:
    try:
        with context.lock(project_id, "push") as fence:
            written = write_order(context, project_id, rank=rank, check=fence.check)
    except BusyError:
        jobs.once("reorder", project_id, int(rank), delay_s=BUSY_PAUSE_S)
    except (ModelError, SettingError) as error:
        push.note_ranking_error(context, project_id, error)
    else:
        if written >= AT_ONCE:  # more may be left; other projects have their turn first
            jobs.once("reorder", project_id, 0)


def write_order(context: Context, project_id: int, *, rank: bool, check: Check = no_check) -> int:
    """Write the scores in Label Studio that differ from the order; return how many, at most AT_ONCE.

    Regions stay as they are. The front of the queue is right first: tasks that are there, or have to go there. A task
    without a prediction is left to `late_tasks.score_new`. `check` runs before each write, and may raise. Raises
    ModelError if the model lacks what the strategy needs; then the ranking before stays.
    """
    record = project_record(context, project_id)
    models = models_for(context, record, accepted=False)
    if rank:
        pool_ranking.rank_pool(context, record, models)
        push.forget_ranking_error(context, project_id)
    order = context.store.pools.ranking(project_id, models[0].number)
    if order is None:
        return 0
    places = push.queue_places(context, project_id, order)
    held = holdings.scores(context, project_id, models[0].name)
    written = _write(context, models[0], places, _changed(places, held), check)
    log.info("project %d: wrote %d scores of the new order", project_id, written)
    return written


def _changed(places: Mapping[int, float], held: Mapping[int, float | None]) -> list[int]:
    """Return the first AT_ONCE tasks whose score has to change."""
    changed = {
        task_id: min(places[task_id], 0.0 if score is None else score)
        for task_id, score in held.items()
        if task_id in places and not is_same_score(score, places[task_id])
    }
    return sorted(changed, key=lambda task_id: (changed[task_id], task_id))[:AT_ONCE]


def _write(
    context: Context, model: ServedModel, places: Mapping[int, float], task_ids: Sequence[int], check: Check
) -> int:
    client, written = context.label_studio, 0
    for begin in range(0, len(task_ids), IDS_PER_QUERY):
        part = task_ids[begin : begin + IDS_PER_QUERY]
        stamps = {
            stamp.task_id: stamp for stamp in client.predictions.stamps_of_tasks(model.project_id, model.name, part)
        }
        for task_id in part:
            if task_id in stamps:
                check()
                client.predictions.rescore(stamps[task_id].id, places[task_id])
                written += 1
    return written
