"""The labels of a project: which look wrong, how far people agree, and which could not be learned, with the cure.

The lists come from the store and redis. The annotators' boxes come from Label Studio, in one short request; while it is
down, the suspected box alone is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backend.errors import LabelStudioError
from backend.evaluation.annotators import TagAgreement, of_tag
from backend.evaluation.label_quality import LabelIssue, suspicious
from backend.labelstudio import label_config
from backend.labelstudio.region_outlines import Drawing, drawing
from backend.loop.context import Context
from backend.loop.insight.drawn_regions import drawn
from backend.loop.served_models import ServedModel, models_for, name_of, require_project, serving_number
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, ControlTag

PER_PAGE = 12
LISTED = 12  # tasks of a reason, and tasks on which people disagree
_WHERE = re.compile(r" \[[^\[\]]*\]")
_NAMES = re.compile(r"\bregion (?!without\b)\S+")
_NUMBERS = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class Suspect:
    """One label that looks wrong, with what is drawn over the picture."""

    issue: LabelIssue
    annotated: Drawing | None  # the annotator's regions; None: Label Studio did not answer
    predicted: Drawing  # the model's regions


@dataclass(frozen=True, slots=True)
class Unlearned:
    """Tasks that could not be used for one reason."""

    reason: str
    cure: str
    tasks: tuple[int, ...]  # at most LISTED
    count: int


@dataclass(frozen=True, slots=True)
class LabelsView:
    """The answers of the view on labels."""

    version: str
    trained: bool  # False: the base model serves, which judges no labels
    judged: int  # labeled tasks that the last review judged
    count: int  # of labels that look wrong, on all pages
    page: int  # from 1
    pages: int
    suspects: tuple[Suspect, ...]  # of this page, the worst first
    studio_error: str  # why Label Studio did not answer; ""
    agreement: TagAgreement | None  # None: no task was annotated by two people
    unlearned: tuple[Unlearned, ...]  # the most frequent reason first


def view(context: Context, project_id: int, tag: ControlTag, page: int = 1) -> LabelsView:
    """Return the labels of one control tag. Raises NotFoundError for an unknown project."""
    record, number = require_project(context, project_id), serving_number(context, project_id)
    issues = _issues(context, record, number, tag)
    wrong = suspicious(issues)
    pages = max(1, -(-len(wrong) // PER_PAGE))
    page = min(max(page, 1), pages)
    part = wrong[(page - 1) * PER_PAGE : page * PER_PAGE]
    suspects, error = _suspects(context, record, tag, part) if part else ((), "")
    agreements = context.store.state.agreements(project_id)
    return LabelsView(
        version=name_of(context, record),
        trained=number > 0,
        judged=len(issues),
        count=len(wrong),
        page=page,
        pages=pages,
        suspects=suspects,
        studio_error=error,
        agreement=of_tag(agreements, tag.from_name, LISTED),
        unlearned=grouped(context.progress.failures(project_id)),
    )


def _issues(context: Context, record: ProjectRecord, number: int, tag: ControlTag) -> tuple[LabelIssue, ...]:
    """Return the stored issues of a tag, the worst first; labels that somebody called right count as clean."""
    first = label_config.parse(record.label_config)[0].from_name
    issues = context.store.state.label_issues(record.project_id, number)
    return tuple(issue for issue in issues if (issue.tag or first) == tag.from_name)


def _suspects(
    context: Context, record: ProjectRecord, tag: ControlTag, issues: Sequence[LabelIssue]
) -> tuple[tuple[Suspect, ...], str]:
    """Return issues with what is drawn, without labels that were changed since, and why Label Studio did not answer."""
    try:
        ids = [issue.task_id for issue in issues]
        tasks = list(context.impatient.annotations.annotated_tasks(record.project_id, ids))
        annotated: dict[int, AnnotatedTask] | None = {task.task.id: task for task in tasks}
        context.label_studio.tasks.note_shown(record.project_id, (task.task for task in tasks))
        error = ""
    except LabelStudioError as problem:
        annotated, error = None, str(problem)
    predicted = _predicted(context, record, tag, issues)
    suspects = []
    for issue in issues:
        task = annotated.get(issue.task_id) if annotated is not None else None
        unchanged = task is not None and (task.annotation_id, task.updated_at) == (
            issue.annotation_id,
            issue.updated_at,
        )
        if annotated is None or unchanged:
            suspects.append(
                Suspect(issue, _annotated(tag, task) if task else None, predicted.get(issue.task_id, Drawing()))
            )
    return tuple(suspects), error


def _annotated(tag: ControlTag, task: AnnotatedTask) -> Drawing:
    """Return the annotator's regions of a tag; an import may hold items that are no regions."""
    names = {tag.label_holder, tag.parent, *(teacher.from_name for teacher in tag.teachers)}
    return drawing(item for item in task.result if isinstance(item, Mapping) and item.get("from_name") in names)


def _predicted(
    context: Context, record: ProjectRecord, tag: ControlTag, issues: Iterable[LabelIssue]
) -> dict[int, Drawing]:
    """Return the served model's regions of each task, from the stored predictions."""
    model = _model(context, record, tag)
    if model is None:
        return {}
    ids, drawings = [issue.task_id for issue in issues], dict[int, Drawing]()
    for labeled in (False, True):  # the prediction made since a task was labeled replaces that of the pool
        stored = context.store.pools.predictions(model.project_id, model.number, ids, labeled=labeled, tag=model.key)
        for task_id, prediction in stored:
            drawings[task_id] = drawn(context, record, model, task_id, prediction)
    return drawings


def _model(context: Context, record: ProjectRecord, tag: ControlTag) -> ServedModel | None:
    models = models_for(context, record, accepted=False)
    return next((model for model in models if model.tag.from_name == tag.from_name), None)


def grouped(failures: Mapping[int, str]) -> tuple[Unlearned, ...]:
    """Group tasks that could not be used by reason, the most frequent first.

    Reasons that differ only in addresses, names of regions and numbers are one.

    >>> many = {1: "a file of 70 MB [a.png]. Fix: make it smaller", 2: "a file of 80 MB [b.png]. Fix: make it smaller"}
    >>> [(group.reason, group.cure, group.count) for group in grouped(many)]
    [('a file of 70 MB', 'make it smaller', 2)]
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for task_id, text in sorted(failures.items()):
        plain = _WHERE.sub("", text)
        key = _NUMBERS.sub("0", _NAMES.sub("a region", plain))
        groups.setdefault(key, []).append((task_id, plain))
    reason_groups = [_group(members) for members in groups.values()]
    return tuple(sorted(reason_groups, key=lambda group: (-group.count, group.tasks)))


def _group(members: Sequence[tuple[int, str]]) -> Unlearned:
    reason, _, cure = members[0][1].partition(" Fix: ")
    tasks = tuple(task_id for task_id, _ in members)
    return Unlearned(_NAMES.sub("a region", reason).removesuffix("."), cure, tasks[:LISTED], len(tasks))
