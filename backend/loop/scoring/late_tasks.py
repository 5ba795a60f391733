"""What the queue lacks after the ranking: new tasks get their place, lost predictions are written from the store."""

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
from backend.loop.scoring import holdings, push, stored_answers
from backend.loop.scoring.push import LAST, Check, encode, flip, no_check
from backend.loop.scoring.scoring import predict_shards, save_shards, shard_size, stored_predictions
from backend.loop.scoring.strategy_inputs import pool_for
from backend.loop.served_models import ServedModel, models_for, project_record, serving_number
from backend.sampling import ranking, stream_admission
from backend.settings import Settings
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import PoolShard, ProjectRecord
from backend.types import IntArray, Prediction, Ranking, Task

AT_ONCE = SHARD_TASKS  # tasks of one job, so that other projects have their turn before the next
_MIDDLE = 0.5  # the priority of a task that nothing tells of how it compares


def score_new(context: Context, project_id: int, check: Check = no_check) -> int:
    """Write what the served version's queue lacks, AT_ONCE tasks of a kind at most; return how many were written.

    A task that is new, or shows another image since, is scored and placed among the ranked ones. A prediction that was
    deleted, or got another score, is written from the store. Before the pool was ranked there is nothing to place tasks
    in, and where it is outdated all is scored anew: the ranking to come has them. `check` runs before each write, and
    may raise.
    """
    record = project_record(context, project_id)
    order = context.store.ranking(project_id, serving_number(context, project_id))
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
        marked = context.store.state.marks(
            project_id, models[0].number
        )  # tasks whose score was a verdict on their labels
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
    """Write what the store holds of tasks."""
    model = models[0]
    places = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))

    def row(task: Task) -> PredictionRow:
        regions = encode(settings, models, task.id, stored_predictions(context, models, task))
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
    indices = count(context.store.next_shard(model.project_id, model.number, tag=model.key))
    known = _comparable(context, record, models, Rankings(order, tag_rankings(context, models)))
    created = 0
    size = shard_size(models)
    for begin in range(0, len(tasks), size):
        shards = predict_shards(context, models, next(indices), tasks[begin : begin + size])
        if not save_shards(context, models, shards):
            break  # they would not compare with what is stored; the scoring to come has them
        by_task = list(zip(*(shard.predictions for shard in shards), strict=True))
        # What is known of a task by any tag stands for it.
        seen = tuple(next((one for one in found if one is not None), None) for found in by_task)
        shard = replace(shards[0], predictions=seen)
        places = priorities(settings, models, known, shard.task_ids, [each.predictions for each in shards])
        scores = admitted_priorities(context, settings, model.project_id, order, shard, places)
        rows = [
            PredictionRow(task_id, score, encode(settings, models, task_id, found))
            for task_id, score, found in zip(shard.task_ids.tolist(), scores, by_task, strict=True)
        ]
        present = context.label_studio.predictions.stamps_of_tasks(
            model.project_id, model.name, shard.task_ids.tolist()
        )
        # Anew: one that is there is of nobody knows which image.
        created += push.write_predictions(context, model, iter(rows), present, check, anew=True)
        check()
        order = extended_ranking(order, shard, places, scores)
        context.store.save_ranking(model.project_id, model.number, order)
    return created


def score_outdated(context: Context, project_id: int, check: Check = no_check) -> int:
    """Predict completed tasks anew that show another image since; return how many there were.

    Label review asks for what a model says of the image that a label is on. A prediction of such a task in Label Studio
    gets the regions of today, and keeps its score; a mark waits for the next review.
    """
    record = project_record(context, project_id)
    models = models_for(context, record, accepted=False)
    tasks = [] if stored_answers.of(context, models).outdated(models) else holdings.outdated(context, models)
    model, settings, size = models[0], context.project_settings(record), shard_size(models)
    indices = count(context.store.next_shard(project_id, model.number, labeled=True, tag=model.key))
    for begin in range(0, len(tasks), size):
        part = tasks[begin : begin + size]
        shards = predict_shards(context, models, next(indices), part, labeled=True)
        if not save_shards(context, models, shards, labeled=True):
            break
        answers = zip(*(shard.predictions for shard in shards), strict=True)
        regions = {task.id: encode(settings, models, task.id, of) for task, of in zip(part, answers, strict=True)}
        present = list(context.label_studio.predictions.stamps_of_tasks(project_id, model.name, regions))
        scores = {stamp.task_id: LAST if stamp.score is None else min(stamp.score, LAST) for stamp in present}
        rows = [PredictionRow(task_id, score, regions[task_id]) for task_id, score in scores.items()]
        push.write_predictions(context, model, iter(rows), present, check, anew=True)
    return len(tasks)


