"""The predictions of the served version that Label Studio lacks, or holds with another score.

Every task in its queue should have one prediction of that version: the regions for the media that the task shows now,
and the score that is its place in the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.labelstudio import task_fields
from backend.labelstudio.client.connection import UNLABELED
from backend.loop.context import Context
from backend.loop.scoring.push import LAST, is_answered, is_same_score, queue_places
from backend.loop.served_models import ServedModel
from backend.types import Ranking, Task


@dataclass(frozen=True, slots=True)
class Gaps:
    """The tasks of the queue whose prediction in Label Studio is missing or has another score."""

    unscored: tuple[Task, ...] = ()  # the store has no prediction of the media that they show now
    unplaced: tuple[Task, ...] = ()  # the store has one, and Label Studio has none, or one with another score

    def first(self, count: int) -> Gaps:
        """Return the first tasks of each kind."""
        return Gaps(self.unscored[:count], self.unplaced[:count])


def gaps(context: Context, models: Sequence[ServedModel], order: Ranking) -> Gaps:
    """Compare the stored predictions of the served version with Label Studio, without reading regions there."""
    project_id, name = models[0].project_id, models[0].name
    sources = [context.store.pools.sources(project_id, model.number, tag=model.key) for model in models]
    places = queue_places(context, project_id, order)
    held = scores(context, project_id, name)
    unscored, unplaced = [], []
    for task in context.label_studio.tasks.unlabeled(project_id):
        if not is_answered(models, sources, task):
            unscored.append(task)
        elif task.id not in held or not is_same_score(held[task.id], places.get(task.id, LAST)):
            unplaced.append(task)
    return Gaps(tuple(unscored), tuple(unplaced))


def outdated(context: Context, models: Sequence[ServedModel]) -> list[Task]:
    """Return the completed tasks whose media have changed since the stored predictions were made."""
    stored_sources = []
    for model in models:
        version = model.project_id, model.number
        pool = context.store.pools.sources(*version, tag=model.key)
        stored_sources.append({**pool, **context.store.pools.sources(*version, labeled=True, tag=model.key)})
    return [
        task
        for task in context.label_studio.tasks.completed(models[0].project_id)
        if any(
            sources.get(task.id, 0) not in (0, task_fields.source(model.tag, task))
            for model, sources in zip(models, stored_sources, strict=True)
        )
    ]


def scores(context: Context, project_id: int, version: str) -> dict[int, float | None]:
    """Return the scores of a version's predictions in Label Studio, by the ids of the tasks in the queue.

    If the queue goes by another version, the Data Manager lists only the scores of that one. Then the predictions are
    read page by page.
    """
    client = context.label_studio
    if client.projects.get(project_id).model_version == version:
        return client.predictions.queue_scores(project_id, version)
    return {stamp.task_id: stamp.score for stamp in client.predictions.stamps(project_id, version, UNLABELED)}
