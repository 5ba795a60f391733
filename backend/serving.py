"""Answers Label Studio's /predict and /setup: which regions and which priority a task gets now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import label_config, scoring, settings
from backend.context import Context
from backend.models import ServedModel, model_for
from backend.store import ProjectRecord
from backend.types import Json, Prediction, Ranking, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What /predict answers for one task."""

    regions: tuple[Json, ...]
    score: float
    version: str


def setup(context: Context, project_id: int, schema: str, hostname: str, extra_params: str, url: str) -> ProjectRecord:
    """Check and keep what Label Studio says of a project.

    Raises LabelConfigError or SettingError before anything is kept, so a bad change leaves the project as it was.
    Loads no weights and asks Label Studio nothing: LS waits 3 s and calls this before every prediction.
    """
    label_config.parse(schema)
    settings.for_project(context.settings, extra_params)
    known = context.store.project(project_id)
    record = ProjectRecord(project_id, schema, extra_params, hostname, url, known.configured if known else "")
    if record != known:
        context.store.save_project(record)
    return record


def predict(context: Context, project_id: int | None, schema: str, tasks: Sequence[Task]) -> list[TaskResult]:
    """Return as many results as tasks, in their order.

    A task scored by the served version already gets the very same regions and priority. One whose image fails gets an
    empty result with the lowest priority, and its reason in the log and in GET /api/projects/{id}.
    """
    record = _record(context, project_id, schema)
    model = model_for(context, record, accepted=False)
    order = context.store.ranking(record.project_id, model.number)
    known = _stored(context, record.project_id, model, order, tasks)
    known |= _fresh(context, record, model, order, [task for task in tasks if task.id not in known])
    chosen, tag = context.project_settings(record), label_config.parse(schema)[0]
    results = []
    for task in tasks:
        prediction, score = known[task.id]
        regions = scoring.encode(chosen, model, tag, task.id, prediction)
        results.append(TaskResult(tuple(region.as_json() for region in regions), score, model.name))
    return results


def _record(context: Context, project_id: int | None, schema: str) -> ProjectRecord:
    """Return the project with the label config of this request; one that nobody set up yet works too."""
    known = context.store.project(project_id) if project_id is not None else None
    if known is None:
        return ProjectRecord(project_id or 0, schema, "", "", "", "")
    return replace(known, label_config=schema)


def _stored(
    context: Context, project_id: int, model: ServedModel, order: Ranking | None, tasks: Sequence[Task]
) -> dict[int, tuple[Prediction | None, float]]:
    """Return what the last scoring of this version says of `tasks`."""
    if order is None:
        return {}
    rows = np.flatnonzero(np.isin(order.task_ids, [task.id for task in tasks]))
    found: dict[int, tuple[Prediction | None, float]] = {}
    for task_id, score in zip(order.task_ids[rows].tolist(), order.priority[rows].tolist(), strict=True):
        prediction = context.store.prediction(project_id, model.number, task_id)
        if prediction is not None:
            found[task_id] = (prediction, score)
    return found


def _fresh(
    context: Context, record: ProjectRecord, model: ServedModel, order: Ranking | None, tasks: Sequence[Task]
) -> dict[int, tuple[Prediction | None, float]]:
    """Predict `tasks` now, in one batch."""
    if not tasks:
        return {}
    tag = label_config.parse(record.label_config)[0]
    predictions, reasons = scoring.predict(context, model, tag, tasks)
    context.progress.record_failures(record.project_id, reasons)
    ids = np.array([task.id for task in tasks], dtype=np.int64)
    scores = scoring.alone(context.project_settings(record), model, order, ids, predictions)
    return dict(zip(ids.tolist(), zip(predictions, scores, strict=True), strict=True))
