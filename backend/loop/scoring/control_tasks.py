"""Control tasks of a version: tasks that it hands out without its regions, to measure what pre-annotation saves."""

from __future__ import annotations

from collections.abc import Collection

from backend.loop.context import Context
from backend.loop.served_models import ServedModel
from backend.sampling.blanks import blank_tasks
from backend.settings import Settings
from backend.types import Ranking


def draw(
    context: Context, settings: Settings, model: ServedModel, order: Ranking, present: Collection[int]
) -> frozenset[int]:
    """Return the tasks that the version hands out without regions, drawn once per version and stored.

    A changed BLANK_SHARE acts from the next version on, because people may have seen the regions of this one. For the
    same reason, a task that has a prediction of the version already (`present`) is not drawn.
    """
    drawn = context.store.state.blank_tasks(model.project_id, model.number)
    if drawn is None and not settings.blank_share:
        return frozenset()
    if drawn is None:
        drawn = blank_tasks(order, settings.blank_share, model.number) - frozenset(present)
        context.store.state.save_blank_tasks(model.project_id, model.number, drawn)
    return drawn


def drawn_for(context: Context, model: ServedModel) -> frozenset[int]:
    """Return the tasks that the version hands out without regions; none before its first push."""
    return context.store.state.blank_tasks(model.project_id, model.number) or frozenset()
