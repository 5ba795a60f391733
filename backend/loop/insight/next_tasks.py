"""The tasks that come next, with their predictions and the reasons for their places; under any strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from backend import acquisition
from backend.acquisition.aggregation import pool_of
from backend.acquisition.columns import BY_TABLE
from backend.errors import ModelError, NotFoundError
from backend.evaluation.calibration import calibrated
from backend.labelstudio import label_config, task_fields
from backend.labelstudio.client.connection import UNLABELED
from backend.labelstudio.region_outlines import Drawing
from backend.loop.context import Context
from backend.loop.insight import reasons
from backend.loop.insight.drawn_regions import drawn, shown_frame
from backend.loop.insight.reasons import Placing, Typicality
from backend.loop.scoring import pool_ranking, push, strategy_inputs
from backend.loop.served_models import ServedModel, models_for, require_project, serving_number, version_of
from backend.sampling.order_agreement import OrderAgreement, agreement
from backend.sampling.pins import Pins, pinned
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import ProjectRecord
from backend.types import ControlTag, IntArray, Prediction, Ranking, Task

SHOWN = 24
_AHEAD = 100  # tasks that are asked for at once: some of those in the order are labeled by now
_SAMPLE_SHARDS = 2  # of the pool, to compare a task with
_EMBEDDING = BY_TABLE["embeddings"]


@dataclass(frozen=True, slots=True)
class NextTask:
    """A task of the queue: its place, and why it has it."""

    task_id: int
    place: int  # from 1
    score: float | None  # in Label Studio; None in the order of another strategy
    pinned: str  # "front", "back" or ""
    reasons: tuple[str, ...]
    drawing: Drawing  # the regions of the chosen tag
    frame: int  # of a video, from 1; 0: an image


@dataclass(frozen=True, slots=True)
class NextTasks:
    """The front of the queue, under the order in Label Studio or that of another strategy."""

    version: str
    own: str  # strategy of the order in Label Studio
    strategy: str  # strategy of the order that is shown
    tasks: tuple[NextTask, ...]
    total: int  # ranked tasks
    agreement: OrderAgreement | None  # of both orders; None: they are the same one
    pins: Pins


def next_tasks(context: Context, project_id: int, tag: ControlTag, strategy: str = "") -> NextTasks:
    """Return the next SHOWN tasks, with the regions of one control tag.

    With `strategy` they are those of another order, which is not written. Raises NotFoundError for a project without a
    scored pool, SettingError for an unknown strategy, ModelError if the served model lacks what it needs, and
    LabelStudioError if Label Studio does not answer.
    """
    record, number = require_project(context, project_id), serving_number(context, project_id)
    stored = context.store.pools.ranking(project_id, number)
    if stored is None:
        raise NotFoundError(f"project {project_id} has no scored pool", fix=f"run `yolo-backend score {project_id}`")
    pins = context.store.steering.pins(project_id)
    is_own = strategy in ("", stored.strategy)
    own = pinned(stored, pins)
    order = own if is_own else _preview(context, record, strategy)
    tasks = _unlabeled(context, project_id, _in_order(order))
    models = models_for(context, record, accepted=False)
    scores = push.queue_places(context, project_id, stored) if is_own else {}
    model = next((served for served in models if served.tag.from_name == tag.from_name), models[0])
    predictions = _stored(context, model, tasks)
    why = _reasons(context, model, order, pins, predictions, [task.id for task in tasks])
    return NextTasks(
        version=model.name,
        own=stored.strategy,
        strategy=order.strategy,
        tasks=tuple(
            NextTask(
                task_id=task.id,
                place=place,
                score=scores.get(task.id),
                pinned=placing.pinned,
                reasons=tuple(texts),
                drawing=drawn(context, record, model, task.id, prediction),
                frame=shown_frame(prediction),
            )
            for place, (task, prediction, (placing, texts)) in enumerate(zip(tasks, predictions, why, strict=True), 1)
        ),
        total=len(order.task_ids),
        agreement=None if is_own else agreement(_in_order(own), _in_order(order), SHOWN),
        pins=pins,
    )


def _preview(context: Context, record: ProjectRecord, strategy: str) -> Ranking:
    """Return the order of another strategy. Raises ModelError if a committee would have to be asked first."""
    project_id = record.project_id
    acquisition.get(strategy)
    if strategy_inputs.needs_committee([strategy]) and not _has_votes(context, record):
        raise ModelError(
            f"{strategy} needs the votes of a committee, and this pool has none yet",
            fix=f"run `yolo-backend rank {project_id} --strategy {strategy} --dry-run`, which asks the committee",
        )
    return pool_ranking.preview(context, project_id, strategy)


def without_votes(context: Context, project_id: int) -> tuple[str, ...]:
    """Return the strategies whose order cannot be shown before a committee has voted on the pool; () if it has."""
    if _has_votes(context, require_project(context, project_id)):
        return ()
    return tuple(name for name in acquisition.names() if strategy_inputs.needs_committee([name]))


def _has_votes(context: Context, record: ProjectRecord) -> bool:
    """Return whether the first tag's committee has voted; opens no weights."""
    version, tag = version_of(context, record, accepted=False), label_config.parse(record.label_config)[0]
    number, key = (version.number, version.key_of(tag.from_name)) if version else (0, tag.from_name)
    return context.store.pools.has_votes(record.project_id, number, tag=key)


