"""The two Data Manager tabs that we make: the queue, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from backend.errors import RequestError
from backend.labelstudio.client.filters import LABELED, QUEUED, condition, filters
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse, parse_list
from backend.labelstudio.client.projects import Created, Projects
from backend.types import Json

QUEUE_TAB = "Learning queue"  # Label Studio cuts titles of more than about 17 letters
LABEL_ISSUES_TAB = "Label errors"
_EARLIER = {QUEUE_TAB: "Active learning queue", LABEL_ISSUES_TAB: "Possible label errors"}  # of earlier releases
_COLUMNS = ("id", "predictions_score")  # shown in each tab, beside the picture
_MEDIA = ("Image", "Video")
_SCORE, _IDS = "filter:tasks:predictions_score", "filter:tasks:annotations_ids"
MOST_RUNS = 500  # conditions of a tab: SQLite refuses 1,000 in one query, and each costs Label Studio two more queries
_NO_ANNOTATION = "0"  # no annotation has this id; an empty filter would let all tasks through


class _View(Answer):
    id: int
    data: dict[str, Any] | None = None
    is_locked: bool | None = None  # somebody wants the tab as it is; Label Studio 1.23 has no locks


class _Column(Answer):
    id: str
    type: str = ""
    parent: str | None = None

    @property
    def key(self) -> str:
        """The name of the column in a tab."""
        return f"tasks:{self.parent}.{self.id}" if self.parent else f"tasks:{self.id}"


class _Columns(Answer):
    columns: list[_Column]


class Tabs:
    """The calls about Data Manager tabs."""

    def __init__(self, http: LabelStudioHTTP, projects: Projects) -> None:
        self._http = http
        self._projects = projects

    def ensure_queue(self, project_id: int) -> bool:
        """Add a tab of the tasks that are handed out, lowest prediction score first; return whether one was added.

        A tab of an earlier release gets the name of now.
        """
        if (view := self._tab(project_id, QUEUE_TAB)) is not None:
            self._rename(project_id, view, QUEUE_TAB)
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
            self._add_tab(project_id, tab, "annotators")
            return True
        view = self._rename(project_id, view, LABEL_ISSUES_TAB)
        items = _items(view)
        if view.is_locked or not any(_filters_above_1(item) for item in items):
            return False
        items = [
            item | {"value": round(float(item["value"]) - 1, 6)} if _filters_above_1(item) else item for item in items
        ]
        self._set_filters(project_id, view, [*items, _ids(())])
        return True

    def set_label_issues(self, project_id: int, annotations: Iterable[int]) -> bool:
        """Let the tab of possible label errors list these annotations; return whether that changed it.

        A tab that somebody deleted or locked, or without its filter on annotation ids, is left as it is.
        """
        view = self._tab(project_id, LABEL_ISSUES_TAB)
        items, wanted = _items(view), _ids(annotations)
        if view is None or view.is_locked or wanted in items or not any(item.get("filter") == _IDS for item in items):
            return False
        self._set_filters(project_id, view, [wanted if item.get("filter") == _IDS else item for item in items])
        return True

    def add_selection(self, project_id: int, title: str, task_ids: Iterable[int]) -> int:
        """Add a tab that lists exactly these tasks, by their prediction score; return its id.

        Raises RequestError for more than MOST_RUNS separate tasks; ids that follow each other count as one.
        """
        runs = list(_runs(sorted(set(task_ids))))
        if len(runs) > MOST_RUNS:
            fix = f"select fewer; a tab can name {MOST_RUNS} tasks, and more if their ids follow each other"
            raise RequestError(f"a tab of {len(runs)} separate tasks is too large for Label Studio", fix=fix)
        items = [
            condition("id", "equal", "Number", first)
            if first == last
            else condition("id", "in", "Number", {"min": first, "max": last})
            for first, last in runs
        ]
        self._projects.get(project_id)
        chosen = {"conjunction": "or", "items": items}
        tab = {"title": title, "ordering": ["tasks:predictions_score"], "filters": chosen}
        return self._add_tab(project_id, tab)

    def _tab(self, project_id: int, title: str) -> _View | None:
        self._projects.get(project_id)  # for an unknown one Label Studio answers 400, or no tab at all
        views = parse_list(_View, self._http.get("/api/dm/views/", project=project_id))
        for name in (title, _EARLIER[title]):
            for view in views:
                if (view.data or {}).get("title") == name:
                    return view
        return None

    def _rename(self, project_id: int, view: _View, title: str) -> _View:
        """Return the tab with this title, which it gets if an earlier release has made it and nobody has locked it."""
        data = view.data or {}
        if data.get("title") == title or view.is_locked:
            return view
        layout = {} if "hiddenColumns" in data else self._layout(project_id)  # somebody may have chosen columns
        body = {"project": project_id, "data": data | layout | {"title": title}}
        return parse(_View, self._http.send("PATCH", f"/api/dm/views/{view.id}/", body))

    def _add_tab(self, project_id: int, data: Json, *columns: str) -> int:
        """Add a tab of pictures, after a tab "Default" where there is none, and return its id.

        The Data Manager adds "Default" only to an empty list. `columns` are shown beside those of every tab.
        """
        shown, made = self._layout(project_id, *columns) | data, 0
        tabs = [shown] if self._http.get("/api/dm/views/", project=project_id) else [{"title": "Default"}, shown]
        for tab in tabs:
            view = {"project": project_id, "data": {"type": "list", "target": "tasks", **tab}}
            made = parse(Created, self._http.send("POST", "/api/dm/views/", view)).id
        return made

    def _layout(self, project_id: int, *columns: str) -> Json:
        """Return a grid of pictures with few columns: the id, the score, the picture and `columns`.

        With pictures Label Studio's grid shows the picture and the id alone; its list shows all of them.
        """
        all_columns = parse(_Columns, self._http.get("/api/dm/columns", project=project_id)).columns
        shown = {"data", *_COLUMNS, *columns}  # "data" is the parent of the picture
        hidden = [column.key for column in all_columns if column.id not in shown and column.type not in _MEDIA]
        return {"type": "grid", "gridWidth": 4, "hiddenColumns": {"explore": hidden, "labeling": hidden}}

    def _set_filters(self, project_id: int, view: _View, items: list[Json]) -> None:
        conjunction = ((view.data or {}).get("filters") or {}).get("conjunction", "and")
        data = (view.data or {}) | {"filters": {"conjunction": conjunction, "items": items}}
        self._http.send("PATCH", f"/api/dm/views/{view.id}/", {"project": project_id, "data": data})


def _runs(task_ids: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of ids that follow each other.

    >>> list(_runs([1, 2, 3, 7, 9, 10]))
    [(1, 3), (7, 7), (9, 10)]
    """
    start = 0
    for end in range(1, len(task_ids) + 1):
        if end == len(task_ids) or task_ids[end] != task_ids[end - 1] + 1:
            yield task_ids[start], task_ids[end - 1]
            start = end


def _ids(annotations: Iterable[int]) -> Json:
    return condition("annotations_ids", "contains", "String", " ".join(map(str, annotations)) or _NO_ANNOTATION)


def _items(view: _View | None) -> list[Json]:
    """Return a tab's filters; somebody may have removed all of them."""
    tab_filters = ((view.data if view else None) or {}).get("filters") or {}
    return [item for item in tab_filters.get("items") or [] if isinstance(item, dict)]


def _filters_above_1(item: Json) -> bool:
    value = item.get("value")
    return item.get("filter") == _SCORE and isinstance(value, int | float) and value > 1
