"""The two Data Manager tabs that we make: the queue, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backend.labelstudio.client.filters import LABELED, QUEUED, condition, filters
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse_list
from backend.labelstudio.client.projects import Projects
from backend.types import Json

QUEUE_TAB = "Active learning queue"
LABEL_ISSUES_TAB = "Possible label errors"
_SCORE, _IDS = "filter:tasks:predictions_score", "filter:tasks:annotations_ids"
_NO_ANNOTATION = "0"  # no annotation has this id; an empty filter would let all tasks through


class _View(Answer):
    id: int
    data: dict[str, Any] | None = None


class Tabs:
    """The calls about Data Manager tabs."""

    def __init__(self, http: LabelStudioHTTP, projects: Projects) -> None:
        self._http = http
        self._projects = projects

    def ensure_queue(self, project_id: int) -> bool:
        """Add a tab of the tasks that are handed out, lowest prediction score first; return whether one was added."""
        if self._tab(project_id, QUEUE_TAB) is not None:
            return False
        tab = {"title": QUEUE_TAB, "ordering": ["tasks:predictions_score"], "filters": filters(QUEUED)}
        self._add_tab(project_id, tab)
        return True

    def ensure_label_issues(self, project_id: int, suspect: float) -> bool:
        """Add a tab of labeled tasks whose labels look wrong, worst first; return whether one was added or changed.

        Labels of a quality below `suspect` look wrong. The tab lists annotations by their ids;
        `set_label_issues` fills them in. A tab of an earlier release filters by scores
        above 1; it is changed.
        """
        view = self._tab(project_id, LABEL_ISSUES_TAB)
        if view is None:
            suspicious = condition("predictions_score", "greater", "Number", round(1 - suspect, 6))
            chosen = filters(LABELED, _ids(()), suspicious)
            tab = {"title": LABEL_ISSUES_TAB, "ordering": ["-tasks:predictions_score"], "filters": chosen}
            self._add_tab(project_id, tab)
            return True
        items = _items(view)
        if not any(_filters_above_1(item) for item in items):
            return False
        items = [
            item | {"value": round(float(item["value"]) - 1, 6)} if _filters_above_1(item) else item for item in items
        ]
        self._set_filters(project_id, view, [*items, _ids(())])
        return True

    def set_label_issues(self, project_id: int, annotations: Iterable[int]) -> bool:
        """Let the tab of possible label errors list these annotations; return whether that changed it.

        A tab that somebody deleted, or without its filter on annotation ids, is left as it is.
        """
        view = self._tab(project_id, LABEL_ISSUES_TAB)
        items, wanted = _items(view), _ids(annotations)
        if view is None or wanted in items or not any(item.get("filter") == _IDS for item in items):
            return False
        self._set_filters(project_id, view, [wanted if item.get("filter") == _IDS else item for item in items])
        return True

    def _tab(self, project_id: int, title: str) -> _View | None:
        self._projects.get(project_id)  # for an unknown one Label Studio answers 400, or no tab at all
        views = parse_list(_View, self._http.get("/api/dm/views/", project=project_id))
        return next((view for view in views if (view.data or {}).get("title") == title), None)

    def _add_tab(self, project_id: int, data: Json) -> None:
        """Add a tab, after a tab "Default" where there is none: the Data Manager adds that only to an empty list."""
        tabs = [data] if self._http.get("/api/dm/views/", project=project_id) else [{"title": "Default"}, data]
        for tab in tabs:
            view = {"project": project_id, "data": {"type": "list", "target": "tasks", **tab}}
            self._http.send("POST", "/api/dm/views/", view)

    def _set_filters(self, project_id: int, view: _View, items: list[Json]) -> None:
        conjunction = ((view.data or {}).get("filters") or {}).get("conjunction", "and")
        data = (view.data or {}) | {"filters": {"conjunction": conjunction, "items": items}}
        self._http.send("PATCH", f"/api/dm/views/{view.id}/", {"project": project_id, "data": data})


def _ids(annotations: Iterable[int]) -> Json:
    return condition("annotations_ids", "contains", "String", " ".join(map(str, annotations)) or _NO_ANNOTATION)


def _items(view: _View | None) -> list[Json]:
    """Return a tab's filters; somebody may have removed all of them."""
    tab_filters = ((view.data if view else None) or {}).get("filters") or {}
    return [item for item in tab_filters.get("items") or [] if isinstance(item, dict)]


def _filters_above_1(item: Json) -> bool:
    value = item.get("value")
    return item.get("filter") == _SCORE and isinstance(value, int | float) and value > 1
