"""Tasks that come after the ranking: scored at once, placed among the ranked, and by the stream rule at the front."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from backend import acquisition, label_config, ranking, stream
from backend.acquisition.aggregation import pool_of
from backend.calibration import calibrated
from backend.context import Context
from backend.evidence import pool_for
from backend.label_studio import DOUBTED, UNLABELED, PredictionRow
from backend.models import ServedModel, model_for, project_record, serving_number
from backend.push import LAST, encode, flip, write
from backend.scoring import predict_shard, shard_size
from backend.settings import Settings
from backend.store import PoolShard
from backend.types import IntArray, Prediction, Ranking


def score_new(context: Context, project_id: int) -> int:
    """Score the unlabeled tasks that have no place in the served version's queue: new ones, or ones unlabeled again.

    Before the pool was ranked there is nothing to place them in; the ranking to come has them.
    """
    record = project_record(context, project_id)
    order = context.store.ranking(project_id, serving_number(context, project_id))
    if order is None:
        return 0
    model = model_for(context, record, accepted=False)
    # A task whose labels were doubted, and deleted since, still carries the doubt where its place should be.
    doubted = list(context.label_studio.prediction_stamps(project_id, model.name, UNLABELED, DOUBTED))
    present = set(context.label_studio.predicted_tasks(project_id, model.name)) - {stamp.task_id for stamp in doubted}
    fresh = [task for task in context.label_studio.unlabeled_tasks(project_id) if task.id not in present]
    if not fresh:
        return 0
    settings = context.project_settings(record)
    tag = label_config.parse(record.label_config)[0]
    indices = count(context.store.next_shard(project_id, model.number))
    known_alone = acquisition.get(order.strategy).alone
    known = order if known_alone else ranking.stand_in(order, pool_for(context, record, model, ranking.STAND_IN))
    created = 0
    size = shard_size(tag)
    for begin in range(0, len(fresh), size):
        shard = predict_shard(context, record, model, next(indices), fresh[begin : begin + size])
        context.store.save_shard(project_id, model.number, shard)
        places = alone(settings, model, known, shard.task_ids, shard.predictions)
        scores = admitted(context, settings, project_id, order, shard, places)
        rows = [
            PredictionRow(task_id, score, encode(settings, model, tag, task_id, prediction))
            for task_id, score, prediction in zip(shard.task_ids.tolist(), scores, shard.predictions, strict=True)
        ]
        created += write(context.label_studio, project_id, model.name, iter(rows), doubted)
        order = joined(order, shard, places, scores)
        context.store.save_ranking(project_id, model.number, order)
    flip(context, project_id, model.name)
    return created


def admitted(
    context: Context, settings: Settings, project_id: int, order: Ranking, shard: PoolShard, places: Sequence[float]
) -> list[float]:
    """Return the priority of each new task: at the front where the stream rule queries it, else its place."""
    rate = stream.parse_rate(settings.rate)
    if rate is None:
        return list(places)
    state, now, scores = context.store.stream(project_id), time.time(), list(places)
    for row, (place, prediction) in enumerate(zip(places, shard.predictions, strict=True)):
        if prediction is not None:
            state, queried = stream.offer(state, 1 - place, rate, now)
            scores[row] = ranking.at_front(order, place) if queried else place
    context.store.save_stream(project_id, state)
    return scores


def joined(order: Ranking, shard: PoolShard, places: Sequence[float], scores: Sequence[float]) -> Ranking:
    """Return the ranking with the new tasks that could be scored, so that nobody takes them for chosen by chance."""
    scored = np.array([prediction is not None for prediction in shard.predictions], dtype=np.bool_)
    as_floats = [np.array(values, dtype=np.float32)[scored] for values in (places, scores)]
    return ranking.extended(order, shard.task_ids[scored], *as_floats)


def alone(
    settings: Settings,
    model: ServedModel,
    order: Ranking | None,
    task_ids: IntArray,
    predictions: Sequence[Prediction | None],
) -> list[float]:
    """Return the priority of tasks scored outside a ranking: the quantile of their acquisition value among the last."""
    pool = replace(pool_of(task_ids, predictions, model.class_weights), empty=settings.empty)
    pool = calibrated(pool, model.temperature)
    rng = np.random.default_rng((settings.seed, model.project_id, model.number))
    places = iter(ranking.place(order, pool, rng).tolist())
    return [LAST if prediction is None else next(places) for prediction in predictions]
