"""The tasks and annotations of a Label Studio project: the pool, the labels, and what an annotator does."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from backend.errors import LabelStudioError, NotFoundError
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse, parse_list
from backend.labelstudio.client.project import COMPLETED, LABELED, UNLABELED, Created, condition, filters
from backend.types import AnnotatedTask, Json, Task

PAGE = 500  # SQLite fails at 1,000 uploaded images: Label Studio asks for their files by a chain of ORs
IDS_PER_QUERY = 500  # they travel in the address, which proxies often cap at 8 kB
RECENT = 250  # tasks that are looked at for a sign of life
FILES_PER_UPLOAD = 100  # Label Studio's DATA_UPLOAD_MAX_NUMBER_FILES


class _Task(Answer):
    id: int
    data: dict[str, Any]


class _Annotation(Answer):
    id: int
    updated_at: str
    was_cancelled: bool
    ground_truth: bool
    result: list[Any] | None = None  # an import takes items that are no objects


class _Person(Answer):
    id: int
    last_activity: datetime | None = None


class _Time(Answer):
    updated_at: datetime


class _Page(Answer):
    tasks: list[dict[str, Any]]


class _Labels(Answer):
    id: int
    data: dict[str, Any] | None = None
    annotations: list[_Annotation]


class _Touched(Answer):
    """A task, with the times at which somebody worked on it."""

    annotations: tuple[_Time, ...] = ()
    drafts: tuple[_Time, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelStamp:
    """Which annotation of a task counts, and when it was last changed."""

    annotation_id: int
    updated_at: str


class TaskCalls:
    """The calls about tasks and annotations; mixed into the client, which brings `http`."""

    http: LabelStudioHTTP

    def task(self, task_id: int) -> Task:
        """Return one task. Raises NotFoundError."""
        missing = f"no task {task_id} in Label Studio"
        found = self.http.get(f"/api/tasks/{task_id}/", missing=missing, include="id,data", resolve_uri="false")
        return _task(found)

    def latest_change(self, project_id: int) -> str:
        """Return which task changed last, and when, and how many there are: another text after whatever happened.

        But for what Label Studio changes in bulk, which `ProjectInfo.counts` tells. Raises NotFoundError.
        """
        page = self.http.get(
            "/api/tasks",
            missing=f"no project {project_id} in Label Studio",
            project=project_id,
            page_size=1,
            include="id,updated_at",
            query=json.dumps({"ordering": ["-tasks:updated_at"]}),
        )
        return json.dumps(page, sort_keys=True)

    def tasks(self, project_id: int, ids: Iterable[int], *conditions: Json) -> list[Task]:
        """Return the project's tasks with these ids, in their order; tasks that are gone are left out.

        So are those that do not meet `conditions`.
        """
        wanted = list(ids)
        found: dict[int, Task] = {}
        for start in range(0, len(wanted), IDS_PER_QUERY):
            chosen = {"all": False, "included": wanted[start : start + IDS_PER_QUERY]}
            for page in self.pages(project_id, *conditions, include="id,data", selected=chosen):
                found |= {task.id: task for task in map(_task, page)}
        return [found[task_id] for task_id in wanted if task_id in found]

    def unlabeled_tasks(self, project_id: int) -> Iterator[Task]:
        """Yield the tasks that Label Studio's queue still hands out, by id: those that it does not call labeled.

        With an overlap those are among them that have fewer annotations than are wanted, each by another user. So is a
        task that was only skipped, because LS gives it to other annotators (or to the same one again); not so where
        the project ignores skipped tasks: there a skip counts as an annotation. Drafts count for nothing. Raises
        NotFoundError.
        """
        for page in self.pages(project_id, UNLABELED, include="id,data"):
            yield from (Task(task.id, task.data) for task in parse_list(_Task, page))

    def completed_tasks(self, project_id: int) -> Iterator[Task]:
        """Yield the tasks that Label Studio no longer hands out, by id. Raises NotFoundError."""
        for page in self.pages(project_id, COMPLETED, include="id,data"):
            yield from (Task(task.id, task.data) for task in parse_list(_Task, page))

    def annotated_tasks(self, project_id: int, ids: Sequence[int] | None = None) -> Iterator[AnnotatedTask]:
        """Yield each task that has a submitted annotation, with the one that counts, by task id; of `ids` alone.

        Ground truth comes first, then the newest by updated_at. Skips and drafts are no labels; no regions is one
        (a background image); annotations that were imported with the task count. Raises NotFoundError.
        """
        for task in self._labels_of(project_id, ids, "data,annotations.result"):
            if chosen := pick(task.annotations):
                yield AnnotatedTask(
                    task=Task(task.id, task.data or {}),
                    annotation_id=chosen.id,
                    updated_at=chosen.updated_at,
                    result=tuple(chosen.result or ()),
                    ground_truth=chosen.ground_truth,
                )

    def label_stamps(self, project_id: int, ids: Sequence[int] | None = None) -> dict[int, str]:
        """Return annotation id -> updated_at of exactly the annotations that `annotated_tasks` yields.

        `ids` asks for these tasks alone.
        Half the time and a twentieth of the bytes of an export, which also leaves two files on LS's disk per call.
        """
        return {label.annotation_id: label.updated_at for label in self.counted_labels(project_id, ids).values()}

    def counted_labels(self, project_id: int, ids: Sequence[int] | None = None) -> dict[int, LabelStamp]:
        """Return what `label_stamps` tells, by task id."""
        chosen = ((task.id, pick(task.annotations)) for task in self._labels_of(project_id, ids))
        return {task_id: LabelStamp(label.id, label.updated_at) for task_id, label in chosen if label}

    def newest_activity(self, project_id: int) -> float:
        """Return when somebody last annotated, as far as Label Studio tells; 0 for never, else in seconds of its clock.

        Of other users it tells when they last wrote anything, in any project. Our own user is known by the labels and
        drafts of this project: each of our own calls looks like work of theirs.
        """
        me = parse(_Person, self.http.get("/api/current-user/whoami")).id
        people = parse_list(_Person, self.http.get("/api/users/"))
        seconds = [person.last_activity.timestamp() for person in people if person.last_activity and person.id != me]
        # Writing a prediction touches its task too, so labels are looked for among the RECENT tasks touched last.
        for task in self._touched(project_id, include="id,annotations.updated_at", expand="annotations"):
            seconds += [annotation.updated_at.timestamp() for annotation in task.annotations]
        drafted = condition("draft_exists", "equal", "Boolean", True)  # a draft does not touch its task
        for task in self._touched(project_id, drafted, include="id,drafts"):
            seconds += [draft.updated_at.timestamp() for draft in task.drafts]
        return max(seconds, default=0.0)

    def _touched(self, project_id: int, *conditions: Json, **params: Any) -> list[_Touched]:
        query = {"filters": filters(*conditions), "ordering": ["-tasks:updated_at"]}
        page = self.http.get(
            "/api/tasks",
            missing=f"no project {project_id} in Label Studio",
            project=project_id,
            page_size=RECENT,
            fields="all",
            query=json.dumps(query),
            **params,
        )
        return parse_list(_Touched, parse(_Page, page).tasks)

    def labeled_task_ids(self, project_id: int) -> Iterator[int]:
        """Yield the ids of exactly the tasks that `annotated_tasks` yields."""
        return (task.id for task in self._labels(project_id) if pick(task.annotations))

    def _labels_of(self, project_id: int, ids: Sequence[int] | None, more: str = "") -> Iterator[_Labels]:
        """Yield the labels of all tasks, or of these, in requests whose addresses are not too long."""
        if ids is None:
            yield from self._labels(project_id, more)
            return
        for start in range(0, len(ids), IDS_PER_QUERY):
            yield from self._labels(project_id, more, ids[start : start + IDS_PER_QUERY])

    def _labels(self, project_id: int, more: str = "", ids: Sequence[int] | None = None) -> Iterator[_Labels]:
        stamps = "annotations.id,annotations.updated_at,annotations.was_cancelled,annotations.ground_truth"
        include = f"id,{stamps},{more}".rstrip(",")
        selected: Json | None = None if ids is None else {"all": False, "included": list(ids)}
        params: Json = {"include": include, "fields": "all", "expand": "annotations"}
        for page in self.pages(project_id, LABELED, selected=selected, **params):
            yield from (parse(_Labels, each) for each in page)

    def pages(
        self, project_id: int, *conditions: Json, size: int = PAGE, selected: Json | None = None, **params: Any
    ) -> Iterator[list[Json]]:
        """Yield pages of tasks by ascending id, as Label Studio's JSON.

        Each page starts after the last id seen, so that nothing is missed when tasks leave the filter meanwhile.
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
            page = self.http.get(
                "/api/tasks",
                missing=missing,
                project=project_id,
                page_size=size,
                resolve_uri="false",
                query=json.dumps(query),
                **params,
            )
            tasks = parse(_Page, page).tasks
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

    # What an annotator and an admin do, for the demo and the tests.

    def upload_images(self, project_id: int, paths: Sequence[Path]) -> None:
        """Upload image files, one task each, as dropping them into Label Studio's import dialog does."""
        for start in range(0, len(paths), FILES_PER_UPLOAD):
            with ExitStack() as stack:
                files = [  # of files under one name LS keeps only the last
                    (str(index), (path.name, stack.enter_context(path.open("rb")), mimetypes.guess_type(path.name)[0]))
                    for index, path in enumerate(paths[start : start + FILES_PER_UPLOAD])
                ]
                missing = f"no project {project_id} in Label Studio"
                self.http.send("POST", f"/api/projects/{project_id}/import", missing=missing, files=files)

    def next_task(self, project_id: int) -> Task | None:
        """Return the task Label Studio's queue hands to the token's user next (and locks for them), None at its end."""
        try:
            return _task(self.http.get(f"/api/projects/{project_id}/next/"))
        except NotFoundError as error:
            if "There are no tasks" in error.what:
                return None
            raise

    def annotate(self, task_id: int, result: Sequence[Json], *, was_cancelled: bool = False) -> int:
        """Submit an annotation, or skip the task with `was_cancelled`; return the annotation's id."""
        body = {"result": list(result), "was_cancelled": was_cancelled}
        missing = f"no task {task_id} in Label Studio"
        created = self.http.send("POST", f"/api/tasks/{task_id}/annotations/", body, missing=missing)
        return parse(Created, created).id

    def update_annotation(
        self, annotation_id: int, result: Sequence[Json] | None = None, *, ground_truth: bool | None = None
    ) -> None:
        """Change an annotation's regions, or its ground truth mark. Raises NotFoundError."""
        given = {"result": None if result is None else list(result), "ground_truth": ground_truth}
        body = {name: value for name, value in given.items() if value is not None}
        missing = f"no annotation {annotation_id} in Label Studio"
        self.http.send("PATCH", f"/api/annotations/{annotation_id}/", body, missing=missing)

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation. Raises NotFoundError."""
        missing = f"no annotation {annotation_id} in Label Studio"
        self.http.send("DELETE", f"/api/annotations/{annotation_id}/", missing=missing)


def pick(annotations: Iterable[_Annotation]) -> _Annotation | None:
    """Return the annotation that counts among a task's: ground truth first, else the newest; None without any."""
    submitted = [annotation for annotation in annotations if not annotation.was_cancelled]
    return max(
        submitted,
        key=lambda one: (one.ground_truth, datetime.fromisoformat(one.updated_at), one.id),
        default=None,
    )


def _task(payload: Any) -> Task:
    found = parse(_Task, payload)
    return Task(found.id, found.data)
