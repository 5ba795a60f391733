"""The answers to Label Studio's /predict and /setup: the regions and the priority of each task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import acquisition
from backend.labelstudio import label_config, label_renames
from backend.loop import warm
from backend.loop.base_models import check_base
from backend.loop.context import Context
from backend.loop.scoring import control_tasks, late_tasks, pool_ranking, push, scoring, stored_answers
from backend.loop.served_models import ServedModel, completed_config, models_for
from backend.policy import tiling
from backend.sampling import stream_admission
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Json, Prediction, Task

log = logging.getLogger(__name__)

NO_PROJECT = 0  # the id of a project that was never set up; Label Studio counts from 1


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The answer of /predict for one task."""

    regions: tuple[Json, ...]
    score: float
    version: str


def setup(context: Context, project_id: int, schema: str, hostname: str, extra_params: str, url: str) -> ProjectRecord:
    """Check and store what Label Studio sends to /setup about a project.

    `schema` is the label config, `url` the address of this backend. Raises LabelConfigError, SettingError or ModelError
    before anything is stored, so that a bad change leaves the project as it was. It loads no weights and sends no
    request to Label Studio, which waits 3 s and calls this before every prediction.
    """
    stored = context.store.project(project_id)
    record = ProjectRecord(project_id, schema, extra_params, hostname, url, stored.configured if stored else "")
    record = replace(record, label_config=stored.label_config if stored else schema)
    record = replace(record, label_config=completed_config(context, record, schema))
    label_config.parse(record.label_config)
    _check_names(context.project_settings(record))
    check_base(context, record)
    if record != stored:
        tiles = tiling.warnings(context.project_settings(record), label_config.parse(record.label_config))
        for warning in (*label_config.warnings(record.label_config), *tiles):
            log.warning("project %d: %s", project_id, warning)
        if stored is not None:
            # The old label config, which the stored answers are of, is overwritten below.
            stored_answers.of_accepted(context, project_id).adopt(stored)
        context.store.save_project(record)
    return record


def _check_names(settings: Settings) -> None:
    """Raise SettingError for an unknown strategy or bandit arm, or for an invalid rate or renaming."""
    for name in (settings.strategy, *(pool_ranking.arms(settings) if settings.bandit != "off" else ())):
        acquisition.get(name)
    stream_admission.parse_rate(settings.rate)
    label_renames.parse(settings.label_renames)


def predict(context: Context, project_id: int | None, schema: str, tasks: Sequence[Task]) -> list[TaskResult]:
    """Return one result per task, in order.

    A task that the served version has scored gets the stored regions and priority, unless it shows another image since.
    A task whose image fails gets an empty result with the lowest priority. The reason is in the log and in GET
    /api/projects/{id}.
    """
    record = request_record(context, project_id, schema)
    if record.project_id != NO_PROJECT:
        warm.note_use(context, record.project_id)
    models, settings = models_for(context, record, accepted=False), context.project_settings(record)
    with context.media.in_use():
        predictions = _predictions(context, record, models, tasks)
    scores = _priorities(context, settings, models, tasks, predictions)
    results, blanks = [], control_tasks.drawn_for(context, models[0]) if settings.blank_share else ()
    for task, by_model, score in zip(tasks, zip(*predictions, strict=True), scores, strict=True):
        regions = () if task.id in blanks else push.encode(settings, models, task.id, by_model, task)
        results.append(TaskResult(tuple(region.as_json() for region in regions), score, models[0].name))
    return results


def request_record(context: Context, project_id: int | None, schema: str) -> ProjectRecord:
    """Return the project with the label config of this request; it need not have been set up."""
    stored = context.store.project(project_id) if project_id is not None else None
    record = stored or ProjectRecord(NO_PROJECT, schema, "", "", "", "")
    return replace(record, label_config=completed_config(context, record, schema))


def _predictions(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel], tasks: Sequence[Task]
) -> list[list[Prediction | None]]:
    """Return each model's predictions: those that the store has of this version, the others are made now.

    If the label config of this request asks a tag's model for other answers than the stored ones, all tasks of that tag
    are predicted now.
    """
    outdated = stored_answers.of(context, models).outdated(models)
    by_task = [
        [
            None if model.key in outdated else prediction
            for model, prediction in zip(models, scoring.stored_predictions(context, models, task), strict=True)
        ]
        for task in tasks
    ]
    rows = [row for row, by_model in enumerate(by_task) if any(prediction is None for prediction in by_model)]
    fresh, reasons = scoring.predict_all(context, models, [tasks[row] for row in rows])
    for row, *now in zip(rows, *fresh, strict=True):
        by_task[row] = [stored or new for stored, new in zip(by_task[row], now, strict=True)]
    if record.project_id != NO_PROJECT:
        context.progress.note_failures(record.project_id, [tasks[row].id for row in rows], reasons)
    return [[by_model[index] for by_model in by_task] for index in range(len(models))]


def _priorities(
    context: Context,
    settings: Settings,
    models: Sequence[ServedModel],
    tasks: Sequence[Task],
    predictions: Sequence[Sequence[Prediction | None]],
) -> list[float]:
    """Return each task's priority in the last ranking of this version; a task that is not ranked is placed in it."""
    order = context.store.pools.ranking(models[0].project_id, models[0].number)
    ids = np.array([task.id for task in tasks], dtype=np.int64)
    rankings = late_tasks.PoolRankings(order, late_tasks.tag_rankings(context, models))
    scores = late_tasks.priorities(settings, models, rankings, ids, predictions)
    if order is None:
        return scores
    ranked = push.queue_places(context, models[0].project_id, order)
    failed = [all(prediction is None for prediction in by_model) for by_model in zip(*predictions, strict=True)]
    return [
        score if has_failed else ranked.get(task.id, score)
        for task, has_failed, score in zip(tasks, failed, scores, strict=True)
    ]
