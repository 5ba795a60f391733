"""Labels that look wrong: scored beside what the serving version predicts.

Label errors show in predictions of a model that has not seen the label. Of the validation images, and of tasks labeled
since the version was trained, that is so; from the others the version has learned, errors too, so it accuses fewer of
them than there are. `LabelIssue.learned` tells which.

A version's first review judges all labels. Later ones judge those that are new or changed, and those of whose image the
version says something else now, and keep the other verdicts: a check has them judged as soon as they change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from backend.evaluation.label_quality import LabelIssue, Review, Thresholds
from backend.labelstudio.client.connection import LabelStamp
from backend.loop.context import Context
from backend.loop.review.label_verdicts import judge
from backend.loop.served_models import ServedModel, models_for, project_record, require_project, serving_number
from backend.model_versions import ModelVersion
from backend.store.store import ProjectRecord
from backend.types import IntArray


def examine(context: Context, project_id: int) -> tuple[LabelIssue, ...]:
    """Judge the labels of annotated tasks by the serving version, each tag's by its own model; keep and return it.

    The worst come first, whichever tag they are of. Not judged: tasks whose image failed, and those with a label that
    the tag's model never learned. Nothing before there is a version.
    """
    record, version = project_record(context, project_id), context.store.serving(project_id)
    if version is None:
        return ()
    models = models_for(context, record, accepted=False)
    last, review = context.store.state.review(project_id, version.number), None
    # First: what is written while we judge, the next review sees.
    fresh = Review(rules=_rules_hash(context, record, models), shards=_shards(context, version))
    if last is not None and last.reviewed is not None and last.rules == fresh.rules:
        review = _incremental_review(context, version, models, last, fresh.shards)
    if review is None:
        review = _review(context, version, models, fresh, None)
    context.store.state.save_review(project_id, version.number, review)
    return review.issues


def _incremental_review(
    context: Context, version: ModelVersion, models: Sequence[ServedModel], last: Review, shards: tuple[int, ...]
) -> Review | None:
    """Return a review that judges what the last one did not see; None where all labels must be judged again."""
    stamps = context.label_studio.annotations.stamps_by_task(version.project_id)
    changed = _changed_tasks(context, version, last, stamps)
    kept = {label.annotation_id: label.updated_at for task_id, label in stamps.items() if task_id not in changed}
    issues = tuple(issue for issue in last.issues if kept.get(issue.annotation_id) == issue.updated_at)
    before = replace(last, issues=issues, reviewed=kept, shards=shards)
    review = _review(context, version, models, before, sorted(changed))
    return None if any(measured.outgrown for measured in review.thresholds.values()) else review


def _review(
    context: Context,
    version: ModelVersion,
    models: Sequence[ServedModel],
    before: Review,
    task_ids: Sequence[int] | None,
) -> Review:
    """Return a review with the verdicts on these tasks beside those of before; `task_ids` None: on all tasks."""
    annotated = {task.task.id: task for task in context.annotated_tasks(version.project_id, task_ids)}
    alone, issues, thresholds = len(models) == 1, list(before.issues), dict[str, Thresholds]()
    for model in models:
        if model.trained:
            measured = before.thresholds.get(model.key)
            verdicts = judge(context, version, model, annotated, measured, alone=alone)
            thresholds[model.key] = verdicts.thresholds
            issues += verdicts.issues
    worst_first = tuple(sorted(issues, key=lambda issue: (issue.score, issue.task_id)))
    judged = {task.annotation_id: task.updated_at for task in annotated.values()}
    reviewed = {**(before.reviewed or {}), **judged}
    return replace(before, issues=worst_first, reviewed=reviewed, thresholds=thresholds)


def _changed_tasks(context: Context, version: ModelVersion, last: Review, stamps: Mapping[int, LabelStamp]) -> set[int]:
    """Return the tasks whose label, or what the version says of their image, is not what the last review saw."""
    reviewed, shards = last.reviewed or {}, set(last.shards)
    changed = {task for task, label in stamps.items() if reviewed.get(label.annotation_id) != label.updated_at}
    for written, task_ids in _written_shards(context, version):
        if written not in shards:
            changed.update(stamps.keys() & set(task_ids.tolist()))
    return changed


def _shards(context: Context, version: ModelVersion) -> tuple[int, ...]:
    """Return when the shards were written that hold the version's answers."""
    return tuple(written for written, _ in _written_shards(context, version))


def _written_shards(context: Context, version: ModelVersion) -> Iterator[tuple[int, IntArray]]:
    """Yield of each shard of each tag, of labeled tasks and of the pool, when it was written, and its tasks (k,)."""
    for tag in [model.from_name for model in version.models]:
        for labeled in (True, False):
            yield from context.store.written(version.project_id, version.number, labeled=labeled, tag=tag)


def _rules_hash(context: Context, record: ProjectRecord, models: Sequence[ServedModel]) -> str:
    """Return a hash of what of the label config and the settings all verdicts depend on."""
    tags = [(model.key, model.classes, model.trained, repr(model.tag)) for model in models]
    renames = context.project_settings(record).label_renames
    return hashlib.sha256(repr((tags, renames)).encode()).hexdigest()


def current_issues(context: Context, project_id: int) -> tuple[LabelIssue, ...]:
    """Return the verdicts of the last review on annotations that are still what was judged, worst first.

    Raises NotFoundError for a project that was never set up.
    """
    require_project(context, project_id)
    issues = context.store.state.label_issues(project_id, serving_number(context, project_id))
    return unchanged(issues, context.label_studio.annotations.stamps(project_id)) if issues else ()


def outdated(context: Context, project_id: int) -> bool:
    """Return whether there are labels that the last review did not judge as they are: new, changed or deleted ones.

    Or ones of whose image the version says something else now.
    """
    version = context.store.serving(project_id)
    if version is None:
        return False
    review = context.store.state.review(project_id, version.number)
    if review is None or review.reviewed is None:  # the first review is lost, or was of an earlier release
        return context.store.ranking(project_id, version.number) is not None
    stamps = context.label_studio.annotations.stamps_by_task(project_id)
    deleted = review.reviewed.keys() - {label.annotation_id for label in stamps.values()}
    return bool(deleted or _changed_tasks(context, version, review, stamps))


def unchanged(issues: tuple[LabelIssue, ...], stamps: Mapping[int, str]) -> tuple[LabelIssue, ...]:
    """Return the issues about annotations that are still what was judged."""
    return tuple(issue for issue in issues if stamps.get(issue.annotation_id) == issue.updated_at)
