"""The two Data Manager tabs that we make: the queue, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backend.labelstudio.client.http import Answer, parse_list
from backend.labelstudio.client.project import LABELED, QUEUED, ProjectCalls, condition, filters
from backend.types import Json

QUEUE_TAB = "Active learning queue"
DOUBTS_TAB = "Possible label errors"
_SCORE, _IDS = "filter:tasks:predictions_score", "filter:tasks:annotations_ids"
_NOBODY = "0"  # no annotation has this id; an empty filter would be none


class _View(Answer):
    id: int
    data: dict[str, Any] | None = None


class TabCalls(ProjectCalls):
    """The calls about Data Manager tabs; mixed into the client."""

    def ensure_queue_tab(self, project_id: int) -> bool:
        """Add a tab of the tasks that are handed out, lowest prediction score first; return whether one was added."""
        if self._tab(project_id, QUEUE_TAB) is not None:
            return False
        tab = {"title": QUEUE_TAB, "ordering": ["tasks:predictions_score"], "filters": filters(QUEUED)}
        self._add_tab(project_id, tab)
        return True

    def ensure_doubts_tab(self, project_id: int, suspect: float) -> bool:
        """Add a tab of labeled tasks whose labels look wrong, worst first; return whether one was added or changed.

        Labels of a quality below `suspect` look wrong. The tab lists annotations by their ids;
        `set_label_issues` fills them in. One that an earlier release made goes by scores above 1: it is changed.
        """
        view = self._tab(project_id, DOUBTS_TAB)
        if view is None:
            suspicious = condition("predictions_score", "greater", "Number", round(1 - suspect, 6))
            chosen = filters(LABELED, _ids(()), suspicious)
            tab = {"title": DOUBTS_TAB, "ordering": ["-tasks:predictions_score"], "filters": chosen}
            self._add_tab(project_id, tab)
            return True
        items = _items(view)
        if not any(_goes_by_more_than_1(item) for item in items):
            return False
        items = [
            item | {"value": round(float(item["value"]) - 1, 6)} if _goes_by_more_than_1(item) else item
            for item in items
        ]
        self._set_filters(project_id, view, [*items, _ids(())])
        return True

    def set_label_issues(self, project_id: int, annotations: Iterable[int]) -> bool:
        """Let the tab of possible label errors list these annotations; return whether that changed it.

        A tab that somebody deleted, or whose list of ids somebody took out, is left as it is.
        """
        view = self._tab(project_id, DOUBTS_TAB)
        items, wanted = _items(view), _ids(annotations)
        if view is None or wanted in items or not any(item.get("filter") == _IDS for item in items):
            return False
        self._set_filters(project_id, view, [wanted if item.get("filter") == _IDS else item for item in items])
        return True

    def _tab(self, project_id: int, title: str) -> _View | None:
        self.project(project_id)  # for an unknown one Label Studio answers 400, or no tab at all
        views = parse_list(_View, self.http.get("/api/dm/views/", project=project_id))
        return next((view for view in views if (view.data or {}).get("title") == title), None)

    def _add_tab(self, project_id: int, data: Json) -> None:
        """Add a tab. The Data Manager makes its "Default" tab only while there is none at all, so that is added too."""
        titles = [data] if self.http.get("/api/dm/views/", project=project_id) else [{"title": "Default"}, data]
        for each in titles:
            view = {"project": project_id, "data": {"type": "list", "target": "tasks", **each}}
            self.http.send("POST", "/api/dm/views/", view)

    def _set_filters(self, project_id: int, view: _View, items: list[Json]) -> None:
        conjunction = ((view.data or {}).get("filters") or {}).get("conjunction", "and")
        data = (view.data or {}) | {"filters": {"conjunction": conjunction, "items": items}}
        self.http.send("PATCH", f"/api/dm/views/{view.id}/", {"project": project_id, "data": data})


def _ids(annotations: Iterable[int]) -> Json:
    return condition("annotations_ids", "contains", "String", " ".join(map(str, annotations)) or _NOBODY)


def _items(view: _View | None) -> list[Json]:
    """Return a tab's filters; somebody may have taken all of them out."""
    found = ((view.data if view else None) or {}).get("filters") or {}
    return [item for item in found.get("items") or [] if isinstance(item, dict)]


def _goes_by_more_than_1(item: Json) -> bool:
    value = item.get("value")
    return item.get("filter") == _SCORE and isinstance(value, int | float) and value > 1
