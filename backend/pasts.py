"""What a tag's models of earlier versions said: the newest that had not learned from a task judges it fairly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.context import Context
from backend.models import ServedModel, past_models
from backend.types import Prediction


@dataclass(frozen=True, slots=True)
class Past:
    """A tag's model of one version: where its predictions are, and what it had learned by then."""

    project_id: int
    number: int
    tag: str  # its name in the store
    classes: tuple[str, ...]
    learned: frozenset[int]


def pasts_of(context: Context, model: ServedModel) -> list[Past]:
    """Return a tag's models up to this one, newest first."""
    found = []
    for version, known in past_models(context, model):
        place = version.place_of(model.tag, first=not model.beside)
        found.append(Past(version.project_id, version.number, place, known.classes, version.known_tasks(place)))
    return found


def fair(context: Context, pasts: Sequence[Past], task_id: int) -> tuple[Past, Prediction] | None:
    """Return the newest that had not learned from a task, and what it says of it; None where none says anything.

    Nor of a video: boxes of many frames cannot be told apart.
    """
    for past in pasts:
        if task_id not in past.learned:
            found = _prediction(context, past, task_id)
            if found is not None and found.tracks is None:
                return past, found
    return None


def _prediction(context: Context, past: Past, task_id: int) -> Prediction | None:
    store, place = context.store, (past.project_id, past.number, task_id)
    late = store.prediction(*place, labeled=True, tag=past.tag)
    return late if late is not None else store.prediction(*place, tag=past.tag)
