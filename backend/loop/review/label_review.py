"""The label review: labels that look wrong beside the predictions of the served version.

Label errors show best in predictions of a model that has not learned from the label. That holds for validation images
and for tasks that were labeled since the version was trained. The version has learned from the other labels, also from
their errors, so it misses some of these. `LabelIssue.learned` says whether it has.

A version's first review judges all labels. Later reviews judge only labels that are new or changed, and labels of tasks
that were predicted again, and keep the other verdicts. A check starts a review as soon as labels change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from backend.evaluation.label_quality import LabelIssue, Review, Thresholds
from backend.labelstudio import consensus
from backend.labelstudio.client.connection import LabelStamp
from backend.loop.context import Context
from backend.loop.review.label_verdicts import judge
from backend.loop.served_models import ServedModel, models_for, project_record, require_project, serving_number
from backend.model_versions import ModelVersion
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, IntArray


def examine(context: Context, project_id: int) -> tuple[LabelIssue, ...]:
    """Judge the labels of annotated tasks with the served version; store and return the verdicts, the worst first.

    Each tag's labels are judged by the tag's own model. Tasks whose image failed, and tasks with a label of a class
    that the model lacks, are not judged. Without a version the result is empty.
    """
    record, version = project_record(context, project_id), context.store.serving(project_id)
    if version is None:
        return ()
    models = models_for(context, record, accepted=False)
    last, review = context.store.state.review(project_id, version.number), None
    # Read the shards first, so that the next review sees shards that are written meanwhile.
    fresh = Review(rules=_rules_hash(context, record, models), shards=_shards(context, version))
    if last is not None and last.reviewed is not None and last.rules == fresh.rules:
        review = _incremental_review(context, version, models, last, fresh.shards)
    if review is None:
        review = _review(context, version, models, fresh, None)
    context.store.state.save_review(project_id, version.number, review)
    return context.store.state.label_issues(project_id, version.number)


def _incremental_review(
    context: Context, version: ModelVersion, models: Sequence[ServedModel], last: Review, shards: tuple[int, ...]
) -> Review | None:
    """Return the last review with new verdicts on what has changed; None if all labels must be judged again."""
    stamps = context.label_studio.annotations.stamps_by_task(version.project_id)
    changed = _changed_tasks(context, version, last, stamps)
    rule = _consensus(context, version.project_id)
    same = {label.annotation_id: _stamp(rule, label) for task_id, label in stamps.items() if task_id not in changed}
    issues = tuple(issue for issue in last.issues if issue.annotation_id in same)
    before = replace(last, issues=issues, reviewed=same, shards=shards)
    review = _review(context, version, models, before, sorted(changed))
    return None if any(measured.outgrown for measured in review.thresholds.values()) else review


def _review(
    context: Context,
    version: ModelVersion,
    models: Sequence[ServedModel],
    before: Review,
    task_ids: Sequence[int] | None,
) -> Review:
    """Return the review `before` with the verdicts on these tasks added; `task_ids` None stands for all tasks."""
    annotated = {task.task.id: task for task in context.annotated_tasks(version.project_id, task_ids)}
    alone, issues, thresholds = len(models) == 1, list(before.issues), dict[str, Thresholds]()
    for model in models:
        if model.trained and model.tag.ranks:  # predicted boxes are not those that people answered about
            measured = before.thresholds.get(model.key)
            verdicts = judge(context, version, model, annotated, measured, alone=alone)
            thresholds[model.key] = verdicts.thresholds
            issues += verdicts.issues
    worst_first = tuple(sorted(issues, key=lambda issue: (issue.score, issue.task_id)))
    rule = _consensus(context, version.project_id)
    judged = {task.annotation_id: _stamp(rule, task) for task in annotated.values()}
    reviewed = {**(before.reviewed or {}), **judged}
    return replace(before, issues=worst_first, reviewed=reviewed, thresholds=thresholds)


def _changed_tasks(context: Context, version: ModelVersion, last: Review, stamps: Mapping[int, LabelStamp]) -> set[int]:
    """Return the ids of the tasks whose label or stored prediction has changed since the last review."""
    reviewed, shards, rule = last.reviewed or {}, set(last.shards), _consensus(context, version.project_id)
    changed = {task for task, label in stamps.items() if reviewed.get(label.annotation_id) != _stamp(rule, label)}
    for written, task_ids in _written_shards(context, version):
        if written not in shards:
            changed.update(stamps.keys() & set(task_ids.tolist()))
    return changed


def _consensus(context: Context, project_id: int) -> str:
    return context.project_settings(context.store.project(project_id)).consensus


def _stamp(rule: str, label: AnnotatedTask | LabelStamp) -> str:
    """Return a text that changes with each annotation that decides what a task's labels are, by `rule` in CONSENSUS.

    Where people vote, an older vote may change or go while the newest annotation stays as it is.
    """
    counted = consensus.stamps(rule, label)
    alone = counted == {label.annotation_id: label.updated_at}
    return label.updated_at if alone else json.dumps(counted, sort_keys=True)


def _shards(context: Context, version: ModelVersion) -> tuple[int, ...]:
    """Return when the version's shards were written."""
    return tuple(written for written, _ in _written_shards(context, version))


def _written_shards(context: Context, version: ModelVersion) -> Iterator[tuple[int, IntArray]]:
    """Yield when each shard was written, and its task ids (k,): of each tag, of labeled tasks and of the pool."""
    for tag in [model.from_name for model in version.models]:
        for labeled in (True, False):
            yield from context.store.pools.written(version.project_id, version.number, labeled=labeled, tag=tag)


def _rules_hash(context: Context, record: ProjectRecord, models: Sequence[ServedModel]) -> str:
    """Return a hash of the parts of the label config and the settings that all verdicts depend on."""
    tags = [(model.key, model.classes, model.trained, repr(model.tag)) for model in models]
    renames = context.project_settings(record).label_renames
    return hashlib.sha256(repr((tags, renames)).encode()).hexdigest()


def current_issues(context: Context, project_id: int) -> tuple[LabelIssue, ...]:
    """Return the issues of the last review whose annotations have not changed since, the worst first.

    Raises NotFoundError for a project that was never set up.
    """
    require_project(context, project_id)
    issues = context.store.state.label_issues(project_id, serving_number(context, project_id))
    return unchanged(issues, context.label_studio.annotations.stamps(project_id)) if issues else ()


def outdated(context: Context, project_id: int) -> bool:
    """Return whether labels are new, changed or deleted since the last review, or their tasks were predicted again."""
    version = context.store.serving(project_id)
    if version is None:
        return False
    review = context.store.state.review(project_id, version.number)
    if review is None or review.reviewed is None:  # the first review is lost, or an earlier release made it
        return context.store.pools.ranking(project_id, version.number) is not None
    stamps = context.label_studio.annotations.stamps_by_task(project_id)
    deleted = review.reviewed.keys() - {label.annotation_id for label in stamps.values()}
    return bool(deleted or _changed_tasks(context, version, review, stamps))


def unchanged(issues: tuple[LabelIssue, ...], stamps: Mapping[int, str]) -> tuple[LabelIssue, ...]:
    """Return the issues whose annotations have not changed; `stamps` are the current times by annotation id."""
    return tuple(issue for issue in issues if stamps.get(issue.annotation_id) == issue.updated_at)
