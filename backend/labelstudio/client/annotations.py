"""The annotations of a Label Studio project: which one counts, when somebody last worked, and writing them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from backend.labelstudio.client.filters import LABELED, condition, filters
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse, parse_list
from backend.labelstudio.client.projects import Created
from backend.labelstudio.client.tasks import IDS_PER_QUERY, Page, Tasks
from backend.types import AnnotatedTask, Json, Task

RECENT = 250  # tasks that are looked at for a sign of life


class AnnotationAnswer(Answer):
    """An annotation in an answer of Label Studio."""

    id: int
    updated_at: str
    was_cancelled: bool
    ground_truth: bool
    completed_by: int | None = None
    result: list[Any] | None = None  # an import takes items that are no objects


class _Person(Answer):
    id: int
    last_activity: datetime | None = None


class _Time(Answer):
    updated_at: datetime


class _Labels(Answer):
    id: int
    data: dict[str, Any] | None = None
    annotations: list[AnnotationAnswer]


class _Touched(Answer):
    """The times at which somebody last changed a task's annotations and drafts."""

    annotations: tuple[_Time, ...] = ()
    drafts: tuple[_Time, ...] = ()


class _Submitted(Answer):
    id: int
    was_cancelled: bool
    completed_by: int | None = None
    lead_time: float | None = None
    parent_prediction: int | None = None
    parent_annotation: int | None = None
    result: list[Any] | None = None


class _Work(Answer):
    id: int
    annotations: list[_Submitted]


@dataclass(frozen=True, slots=True)
class SubmittedAnnotation:
    """One submitted annotation of a task, with how it was made."""

    id: int
    task_id: int
    annotator: int  # id of the user; 0: Label Studio does not say
    seconds: float | None  # time in the editor, all updates together; None: it was imported or written by a program
    parent_prediction: int | None  # the prediction from which it was made, until that is deleted
    is_copy: bool  # it was made from another annotation
    result: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class LabelStamp:
    """Which annotation of a task counts, when it was last changed, and what other people submitted."""

    annotation_id: int
    updated_at: str
    other_stamps: Mapping[int, str] = field(default_factory=dict)  # as in `AnnotatedTask`
    submitted: frozenset[int] = frozenset()  # ids of all annotations of the task, also of those that do not count


