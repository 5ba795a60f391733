"""Late tasks: new tasks get a place in the ranking, and lost predictions are written again from the store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from backend import acquisition
from backend.acquisition.aggregation import pool_of
from backend.evaluation.calibration import calibrated
from backend.labelstudio.client.connection import PredictionRow
from backend.loop.context import Context
from backend.loop.scoring import control_tasks, holdings, push, stored_answers
from backend.loop.scoring.push import LAST, Check, encode, flip, no_check
from backend.loop.scoring.scoring import predict_shards, save_shards, shard_size, stored_predictions
from backend.loop.scoring.strategy_inputs import pool_for
from backend.loop.served_models import ServedModel, models_for, project_record, serving_number
from backend.sampling import late_places, stream_admission
from backend.settings import Settings
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import PoolShard, ProjectRecord
from backend.types import IntArray, Prediction, Ranking, Task

AT_ONCE = SHARD_TASKS  # tasks per job, so that other projects have their turn before the next job
_MIDDLE = 0.5  # the priority of a task that cannot be compared with the ranked ones


def score_new(context: Context, project_id: int, check: Check = no_check) -> int:
    """Write the predictions that the served version's queue lacks; return how many were written.

    A task that is new, or shows another image since, is scored and placed among the ranked ones. A prediction that was
    deleted, or has another score, is written from the store. Each kind is limited to AT_ONCE tasks. Nothing is written
    if the pool is not ranked yet or outdated, because the next ranking has all tasks. `check` runs before each write,
    and may raise.
    """
    record = project_record(context, project_id)
    order = context.store.pools.ranking(project_id, serving_number(context, project_id))
    if order is None:
        return 0
    models = models_for(context, record, accepted=False)
    if stored_answers.of(context, models).outdated(models):
        return 0
    gaps = holdings.gaps(context, models, order).first(AT_ONCE)
    settings = context.project_settings(record)
    created = _restore(context, settings, models, order, gaps.unplaced, check)
    created += _score(context, record, models, order, gaps.unscored, check)
    if handled := {task.id for task in (*gaps.unplaced, *gaps.unscored)}:
        # Tasks whose score was the quality of their labels.
        marked = context.store.state.marks(project_id, models[0].number)
        if marked & handled:
            context.store.state.save_marks(project_id, models[0].number, marked - handled)
        flip(context, project_id, models[0].name, check)
    return created


def _restore(
    context: Context,
    settings: Settings,
    models: Sequence[ServedModel],
    order: Ranking,
    tasks: Sequence[Task],
    check: Check,
) -> int:
    """Write the stored predictions of tasks."""
    model = models[0]
    places = push.queue_places(context, model.project_id, order)
    blanks = control_tasks.drawn_for(context, model)

    def row(task: Task) -> PredictionRow:
        """Return a task's stored prediction with its place in the ranking."""
        predictions = stored_predictions(context, models, task)
        regions = () if task.id in blanks else encode(settings, models, task.id, predictions, task)
        return PredictionRow(task.id, places.get(task.id, LAST), regions)

    present = context.label_studio.predictions.stamps_of_tasks(
        model.project_id, model.name, [task.id for task in tasks]
    )
    return push.write_predictions(context, model, map(row, tasks), present, check) if tasks else 0


