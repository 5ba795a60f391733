"""Stored predictions of a tag's models up to the served version.

A fair prediction of a task comes from the newest model that had not learned from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.loop.context import Context
from backend.loop.served_models import ServedModel, promoted_models
from backend.policy import fair_losses
from backend.types import Prediction


@dataclass(frozen=True, slots=True)
class PastModel:
    """A tag's model of one version: where its predictions are, and the tasks that it had learned from."""

    project_id: int
    number: int  # of the version
    tag: str  # its name in the store
    classes: tuple[str, ...]
    learned: frozenset[int]  # task ids


def past_models(context: Context, model: ServedModel) -> list[PastModel]:
    """Return a tag's promoted models up to this one, newest first."""
    models = []
    for version, tag_model in promoted_models(context, model):
        key, learned = version.key_of(tag_model.from_name), version.learned_task_ids(tag_model.from_name)
        models.append(PastModel(version.project_id, version.number, key, tag_model.classes, learned))
    return models


def fair_predictions(
    context: Context, pasts: Sequence[PastModel], sources: Mapping[int, int]
) -> Iterator[tuple[int, PastModel, Prediction]]:
    """Yield each task with the newest of `pasts` that had not learned from it, and that model's prediction of it.

    Tasks without such a prediction are left out. So are videos, because their boxes are of many frames. `sources` is
    explained at `latest_predictions`.
    """

    def answers(past: PastModel, task_ids: frozenset[int]) -> Iterator[tuple[int, Prediction]]:
        """Yield the model's stored predictions of these tasks."""
        wanted = {task_id: source for task_id, source in sources.items() if task_id in task_ids}
        predictions = latest_predictions(context, past.project_id, past.number, past.tag, wanted)
        return ((task_id, prediction) for task_id, prediction in predictions if prediction.one_image)

    return fair_losses.fair_answers(pasts, sources, lambda past: past.learned, answers)


def latest_predictions(
    context: Context, project_id: int, number: int, tag: str, sources: Mapping[int, int]
) -> Iterator[tuple[int, Prediction]]:
    """Yield the latest prediction of each task by a version's model; one shard at a time is in memory.

    That is the prediction made once the task had labels, else the one in the pool. `sources` maps each task id to the
    hash of the media that the task shows now: a prediction of other media is left out.
    """
    remaining = set(sources)
    for labeled in (True, False):
        query = project_id, number, tuple(remaining), sources
        for task_id, prediction in context.store.pools.predictions(*query, labeled=labeled, tag=tag):
            remaining.remove(task_id)
            yield task_id, prediction