class Annotations:
    """The calls about annotations."""

    def __init__(self, http: LabelStudioHTTP, tasks: Tasks) -> None:
        self._http = http
        self._tasks = tasks

    def annotated_tasks(self, project_id: int, ids: Sequence[int] | None = None) -> Iterator[AnnotatedTask]:
        """Yield each task that has a submitted annotation, with the annotation that counts, by task id.

        `ids` limits it to these tasks. Ground truth counts before other annotations, then the newest by updated_at.
        Skips and drafts are no labels. An annotation without regions is one: it labels a background image.
        Annotations that were imported with the task count. Raises NotFoundError.
        """
        for task in self._labels_of(project_id, ids, "data,annotations.completed_by,annotations.result"):
            if chosen := pick(task.annotations):
                others = of_others(chosen, task.annotations)
                yield AnnotatedTask(
                    task=Task(task.id, task.data or {}),
                    annotation_id=chosen.id,
                    updated_at=chosen.updated_at,
                    result=tuple(chosen.result or ()),
                    ground_truth=chosen.ground_truth,
                    others=tuple(tuple(label.result or ()) for label in others),
                    other_stamps={label.id: label.updated_at for label in others},
                )

    def stamps(self, project_id: int, ids: Sequence[int] | None = None) -> dict[int, str]:
        """Return annotation id -> updated_at of exactly the annotations that `annotated_tasks` yields.

        `ids` limits it to these tasks. It takes half the time and a twentieth of the bytes of an export, which also
        leaves two files on LS's disk per call.
        """
        return {stamp.annotation_id: stamp.updated_at for stamp in self.stamps_by_task(project_id, ids).values()}

    def stamps_by_task(self, project_id: int, ids: Sequence[int] | None = None) -> dict[int, LabelStamp]:
        """Return what `stamps` returns, by task id."""
        tasks = self._labels_of(project_id, ids, "annotations.completed_by")
        return {task.id: _stamp(chosen, task.annotations) for task in tasks if (chosen := pick(task.annotations))}

    def submitted(self, project_id: int, ids: Sequence[int]) -> Iterator[SubmittedAnnotation]:
        """Yield all submitted annotations of these tasks, of all annotators, with how long they took."""
        fields = "completed_by,lead_time,was_cancelled,parent_prediction,parent_annotation,result"
        include = ",".join(["id", "annotations.id", *(f"annotations.{name}" for name in fields.split(","))])
        params: Json = {"include": include, "fields": "all", "expand": "annotations"}
        for start in range(0, len(ids), IDS_PER_QUERY):
            selected: Json = {"all": False, "included": list(ids[start : start + IDS_PER_QUERY])}
            for page in self._tasks.pages(project_id, LABELED, selected=selected, **params):
                for task in (parse(_Work, payload) for payload in page):
                    yield from (_submitted(task.id, label) for label in task.annotations if not label.was_cancelled)

    def newest_activity(self, project_id: int) -> float:
        """Return when somebody last annotated, in seconds of Label Studio's clock; 0 for never.

        For other users, Label Studio gives the time of their last write in any project. For our own user that time is
        useless, because each of our calls moves it; we take the labels and drafts of this project instead.
        """
        me = parse(_Person, self._http.get("/api/current-user/whoami")).id
        people = parse_list(_Person, self._http.get("/api/users/"))
        seconds = [person.last_activity.timestamp() for person in people if person.last_activity and person.id != me]
        # Writing a prediction touches its task too, so we read the labels of the RECENT tasks touched last.
        for task in self._touched(project_id, include="id,annotations.updated_at", expand="annotations"):
            seconds += [annotation.updated_at.timestamp() for annotation in task.annotations]
        drafted = condition("draft_exists", "equal", "Boolean", True)  # a draft does not touch its task
        for task in self._touched(project_id, drafted, include="id,drafts"):
            seconds += [draft.updated_at.timestamp() for draft in task.drafts]
        return max(seconds, default=0.0)

    def _touched(self, project_id: int, *conditions: Json, **params: Any) -> list[_Touched]:
        query = {"filters": filters(*conditions), "ordering": ["-tasks:updated_at"]}
        page = self._http.get(
            "/api/tasks",
            missing=f"no project {project_id} in Label Studio",
            project=project_id,
            page_size=RECENT,
            fields="all",
            query=json.dumps(query),
            **params,
        )
        return parse_list(_Touched, parse(Page, page).tasks)

    def task_ids(self, project_id: int) -> Iterator[int]:
        """Yield the ids of exactly the tasks that `annotated_tasks` yields."""
        return (task.id for task in self._labels(project_id) if pick(task.annotations))

    def _labels_of(self, project_id: int, ids: Sequence[int] | None, more: str = "") -> Iterator[_Labels]:
        """Yield the labels of all tasks, or of `ids`, in requests whose addresses are not too long."""
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
        for page in self._tasks.pages(project_id, LABELED, selected=selected, **params):
            yield from (parse(_Labels, task) for task in page)

    def create(self, task_id: int, result: Sequence[Json], *, was_cancelled: bool = False) -> int:
        """Submit an annotation, or skip the task with `was_cancelled`; return the annotation's id."""
        body = {"result": list(result), "was_cancelled": was_cancelled}
        missing = f"no task {task_id} in Label Studio"
        created = self._http.send("POST", f"/api/tasks/{task_id}/annotations/", body, missing=missing)
        return parse(Created, created).id

    def update(
        self, annotation_id: int, result: Sequence[Json] | None = None, *, ground_truth: bool | None = None
    ) -> None:
        """Change an annotation's regions, or its ground truth mark. Raises NotFoundError."""
        changes = {"result": None if result is None else list(result), "ground_truth": ground_truth}
        body = {name: value for name, value in changes.items() if value is not None}
        missing = f"no annotation {annotation_id} in Label Studio"
        self._http.send("PATCH", f"/api/annotations/{annotation_id}/", body, missing=missing)

    def delete(self, annotation_id: int) -> None:
        """Delete an annotation. Raises NotFoundError."""
        missing = f"no annotation {annotation_id} in Label Studio"
        self._http.send("DELETE", f"/api/annotations/{annotation_id}/", missing=missing)


def pick(annotations: Iterable[AnnotationAnswer]) -> AnnotationAnswer | None:
    """Return the annotation that counts among a task's: ground truth first, else the newest; None without any."""
    submitted = [annotation for annotation in annotations if not annotation.was_cancelled]
    return max(
        submitted,
        key=lambda label: (label.ground_truth, datetime.fromisoformat(label.updated_at), label.id),
        default=None,
    )


def of_others(chosen: AnnotationAnswer, annotations: Iterable[AnnotationAnswer]) -> list[AnnotationAnswer]:
    """Return the newest annotation of each other person, the oldest first; none beside a ground truth."""
    newest: dict[int | None, AnnotationAnswer] = {}
    for label in sorted(annotations, key=lambda label: (datetime.fromisoformat(label.updated_at), label.id)):
        if not (label.was_cancelled or chosen.ground_truth or label.completed_by == chosen.completed_by):
            newest.pop(label.completed_by, None)
            newest[label.completed_by] = label
    return list(newest.values())


def _stamp(chosen: AnnotationAnswer, annotations: Sequence[AnnotationAnswer]) -> LabelStamp:
    other_stamps = {label.id: label.updated_at for label in of_others(chosen, annotations)}
    submitted = frozenset(label.id for label in annotations if not label.was_cancelled)
    return LabelStamp(chosen.id, chosen.updated_at, other_stamps, submitted)


def _submitted(task_id: int, label: _Submitted) -> SubmittedAnnotation:
    is_copy = label.parent_annotation is not None
    return SubmittedAnnotation(
        *(label.id, task_id, label.completed_by or 0, label.lead_time, label.parent_prediction, is_copy),
        tuple(label.result or ()),
    )
