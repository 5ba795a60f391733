"""Answers Label Studio's /predict and /setup: which regions and which priority a task gets now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import acquisition, arrivals, label_config, priorities, push, scoring, stream
from backend.context import Context
from backend.models import ServedModel, check_base, model_for
from backend.settings import Settings
from backend.store import ProjectRecord
from backend.types import ControlTag, Json, Prediction, Task

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
    first, *others = label_config.parse(schema)
    _check_names(context.project_settings(record))
    check_base(context, record)
    if record != known:
        context.store.save_project(record)
        if others:
            names = ", ".join(tag.from_name for tag in others)
            log.warning(
                "project %d: only the first control tag is served, %s; not %s", project_id, first.from_name, names
            )
    return record


def _check_names(settings: Settings) -> None:
    """Raise SettingError for a strategy or a bandit's arm that does not exist, or a rate that is none."""
    for name in (settings.strategy, *(priorities.arms(settings) if settings.bandit != "off" else ())):
        acquisition.get(name)
    stream.parse_rate(settings.rate)


def predict(context: Context, project_id: int | None, schema: str, tasks: Sequence[Task]) -> list[TaskResult]:
    """Return as many results as tasks, in their order.

    A task scored by the served version already gets the very same regions and priority. One whose image fails gets an
    empty result with the lowest priority, and its reason in the log and in GET /api/projects/{id}.
    """
    record = _record(context, project_id, schema)
    model = model_for(context, record, accepted=False)
    tag, settings = label_config.parse(schema)[0], context.project_settings(record)
    predictions = _predictions(context, record, model, tag, tasks)
    scores = _scores(context, settings, model, tasks, predictions)
    results = []
    for task, prediction, score in zip(tasks, predictions, scores, strict=True):
        regions = push.encode(settings, model, tag, task.id, prediction)
        results.append(TaskResult(tuple(region.as_json() for region in regions), score, model.name))
    return results


def _record(context: Context, project_id: int | None, schema: str) -> ProjectRecord:
    """Return the project with the label config of this request; one that nobody set up yet works too."""
    known = context.store.project(project_id) if project_id is not None else None
    if known is None:
        return ProjectRecord(NO_PROJECT, schema, "", "", "", "")
    return replace(known, label_config=schema)


def _predictions(
    context: Context, record: ProjectRecord, model: ServedModel, tag: ControlTag, tasks: Sequence[Task]
) -> list[Prediction | None]:
    """Return what the store holds of this version; the other tasks are predicted now, in one batch."""
    found = [context.store.prediction(record.project_id, model.number, task.id) for task in tasks]
    places = [place for place, prediction in enumerate(found) if prediction is None]
    fresh, reasons = scoring.predict(context, model, tag, [tasks[place] for place in places])
    for place, prediction in zip(places, fresh, strict=True):
        found[place] = prediction
    if record.project_id != NO_PROJECT:
        context.progress.note_failures(record.project_id, [tasks[place].id for place in places], reasons)
    return found


def _scores(
    context: Context,
    settings: Settings,
    model: ServedModel,
    tasks: Sequence[Task],
    predictions: Sequence[Prediction | None],
) -> list[float]:
    """Return each task's place in the last ranking of this version; of one that is not in it, where it would be."""
    order = context.store.ranking(model.project_id, model.number)
    ids = np.array([task.id for task in tasks], dtype=np.int64)
    scores = arrivals.alone(settings, model, order, ids, predictions)
    if order is None:
        return scores
    rows = np.flatnonzero(np.isin(order.task_ids, ids))
    ranked = dict(zip(order.task_ids[rows].tolist(), order.priority[rows].tolist(), strict=True))
    return [
        score if prediction is None else ranked.get(task.id, score)
        for task, prediction, score in zip(tasks, predictions, scores, strict=True)
    ]
