"""Predictions of versions that no longer serve: deleted while nobody annotates, or one by one after a day."""

from __future__ import annotations

import time
from contextlib import suppress

from backend import activity
from backend.context import Context
from backend.errors import NotFoundError
from backend.models import base_model, name_of, project_record
from backend.store import version_name

AT_ONCE = 20  # predictions per job: other jobs get their turn
PAUSE_S = 5.0  # between two jobs
LONGEST_WAIT_S = 24 * 3600.0  # then some predictions go although people annotate: a project must not grow for ever
_SINCE = "old_predictions_since"


def delete_some(context: Context, project_id: int) -> float | None:
    """Delete a few predictions of versions of ours that no longer serve.

    Return in how many seconds to come again; None: nothing is left. Each deletion is a request of its own: Label Studio
    offers no smaller transaction. While people annotate nothing is deleted, because on SQLite some of their requests
    would fail; after LONGEST_WAIT_S one goes at a time.
    """
    version = _oldest(context, project_id)
    if version is None:
        context.progress.remember(project_id, _SINCE, "")
        return None
    overdue, at_most = _waited_s(context, project_id) > LONGEST_WAIT_S, AT_ONCE
    if activity.people_annotate(context, project_id):
        if not overdue:
            return activity.QUIET_S
        at_most = 1
    for prediction_id in context.label_studio.prediction_ids(project_id, version, at_most):
        if at_most > 1 and activity.is_noted(context.redis):  # somebody has come back
            break
        with suppress(NotFoundError):  # somebody else deleted it
            context.label_studio.delete_prediction(prediction_id)
    return PAUSE_S


def _oldest(context: Context, project_id: int) -> str | None:
    """Return a version of ours that no longer serves and that has predictions in Label Studio."""
    record = project_record(context, project_id)
    ours = [version_name(base_model(context, record), 0)]
    ours += [version.name for version in context.store.versions(project_id)]
    kept = {name_of(context, record), name_of(context, record, accepted=True)}
    kept.add(context.label_studio.project(project_id).model_version)
    present = context.label_studio.prediction_versions(project_id)
    return next((version for version in ours if version in present and version not in kept), None)


def _waited_s(context: Context, project_id: int) -> float:
    """Return for how long old predictions have been waiting; a clock that was set back starts anew."""
    now, since = time.time(), float(context.progress.recall(project_id, _SINCE) or "inf")
    if since > now:
        context.progress.remember(project_id, _SINCE, repr(now))
        return 0.0
    return now - since
