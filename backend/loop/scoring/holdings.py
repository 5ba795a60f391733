"""What Label Studio holds of the served version, beside what it should hold.

Every task that it hands out has one prediction of that version, with the answer to what the task shows now and its
place in the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.labelstudio.client.connection import UNLABELED
from backend.loop.context import Context
from backend.loop.scoring.push import LAST, is_answered, is_same_score
from backend.loop.served_models import ServedModel
from backend.types import Ranking, Task


@dataclass(frozen=True, slots=True)
class Gaps:
    """The tasks of the queue for which Label Studio lacks something."""

    unscored: tuple[Task, ...] = ()  # the store has no answer to what they show now
    unplaced: tuple[Task, ...] = ()  # it has one, and Label Studio no prediction, or one with another score

    def first(self, count: int) -> Gaps:
        """Return the first tasks of each kind."""
        return Gaps(self.unscored[:count], self.unplaced[:count])


def gaps(context: Context, models: Sequence[ServedModel], order: Ranking) -> Gaps:
    """Compare the served version's store with Label Studio, without reading any result there."""
    project_id, name = models[0].project_id, models[0].name
    sources = [context.store.sources(project_id, model.number, tag=model.key) for model in models]
    places = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    held = scores(context, project_id, name)
    unscored, unplaced = [], []
    for task in context.label_studio.tasks.unlabeled(project_id):
        if not is_answered(models, sources, task):
            unscored.append(task)
        elif task.id not in held or not is_same_score(held[task.id], places.get(task.id, LAST)):
            unplaced.append(task)
    return Gaps(tuple(unscored), tuple(unplaced))


def outdated(context: Context, models: Sequence[ServedModel]) -> list[Task]:
    """Return the completed tasks that show something else than the answers that the store has of them."""
    stored = []
    for model in models:
        place = model.project_id, model.number
        pool = context.store.sources(*place, tag=model.key)
        stored.append({**pool, **context.store.sources(*place, labeled=True, tag=model.key)})
    return [
        task
        for task in context.label_studio.tasks.completed(models[0].project_id)
        if any(of.get(task.id, 0) not in (0, model.tag.source(task)) for model, of in zip(models, stored, strict=True))
    ]


def scores(context: Context, project_id: int, version: str) -> dict[int, float | None]:
    """Return the score of the version's predictions by task, of the tasks that Label Studio hands out.

    Where its queue goes by another version, the Data Manager tells only that one's scores: ours are read one by one.
    """
    client = context.label_studio
    if client.projects.get(project_id).model_version == version:
        return client.predictions.queue_scores(project_id, version)
    return {stamp.task_id: stamp.score for stamp in client.predictions.stamps(project_id, version, UNLABELED)}