@dataclass(frozen=True, slots=True)
class Rankings:
    """What late tasks are placed in: a version's ranking, and where several tags made it, how each did by itself."""

    order: Ranking | None
    parts: Mapping[str, Ranking]  # by the name of the tag in the store


def tag_rankings(context: Context, models: Sequence[ServedModel]) -> dict[str, Ranking]:
    """Return how each of several tags ranked the pool by itself; nothing where there was one."""
    names = [(model, model.key) for model in models]
    found = {name: context.store.ranking(model.project_id, model.number, tag=name) for model, name in names}
    return {name: part for name, part in found.items() if part is not None}


def _comparable(context: Context, record: ProjectRecord, models: Sequence[ServedModel], known: Rankings) -> Rankings:
    """Return rankings that a task scored alone has a value in."""

    def of(model: ServedModel, part: Ranking) -> Ranking:
        if acquisition.get(part.strategy).alone:
            return part
        return ranking.stand_in(part, pool_for(context, record, model, ranking.STAND_IN))

    if known.order is None:
        return known
    if not known.parts:
        return Rankings(of(models[0], known.order), {})
    by_name = {model.key: model for model in models}
    return Rankings(known.order, {name: of(by_name[name], part) for name, part in known.parts.items()})


def priorities(
    settings: Settings,
    models: Sequence[ServedModel],
    known: Rankings,
    task_ids: IntArray,
    predictions: Sequence[Sequence[Prediction | None]],
) -> list[float]:
    """Return the priority of tasks scored outside a ranking, from each model's predictions of them.

    Among several tags that is where the lowest of a task's places would be in the ranking that they made together.
    """
    failed = [all(one is None for one in found) for found in zip(*predictions, strict=True)]
    if not known.parts:
        places = priorities_in(settings, models[0], known.order, task_ids, predictions[0])
        unplaced = [one is None and not bad for one, bad in zip(predictions[0], failed, strict=True)]
        return [_MIDDLE if only_others else place for only_others, place in zip(unplaced, places, strict=True)]
    lowest = np.full(len(task_ids), LAST)
    for model, found in zip(models, predictions, strict=True):
        if part := known.parts.get(model.key):
            lowest = np.minimum(lowest, priorities_in(settings, model, part, task_ids, found))
    return [
        LAST if bad else ranking.quantile_of(known.order, 1 - low)
        for bad, low in zip(failed, lowest.tolist(), strict=True)
    ]


def admitted_priorities(
    context: Context, settings: Settings, project_id: int, order: Ranking, shard: PoolShard, places: Sequence[float]
) -> list[float]:
    """Return the priority of each new task: at the front where the stream rule queries it, else its place."""
    rate = stream_admission.parse_rate(settings.rate)
    if rate is None:
        return list(places)
    state, now, scores = context.store.state.stream(project_id), time.time(), list(places)
    for row, (place, prediction) in enumerate(zip(places, shard.predictions, strict=True)):
        if prediction is not None:
            state, queried = stream_admission.offer(state, 1 - place, rate, now)
            scores[row] = ranking.at_front(order, place) if queried else place
    context.store.state.save_stream(project_id, state)
    return scores


def extended_ranking(order: Ranking, shard: PoolShard, places: Sequence[float], scores: Sequence[float]) -> Ranking:
    """Return the ranking with the new tasks that could be scored, so that nobody takes them for chosen by chance.

    One whose new image failed leaves it.
    """
    scored = np.array([prediction is not None for prediction in shard.predictions], dtype=np.bool_)
    as_floats = [np.array(values, dtype=np.float32)[scored] for values in (places, scores)]
    return ranking.without(ranking.extended(order, shard.task_ids[scored], *as_floats), shard.task_ids[~scored])


def priorities_in(
    settings: Settings,
    model: ServedModel,
    order: Ranking | None,
    task_ids: IntArray,
    predictions: Sequence[Prediction | None],
) -> list[float]:
    """Return the priority of tasks scored outside a ranking: the quantile of their acquisition value among the last."""
    pool = replace(pool_of(task_ids, predictions, model.class_weights), empty=settings.empty)
    pool = calibrated(pool, model.temperature, model.tag.outcomes)
    rng = np.random.default_rng((settings.seed, model.project_id, model.number))
    places = iter(ranking.place(order, pool, rng).tolist())
    return [LAST if prediction is None else next(places) for prediction in predictions]
