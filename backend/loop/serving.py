"""Answers Label Studio's /predict and /setup: which regions and which priority a task gets now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import acquisition
from backend.labelstudio import label_config, label_renames
from backend.loop import warm
from backend.loop.context import Context
from backend.loop.scoring import late_tasks, pool_ranking, push, scoring, stored_answers
from backend.loop.served_models import ServedModel, check_base, models_for
from backend.sampling import stream_admission
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Json, Prediction, Task

log = logging.getLogger(__name__)

NO_PROJECT = 0  # stands for a project that nobody set up; Label Studio counts from 1


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What /predict answers for one task."""

    regions: tuple[Json, ...]
    score: float
    version: str


def setup(context: Context, project_id: int, schema: str, hostname: str, extra_params: str, url: str) -> ProjectRecord:
    """Check and keep what Label Studio says of a project.

    Raises LabelConfigError, SettingError or ModelError before anything is kept, so a bad change leaves the project as
    it was. Loads no weights and asks Label Studio nothing: LS waits 3 s and calls this before every prediction.
    """
    known = context.store.project(project_id)
    record = ProjectRecord(project_id, schema, extra_params, hostname, url, known.configured if known else "")
    label_config.parse(schema)
    _check_names(context.project_settings(record))
    check_base(context, record)
    if record != known:
        for warning in label_config.warnings(schema):
            log.warning("project %d: %s", project_id, warning)
        if known is not None:
            # The last moment at which it is known what was asked until now.
            stored_answers.of_accepted(context, project_id).adopt(known)
        context.store.save_project(record)
    return record


def _check_names(settings: Settings) -> None:
    """Raise SettingError for a strategy or a bandit's arm that does not exist, or a rate that is none."""
    for name in (settings.strategy, *(pool_ranking.arms(settings) if settings.bandit != "off" else ())):
        acquisition.get(name)
    stream_admission.parse_rate(settings.rate)
    label_renames.parse(settings.label_renames)


def predict(context: Context, project_id: int | None, schema: str, tasks: Sequence[Task]) -> list[TaskResult]:
    """Return as many results as tasks, in their order.

    A task scored by the served version already gets the very same regions and priority, unless it shows another image
    since. One whose image fails gets an
    empty result with the lowest priority, and its reason in the log and in GET /api/projects/{id}.
    """
    record = _record(context, project_id, schema)
    if record.project_id != NO_PROJECT:
        warm.note_use(context, record.project_id)
    models, settings = models_for(context, record, accepted=False), context.project_settings(record)
    with context.media.in_use():
        predictions = _predictions(context, record, models, tasks)
    scores = _priorities(context, settings, models, tasks, predictions)
    results = []
    for task, found, score in zip(tasks, zip(*predictions, strict=True), scores, strict=True):
        regions = push.encode(settings, models, task.id, found)
        results.append(TaskResult(tuple(region.as_json() for region in regions), score, models[0].name))
    return results


def _record(context: Context, project_id: int | None, schema: str) -> ProjectRecord:
    """Return the project with the label config of this request; one that nobody set up yet works too."""
    known = context.store.project(project_id) if project_id is not None else None
    if known is None:
        return ProjectRecord(NO_PROJECT, schema, "", "", "", "")
    return replace(known, label_config=schema)


def _predictions(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel], tasks: Sequence[Task]
) -> list[list[Prediction | None]]:
    """Return each model's predictions: what the store holds of this version; the other tasks are predicted now.

    So are all tasks of a tag whose stored answers the label config of this request would not give.
    """
    outdated = stored_answers.of(context, models).outdated(models)
    known = [
        [None if model.key in outdated else one for model, one in zip(models, found, strict=True)]
        for found in (scoring.stored_predictions(context, models, task) for task in tasks)
    ]
    places = [place for place, found in enumerate(known) if any(one is None for one in found)]
    fresh, reasons = scoring.predict_all(context, models, [tasks[place] for place in places])
    for place, *now in zip(places, *fresh, strict=True):
        known[place] = [one or other for one, other in zip(known[place], now, strict=True)]
    if record.project_id != NO_PROJECT:
        context.progress.note_failures(record.project_id, [tasks[place].id for place in places], reasons)
    return [[found[row] for found in known] for row in range(len(models))]


def _priorities(
    context: Context,
    settings: Settings,
    models: Sequence[ServedModel],
    tasks: Sequence[Task],
    predictions: Sequence[Sequence[Prediction | None]],
) -> list[float]:
    """Return each task's place in the last ranking of this version; of one that is not in it, where it would be."""
    order = context.store.ranking(models[0].project_id, models[0].number)
    ids = np.array([task.id for task in tasks], dtype=np.int64)
    known = late_tasks.Rankings(order, late_tasks.tag_rankings(context, models))
    scores = late_tasks.priorities(settings, models, known, ids, predictions)
    if order is None:
        return scores
    rows = np.flatnonzero(np.isin(order.task_ids, ids))
    ranked = dict(zip(order.task_ids[rows].tolist(), order.priority[rows].tolist(), strict=True))
    failed = [all(one is None for one in found) for found in zip(*predictions, strict=True)]
    return [
        score if bad else ranked.get(task.id, score) for task, bad, score in zip(tasks, failed, scores, strict=True)
    ]