def _score(
    context: Context,
    record: ProjectRecord,
    models: Sequence[ServedModel],
    order: Ranking,
    tasks: Sequence[Task],
    check: Check,
) -> int:
    """Score tasks, and place them among the ranked ones."""
    if not tasks:
        return 0
    model, settings = models[0], context.project_settings(record)
    indices = count(context.store.pools.next_shard(model.project_id, model.number, tag=model.key))
    rankings = _comparable(context, record, models, PoolRankings(order, tag_rankings(context, models)))
    created, blanks = 0, control_tasks.drawn_for(context, model)
    size = shard_size(models)
    for begin in range(0, len(tasks), size):
        shards = predict_shards(context, models, next(indices), tasks[begin : begin + size])
        if not save_shards(context, models, shards):
            break  # other answers are asked for now; the next scoring has these tasks
        by_task = list(zip(*(shard.predictions for shard in shards), strict=True))
        # The first prediction of any tag represents the task: it counts as scored if it has one.
        first = tuple(next((pred for pred in by_model if pred is not None), None) for by_model in by_task)
        shard = replace(shards[0], predictions=first)
        by_tag = [tag_shard.predictions for tag_shard in shards]
        places = priorities(settings, models, rankings, shard.task_ids, by_tag)
        scores = admitted_priorities(context, settings, model.project_id, order, shard, places)
        order = extended_ranking(order, shard, places, scores)
        with_pins = push.queue_places(context, model.project_id, order)
        rows = [
            PredictionRow(
                task.id,
                with_pins.get(task.id, LAST),
                () if task.id in blanks else encode(settings, models, task.id, by_model, task),
            )
            for task, by_model in zip(tasks[begin : begin + size], by_task, strict=True)
        ]
        present = context.label_studio.predictions.stamps_of_tasks(
            model.project_id, model.name, shard.task_ids.tolist()
        )
        # With `overwrite`, because an existing prediction may be of another image.
        created += push.write_predictions(context, model, iter(rows), present, check, overwrite=True)
        check()
        context.store.pools.save_ranking(model.project_id, model.number, order)
    return created


def score_outdated(context: Context, project_id: int, check: Check = no_check) -> int:
    """Predict completed tasks again that show another image since; return their number.

    The label review needs a prediction of the image that the label is on. If Label Studio has a prediction of such a
    task, it gets the new regions and keeps its score. The next review marks it if its labels look wrong.
    """
    record = project_record(context, project_id)
    models = models_for(context, record, accepted=False)
    tasks = [] if stored_answers.of(context, models).outdated(models) else holdings.outdated(context, models)
    model, settings, size = models[0], context.project_settings(record), shard_size(models)
    indices = count(context.store.pools.next_shard(project_id, model.number, labeled=True, tag=model.key))
    for begin in range(0, len(tasks), size):
        part = tasks[begin : begin + size]
        shards = predict_shards(context, models, next(indices), part, labeled=True)
        if not save_shards(context, models, shards, labeled=True):
            break
        by_task = zip(*(shard.predictions for shard in shards), strict=True)
        regions = {
            task.id: encode(settings, models, task.id, by_model, task)
            for task, by_model in zip(part, by_task, strict=True)
        }
        present = list(context.label_studio.predictions.stamps_of_tasks(project_id, model.name, regions))
        scores = {stamp.task_id: LAST if stamp.score is None else min(stamp.score, LAST) for stamp in present}
        rows = [PredictionRow(task_id, score, regions[task_id]) for task_id, score in scores.items()]
        push.write_predictions(context, model, iter(rows), present, check, overwrite=True)
    return len(tasks)


@dataclass(frozen=True, slots=True)
class PoolRankings:
    """The rankings that late tasks are placed in."""

    order: Ranking | None  # of the version
    parts: Mapping[str, Ranking]  # of each tag alone, by its name in the store; empty if there is one tag


def tag_rankings(context: Context, models: Sequence[ServedModel]) -> dict[str, Ranking]:
    """Return each tag's own ranking of the pool, by the tag's name in the store; empty if the project has one tag."""
    parts = {model.key: context.store.pools.ranking(model.project_id, model.number, tag=model.key) for model in models}
    return {key: part for key, part in parts.items() if part is not None}


