"""The Data Manager's conditions on tasks, as requests for tasks and tabs carry them."""

from __future__ import annotations

from typing import Any

from backend.types import Json


def condition(column: str, operator: str, kind: str, value: Any) -> Json:
    """Return one Data Manager condition on tasks."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def filters(*conditions: Json) -> Json:
    """Return Data Manager filters that ask for all of `conditions`."""
    return {"conjunction": "and", "items": list(conditions)}


# What Label Studio hands out: tasks with fewer annotations, each by another user, than the project wants.
UNLABELED = condition("is_labeled", "equal", "Boolean", False)
COMPLETED = condition("is_labeled", "equal", "Boolean", True)
QUEUED = condition("completed_at", "empty", "Datetime", True)  # the same as a column that the Data Manager shows
LABELED = condition("total_annotations", "greater", "Number", 0)
ANY_SCORE = condition("predictions_score", "greater", "Number", -1)  # so that the score comes with each task