def _in_order(order: Ranking) -> IntArray:
    """Return the task ids in the order of the queue (n,)."""
    return order.task_ids[np.argsort(order.priority, kind="stable")]


def _unlabeled(context: Context, project_id: int, task_ids: IntArray) -> list[Task]:
    """Return the first SHOWN of these tasks that are still in the queue."""
    tasks: list[Task] = []
    for begin in range(0, len(task_ids), _AHEAD):
        part = task_ids[begin : begin + _AHEAD].tolist()
        tasks += context.label_studio.tasks.get_many(project_id, part, UNLABELED)
        if len(tasks) >= SHOWN:
            break
    context.label_studio.tasks.note_shown(project_id, tasks[:SHOWN])
    return tasks[:SHOWN]


def _stored(context: Context, model: ServedModel, tasks: Sequence[Task]) -> list[Prediction | None]:
    """Return the model's stored prediction of each task, None if there is none of the media that it shows now."""
    sources = {task.id: task_fields.source(model.tag, task) for task in tasks}
    stored = context.store.pools.predictions(model.project_id, model.number, sources, sources, tag=model.key)
    prediction_of = dict(stored)
    return [prediction_of.get(task.id) for task in tasks]


def _reasons(
    context: Context,
    model: ServedModel,
    order: Ranking,
    pins: Pins,
    predictions: Sequence[Prediction | None],
    task_ids: Sequence[int],
) -> Iterator[tuple[Placing, list[str]]]:
    """Yield how each task got its place, and its reasons, in order."""
    pool = calibrated(
        pool_of(np.array(task_ids, dtype=np.int64), predictions, model.class_weights),
        model.temperature,
        model.tag.outcomes,
    )
    row_of = {task_id: row for row, task_id in enumerate(pool.task_ids.tolist())}
    measure = _typicality(context, model)
    places = reasons.placings(order, pins, task_ids)
    for placing, prediction in zip(places, predictions, strict=True):
        texts = reasons.of_placing(placing, order.strategy)
        if prediction is None:
            texts.append("it could not be read")
        elif model.trained:
            texts += reasons.of_boxes(pool, row_of[placing.task_id], model.classes, model.metrics)
            texts += reasons.of_typicality(measure, prediction.embedding)
        yield placing, texts


def _typicality(context: Context, model: ServedModel) -> Typicality | None:
    """Return the measure of how typical an image is, from the first shards of the pool."""
    shards = context.store.pools.parts(model.project_id, model.number, [_EMBEDDING], tag=model.key)
    parts = [
        part
        for arrays, counted in islice(shards, _SAMPLE_SHARDS)
        if (part := arrays.part(_EMBEDDING, counted & ~arrays.header.failed)) is not None and part.size
    ]
    if len({part.shape[1] for part in parts}) != 1:
        return None
    return reasons.typicality(np.concatenate(parts)[: _SAMPLE_SHARDS * SHARD_TASKS])