def _comparable(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel], rankings: PoolRankings
) -> PoolRankings:
    """Return the rankings with values that can be computed for a single task.

    Some strategies can only rank a whole pool. Their values are replaced by those of late_places.STAND_IN.
    """

    def comparable(model: ServedModel, part: Ranking) -> Ranking:
        """Return a ranking by a strategy that can score a single task."""
        if acquisition.get(part.strategy).alone:
            return part
        return late_places.stand_in(part, pool_for(context, record, model, late_places.STAND_IN))

    if rankings.order is None:
        return rankings
    if not rankings.parts:
        return PoolRankings(comparable(models[0], rankings.order), {})
    by_key = {model.key: model for model in models}
    return PoolRankings(rankings.order, {key: comparable(by_key[key], part) for key, part in rankings.parts.items()})


def priorities(
    settings: Settings,
    models: Sequence[ServedModel],
    rankings: PoolRankings,
    task_ids: IntArray,
    predictions: Sequence[Sequence[Prediction | None]],
) -> list[float]:
    """Return the priorities (n,) of tasks that were scored after the ranking.

    `task_ids` is (n,), `predictions` has n entries per model. With several tags, the lowest of a task's places decides
    where it goes in their joint ranking.
    """
    failed = [all(prediction is None for prediction in by_model) for by_model in zip(*predictions, strict=True)]
    if not rankings.parts:
        places = priorities_in(settings, models[0], rankings.order, task_ids, predictions[0])
        only_others = [
            prediction is None and not has_failed for prediction, has_failed in zip(predictions[0], failed, strict=True)
        ]
        return [_MIDDLE if by_others else place for by_others, place in zip(only_others, places, strict=True)]
    lowest = np.full(len(task_ids), LAST)
    for model, by_task in zip(models, predictions, strict=True):
        if part := rankings.parts.get(model.key):
            lowest = np.minimum(lowest, priorities_in(settings, model, part, task_ids, by_task))
    return [
        LAST if has_failed else late_places.quantile_of(rankings.order, 1 - place)
        for has_failed, place in zip(failed, lowest.tolist(), strict=True)
    ]


def admitted_priorities(
    context: Context, settings: Settings, project_id: int, order: Ranking, shard: PoolShard, places: Sequence[float]
) -> list[float]:
    """Return the priority of each new task: at the front if stream admission queries it, else its place."""
    rate = stream_admission.parse_rate(settings.rate)
    if rate is None:
        return list(places)
    state, now, scores = context.store.state.stream(project_id), time.time(), list(places)
    for row, (place, prediction) in enumerate(zip(places, shard.predictions, strict=True)):
        if prediction is not None:
            state, queried = stream_admission.offer(state, 1 - place, rate, now)
            scores[row] = late_places.front_priority(order, place) if queried else place
    context.store.state.save_stream(project_id, state)
    return scores


def extended_ranking(order: Ranking, shard: PoolShard, places: Sequence[float], scores: Sequence[float]) -> Ranking:
    """Return the ranking with the new tasks that were scored, so that they do not count as chosen at random.

    A task whose new image failed is removed from the ranking.
    """
    scored = np.array([prediction is not None for prediction in shard.predictions], dtype=np.bool_)
    as_floats = [np.array(values, dtype=np.float32)[scored] for values in (places, scores)]
    return late_places.without_tasks(
        late_places.with_late_tasks(order, shard.task_ids[scored], *as_floats), shard.task_ids[~scored]
    )


def priorities_in(
    settings: Settings,
    model: ServedModel,
    order: Ranking | None,
    task_ids: IntArray,
    predictions: Sequence[Prediction | None],
) -> list[float]:
    """Return the priorities of tasks in one ranking: the quantiles of their acquisition values among the ranked ones.

    `task_ids` and `predictions` have n entries. A task without a prediction gets LAST.
    """
    pool = replace(pool_of(task_ids, predictions, model.class_weights), empty=settings.empty)
    pool = calibrated(pool, model.temperature, model.tag.outcomes)
    rng = np.random.default_rng((settings.seed, model.project_id, model.number))
    places = iter(late_places.late_priorities(order, pool, rng).tolist())
    return [LAST if prediction is None else next(places) for prediction in predictions]
