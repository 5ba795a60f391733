"""The tasks of a Label Studio project: the pool, and pages of tasks for whoever reads what lies on them."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from backend.errors import LabelStudioError, NotFoundError
from backend.labelstudio.client.filters import COMPLETED, UNLABELED, condition, filters
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse, parse_list
from backend.labelstudio.client.projects import Created
from backend.labelstudio.client.recent_tasks import RecentTasks
from backend.types import Json, Task

PAGE = 500  # SQLite fails at 1,000 uploaded images: Label Studio asks for their files by a chain of ORs
IDS_PER_QUERY = 500  # they travel in the address, which proxies often cap at 8 kB
FILES_PER_UPLOAD = 100  # Label Studio's DATA_UPLOAD_MAX_NUMBER_FILES
_QUEUE_ENDS = (
    "There are no tasks",
    "There are still some tasks",
)  # Label Studio's 404 for both reasons, now and before 1.23


class _Task(Answer):
    id: int
    data: dict[str, Any]


class CompletedTask(Answer):
    """A task that Label Studio no longer hands out."""

    id: int
    overlap: int  # annotations that complete it
    total_annotations: int  # without skips


class Page(Answer):
    """One page of tasks, as Label Studio's JSON."""

    tasks: list[dict[str, Any]]


class Tasks:
    """The calls about tasks."""

    def __init__(self, http: LabelStudioHTTP) -> None:
        self._http = http
        self._recent = RecentTasks()

    def get(self, task_id: int) -> Task:
        """Return one task. Raises NotFoundError."""
        missing = f"no task {task_id} in Label Studio"
        return _task(self._http.get(f"/api/tasks/{task_id}/", missing=missing, include="id,data", resolve_uri="false"))

    def latest_change(self, project_id: int) -> str:
        """Return a text that differs after any change of a task: the task changed last, when, and the number of tasks.

        It misses what Label Studio changes in bulk; `ProjectInfo.counts` shows that. Raises NotFoundError.
        """
        page = self._http.get(
            "/api/tasks",
            missing=f"no project {project_id} in Label Studio",
            project=project_id,
            page_size=1,
            include="id,updated_at",
            query=json.dumps({"ordering": ["-tasks:updated_at"]}),
        )
        return json.dumps(page, sort_keys=True)

    def get_many(self, project_id: int, ids: Iterable[int], *conditions: Json) -> list[Task]:
        """Return the project's tasks with these ids that meet `conditions`, in the order of `ids`.

        Tasks that were deleted are left out.
        """
        wanted = list(ids)
        tasks: dict[int, Task] = {}
        for start in range(0, len(wanted), IDS_PER_QUERY):
            selected = {"all": False, "included": wanted[start : start + IDS_PER_QUERY]}
            for page in self.pages(project_id, *conditions, include="id,data", selected=selected):
                tasks |= {task.id: task for task in map(_task, page)}
        return [tasks[task_id] for task_id in wanted if task_id in tasks]

    def note_shown(self, project_id: int, tasks: Iterable[Task]) -> None:
        """Remember for a minute the tasks that a page shows; `shown` then asks Label Studio for none of them."""
        self._recent.note(project_id, tasks)

    def shown(self, project_id: int, task_id: int) -> Task | None:
        """Return one of the project's tasks as it was in the last minute; None if there is no such task."""
        task = self._recent.find(project_id, task_id)
        if task is None:
            task = next(iter(self.get_many(project_id, [task_id])), None)
            self._recent.note(project_id, [task] if task else [])
        return task

    def all(self, project_id: int) -> Iterator[Task]:
        """Yield all tasks of a project, by id. Raises NotFoundError."""
        for page in self.pages(project_id, include="id,data"):
            yield from map(_task, page)

    def unlabeled(self, project_id: int) -> Iterator[Task]:
        """Yield the tasks that Label Studio's queue still hands out, by id: those that it does not call labeled.

        Where a project wants several annotations per task, a task with fewer of them is unlabeled. So is a task that
        was only skipped, because LS gives it to other annotators, or to the same one again. Where the project ignores
        skipped tasks, a skip counts as an annotation. Drafts do not count. Raises NotFoundError.
        """
        for page in self.pages(project_id, UNLABELED, include="id,data"):
            yield from (Task(task.id, task.data) for task in parse_list(_Task, page))

    def completed(self, project_id: int, after: int = 0) -> Iterator[Task]:
        """Yield the tasks that Label Studio no longer hands out, by id from `after` on. Raises NotFoundError."""
        for page in self.pages(project_id, COMPLETED, condition("id", "greater", "Number", after), include="id,data"):
            yield from (Task(task.id, task.data) for task in parse_list(_Task, page))

    def completed_overlaps(self, project_id: int, ids: Sequence[int]) -> Iterator[CompletedTask]:
        """Yield which of these tasks Label Studio no longer hands out, with their overlap. Raises NotFoundError."""
        for start in range(0, len(ids), IDS_PER_QUERY):
            selected: Json = {"all": False, "included": list(ids[start : start + IDS_PER_QUERY])}
            for page in self.pages(project_id, COMPLETED, include="id,overlap,total_annotations", selected=selected):
                yield from parse_list(CompletedTask, page)

    def reopen(self, task: CompletedTask) -> None:
        """Let Label Studio hand out a task until one more person has annotated it. Raises NotFoundError."""
        body = {"overlap": task.total_annotations + 1, "is_labeled": False}
        missing = f"no task {task.id} in Label Studio"
        self._http.send("PATCH", f"/api/tasks/{task.id}/", body, missing=missing)

    def pages(
        self, project_id: int, *conditions: Json, size: int = PAGE, selected: Json | None = None, **params: Any
    ) -> Iterator[list[Json]]:
        """Yield pages of tasks by ascending id, as Label Studio's JSON.

        Each page starts after the last id of the page before, so no task is missed when tasks leave the filter
        meanwhile.
        """
        missing = f"no project {project_id} in Label Studio"
        last = 0
        while True:
            query: Json = {
                "filters": filters(condition("id", "greater", "Number", last), *conditions),
                "ordering": ["tasks:id"],
            }
            if selected is not None:
                query["selectedItems"] = selected
            page = self._http.get(
                "/api/tasks",
                missing=missing,
                project=project_id,
                page_size=size,
                resolve_uri="false",
                query=json.dumps(query),
                **params,
            )
            tasks = parse(Page, page).tasks
            before, last = last, max((parse(Created, task).id for task in tasks), default=last)
            if tasks:
                yield tasks
            if len(tasks) < size:
                return
            if last <= before:
                raise LabelStudioError(
                    f"Label Studio answers a page of tasks after {before} with tasks up to {last}",
                    where=f"project {project_id}",
                    fix="use Label Studio 1.23",
                )

    # What an annotator and an admin do in Label Studio's pages; the demo and the tests do it here.

    def upload_images(self, project_id: int, paths: Sequence[Path]) -> None:
        """Upload image files, one task each, as dropping them into Label Studio's import dialog does."""
        for start in range(0, len(paths), FILES_PER_UPLOAD):
            with ExitStack() as stack:
                files = [  # of files under one name LS keeps only the last
                    (str(index), (path.name, stack.enter_context(path.open("rb")), mimetypes.guess_type(path.name)[0]))
                    for index, path in enumerate(paths[start : start + FILES_PER_UPLOAD])
                ]
                missing = f"no project {project_id} in Label Studio"
                self._http.send("POST", f"/api/projects/{project_id}/import", missing=missing, files=files)

    def next(self, project_id: int) -> Task | None:
        """Return the task Label Studio's queue hands to the token's user next (and locks for them), None at its end."""
        try:
            return _task(self._http.get(f"/api/projects/{project_id}/next/"))
        except NotFoundError as error:
            if any(words in error.what for words in _QUEUE_ENDS):
                return None
            raise


def _task(payload: Any) -> Task:
    task = parse(_Task, payload)
    return Task(task.id, task.data)
