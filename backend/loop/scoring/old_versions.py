"""Predictions of versions that no longer serve: deleted while nobody annotates, or one by one after a day.

A version is ours if it is in the store. If the store was lost, its predictions are still in Label Studio. Then the ids
of their regions show that they are ours.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from itertools import islice

from backend.errors import NotFoundError
from backend.labelstudio.client.connection import StoredPrediction
from backend.labelstudio.regions import region_id
from backend.loop import studio_state
from backend.loop.base_models import base_model
from backend.loop.context import Context
from backend.loop.scoring import activity
from backend.loop.served_models import name_of, project_record
from backend.store.store import version_name

AT_ONCE = 20  # predictions per job: other jobs get their turn
PAUSE_S = 5.0  # between two jobs
LONGEST_WAIT_S = 24 * 3600.0  # then predictions are deleted although people annotate, so that the project stops growing
PROBED = 20  # tasks that are read to find a region of a version that is not in the store
DETECTIONS = 1000  # the most regions of one image
_SINCE = "old_predictions_since"
_NAME = re.compile(r".+-v[0-9]{1,9}")
_FOREIGN_S = 24 * 3600  # for this long a version counts as foreign after its regions have shown it


def delete_some(context: Context, project_id: int) -> float | None:
    """Delete a few predictions of our versions that no longer serve.

    Return the seconds until the next call, None if nothing is left. Each deletion is a separate request, because that
    is Label Studio's smallest transaction. While people annotate nothing is deleted: on SQLite some of their requests
    would fail. After LONGEST_WAIT_S one prediction is deleted at a time.
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
    for prediction_id in context.label_studio.predictions.ids(project_id, version, at_most):
        if at_most > 1 and activity.is_noted(context.redis):  # somebody has come back
            break
        with suppress(NotFoundError):  # somebody else deleted it
            context.label_studio.predictions.delete(prediction_id)
    return PAUSE_S


def are_left(context: Context, project_id: int) -> bool:
    """Return whether Label Studio has predictions of our versions that no longer serve."""
    return _oldest(context, project_id) is not None


def _oldest(context: Context, project_id: int) -> str | None:
    """Return the oldest of our versions that no longer serves and has predictions in Label Studio, None if none has."""
    record = project_record(context, project_id)
    ours = [version_name(base_model(context, record), 0)]
    ours += [version.name for version in context.store.versions(project_id)]
    in_use = {name_of(context, record), name_of(context, record, accepted=True)}
    in_use.add(context.label_studio.projects.get(project_id).model_version)
    present = context.label_studio.predictions.versions(project_id).keys() - in_use
    unknown = sorted(name for name in present - set(ours) if _NAME.fullmatch(name))
    lost = (name for name in unknown if _is_of_a_lost_store(context, project_id, name))
    return next((version for version in ours if version in present), None) or next(lost, None)


def _is_of_a_lost_store(context: Context, project_id: int, version: str) -> bool:
    """Return whether we wrote the predictions of a version that is not in the store.

    The answer is no if another installation of this backend works in the project, because its regions have the same
    ids. It is also no before the first reconcile has looked for such an installation, and if none of PROBED tasks has a
    region.
    """
    state = studio_state.last(context, project_id)
    if not state.reached or state.rivals or context.progress.recall(project_id, f"foreign {version}"):
        return False
    client = context.label_studio
    for stamp in islice(client.predictions.stamps(project_id, version, size=PROBED), PROBED):
        for prediction in client.predictions.of_task(stamp.task_id):
            if prediction.version == version and prediction.result:
                ours = _has_our_ids(prediction)
                if not ours:
                    context.progress.remember(project_id, f"foreign {version}", "yes", for_s=_FOREIGN_S)
                return ours
    return False


def _has_our_ids(prediction: StoredPrediction) -> bool:
    """Return whether a prediction's regions have the ids that `push.encode` gives them."""
    key = f"{prediction.task_id}/{prediction.version}"
    tags = {str(item.get("from_name")) for item in prediction.result}
    ids = {region_id(key, tag, row) for tag in tags for row in range(DETECTIONS)}
    return any(item.get("id") in ids for item in prediction.result)


def _waited_s(context: Context, project_id: int) -> float:
    """Return for how long old predictions have been waiting, in seconds; it is 0 after the clock was set back."""
    now, since = time.time(), float(context.progress.recall(project_id, _SINCE) or "inf")
    if since > now:
        context.progress.remember(project_id, _SINCE, repr(now))
        return 0.0
    return now - since
