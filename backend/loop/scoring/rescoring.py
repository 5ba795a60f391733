"""A new order of the queue without new predictions: a person pinned tasks, or chose another strategy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from backend.labelstudio.client.tasks import IDS_PER_QUERY
from backend.loop.context import Context
from backend.loop.scoring import holdings, pool_ranking, stored_answers
from backend.loop.scoring.push import Check, forget_ranking_error, is_same_score, no_check, queue_places
from backend.loop.served_models import ServedModel, models_for, project_record, serving_number

log = logging.getLogger(__name__)

AT_ONCE = 256  # scores per job; one takes about 70 ms, and other projects have their turn before the next job


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


def reorder(context: Context, project_id: int, *, rank: bool, check: Check = no_check) -> int:
    """Write the scores in Label Studio that differ from the order; return how many, at most AT_ONCE.

    With `rank` the stored pool is ranked under the settings of now before. Regions stay as they are. The front of the
    queue is right first: tasks that are there, or have to go there. A task without a prediction is left to
    `late_tasks.score_new`. `check` runs before each write, and may raise. Raises ModelError if the model lacks what the
    strategy needs; then the ranking before stays.
    """
    record = project_record(context, project_id)
    models = models_for(context, record, accepted=False)
    if rank:
        pool_ranking.rank_pool(context, record, models)
        forget_ranking_error(context, project_id)
    order = context.store.pools.ranking(project_id, models[0].number)
    if order is None:
        return 0
    places = queue_places(context, project_id, order)
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
