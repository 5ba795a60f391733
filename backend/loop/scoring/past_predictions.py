"""What a tag's models of earlier versions said: the newest that had not learned from a task judges it fairly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.loop.context import Context
from backend.loop.served_models import ServedModel, promoted_models
from backend.policy import fair_losses
from backend.types import Prediction


@dataclass(frozen=True, slots=True)
class PastModel:
    """A tag's model of one version: where its predictions are, and what it had learned by then."""

    project_id: int
    number: int
    tag: str  # its name in the store
    classes: tuple[str, ...]
    learned: frozenset[int]


def past_models(context: Context, model: ServedModel) -> list[PastModel]:
    """Return a tag's models up to this one, newest first."""
    found = []
    for version, known in promoted_models(context, model):
        key, learned = version.key_of(known.from_name), version.learned_task_ids(known.from_name)
        found.append(PastModel(version.project_id, version.number, key, known.classes, learned))
    return found


def fair_predictions(
    context: Context, pasts: Sequence[PastModel], sources: Mapping[int, int]
) -> Iterator[tuple[int, PastModel, Prediction]]:
    """Yield of tasks the newest that had not learned from it, and what it says of it; nothing where none says anything.

    Nor of a video: boxes of many frames cannot be told apart. `sources` as in `latest_predictions`.
    """

    def answers(past: PastModel, task_ids: frozenset[int]) -> Iterator[tuple[int, Prediction]]:
        asked = {task_id: source for task_id, source in sources.items() if task_id in task_ids}
        predictions = latest_predictions(context, past.project_id, past.number, past.tag, asked)
        return ((task_id, prediction) for task_id, prediction in predictions if prediction.tracks is None)

    return fair_losses.fair_answers(pasts, sources, lambda past: past.learned, answers)


def latest_predictions(
    context: Context, project_id: int, number: int, tag: str, sources: Mapping[int, int]
) -> Iterator[tuple[int, Prediction]]:
    """Yield what a version's model said of tasks once they had labels, else in its pool; one shard is in memory.

    `sources` are by task what the tag shows of them now: nothing is said of one that showed something else then.
    """
    left = set(sources)
    for labeled in (True, False):
        asked = project_id, number, tuple(left), sources
        for task_id, found in context.store.predictions(*asked, labeled=labeled, tag=tag):
            left.remove(task_id)
            yield task_id, found
