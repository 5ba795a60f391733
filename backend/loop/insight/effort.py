"""What labeling a project costs, and what its pre-annotations save.

A job measures new and changed annotations while their pre-annotations still exist in Label Studio, and the store keeps
the result. The page reads the store alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.evaluation import basis
from backend.evaluation import effort as efforts
from backend.evaluation.effort import AnnotationEffort, EffortLog, LabelCount, OverlapEffort, Saving, VersionEffort
from backend.labelstudio import label_config
from backend.labelstudio.client.annotations import SubmittedAnnotation
from backend.labelstudio.client.connection import LabelStamp, StoredPrediction
from backend.labelstudio.label_paths import joined
from backend.labelstudio.region_changes import changes
from backend.labelstudio.regions import id_of, labels_of, region_id
from backend.loop.base_models import base_model
from backend.loop.context import Context
from backend.loop.insight import overlaps
from backend.loop.served_models import require_project
from backend.model_versions import ModelVersion
from backend.store.store import version_name

MEASURED = 2_000  # tasks per job, so that other projects have their turn
_ROWS = 100  # rows of a prediction that are looked for by their ids once the prediction is gone


@dataclass(frozen=True, slots=True)
class HoursPoint:
    """One version on the learning curve over hours of labeling."""

    number: int
    hours: float  # of the annotations that it was trained and judged with
    map50: float | None  # None: not judged yet
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class EffortView:
    """The answers of the view on effort."""

    annotations: int  # measured so far
    untimed: int  # without a lead time: imported, or written by a program
    copies: int  # made from another annotation; their regions do not count
    longest: float | None  # seconds; a longer lead time counts as this; None: too few to tell
    names: Mapping[int, str]  # of the versions, by number
    versions: tuple[VersionEffort, ...]
    overlap: tuple[OverlapEffort, ...]
    curve: tuple[HoursPoint, ...]
    hours: float  # of all annotations
    controls: int  # annotations of tasks that were handed out without pre-annotation on purpose
    blank_share: float  # the setting
    saving: Saving | None  # None: too few control tasks


def view(context: Context, project_id: int) -> EffortView:
    """Return what labeling cost so far, from the store alone. Raises NotFoundError for an unknown project."""
    record = require_project(context, project_id)
    settings, log = context.project_settings(record), context.store.state.effort(project_id)
    versions = context.store.versions(project_id)
    longest = efforts.fence_of(log.efforts)
    every = {effort.annotation_id for effort in log.efforts}
    return EffortView(
        annotations=len(log.efforts),
        untimed=sum(effort.seconds is None for effort in log.efforts),
        copies=sum(effort.is_copy for effort in log.efforts),
        longest=longest if np.isfinite(longest) else None,
        names={0: version_name(base_model(context, record), 0), **{v.number: v.name for v in versions}},
        versions=efforts.by_version(log.efforts),
        overlap=efforts.by_annotators(log.efforts),
        curve=tuple(_point(version, log, longest) for version in versions if version.promoted),
        hours=efforts.hours(log.efforts, every, longest),
        controls=sum(effort.blank for effort in log.efforts),
        blank_share=settings.blank_share,
        saving=efforts.saving(log.efforts, np.random.default_rng(0)),
    )


def _point(version: ModelVersion, log: EffortLog, longest: float) -> HoursPoint:
    """Return a version on the learning curve; with several tags, the quality is that of the first."""
    metrics = version.models[0].metrics
    judged = metrics if metrics is not None and basis.is_judged(metrics) else None
    spent = efforts.hours(log.efforts, version.snapshot.annotations.keys(), longest)
    return HoursPoint(version.number, spent, judged.map50 if judged else None, judged.interval if judged else None)


def measure(context: Context, project_id: int) -> bool:
    """Measure annotations that are new or changed, forget deleted ones; return whether more are left.

    It reads only these annotations and the predictions of their tasks. Raises NotFoundError for an unknown project.
    """
    log = context.store.state.effort(project_id)
    labels_now = context.label_studio.annotations.stamps_by_task(project_id)
    now = {task: _text(stamp) for task, stamp in labels_now.items()}
    changed = {task for task, text in now.items() if log.stamps.get(task) != text} | _lost_one(log, labels_now)
    deleted = log.stamps.keys() - now.keys()
    if not changed and not deleted:
        return False
    part = sorted(changed)[:MEASURED]
    labels = list(context.label_studio.annotations.submitted(project_id, part))
    measured, agreements = (
        _measured(context, project_id, part, labels),
        overlaps.agreements(context, project_id, labels),
    )
    void = deleted | set(part)
    kept = (effort for effort in log.efforts if effort.task_id not in void)
    stamps = {task: text for task, text in log.stamps.items() if task not in void}
    stamps |= {task: now[task] for task in part}
    by_id = sorted([*kept, *measured], key=lambda effort: effort.annotation_id)
    agreed = (agreement for agreement in log.agreements if agreement.task_id not in void)
    fresh = EffortLog(stamps, tuple(by_id), (*agreed, *agreements))
    context.store.state.save_effort(project_id, fresh)
    return len(part) < len(changed)


def _lost_one(log: EffortLog, labels: Mapping[int, LabelStamp]) -> set[int]:
    """Return the labeled tasks of which somebody deleted or skipped a measured annotation, whether it counts or not."""
    measured = ((effort.task_id, effort.annotation_id) for effort in log.efforts)
    return {task for task, annotation in measured if task in labels and annotation not in labels[task].submitted}


def _text(stamp: LabelStamp) -> str:
    return f"{stamp.annotation_id} {stamp.updated_at}"


def _measured(
    context: Context, project_id: int, task_ids: Sequence[int], labels: Iterable[SubmittedAnnotation]
) -> list[AnnotationEffort]:
    """Return the effort of each submitted annotation of these tasks."""
    client, shown = context.label_studio, _Shown(context, project_id)
    predictions = {prediction.id: prediction for prediction in client.predictions.of_tasks(project_id, task_ids)}
    return [_effort(shown, label, predictions.get(label.parent_prediction or 0)) for label in labels]


def _effort(shown: _Shown, label: SubmittedAnnotation, parent: StoredPrediction | None) -> AnnotationEffort:
    version = shown.number_of(label, parent)
    blank = version is not None and label.task_id in shown.blanks(version)
    predicted: Iterable[Any] | None = parent.result if parent else None
    if blank or version is None:
        predicted = ()
    counts = changes(predicted, label.result)
    return AnnotationEffort(
        *(label.id, label.task_id, label.annotator, label.seconds, version),
        blank=blank,
        chance=version is not None and label.task_id in shown.explored(version),
        kept=counts.kept,
        moved=counts.moved,
        relabeled=counts.relabeled,
        deleted=counts.deleted,
        added=counts.added,
        is_copy=label.is_copy,
        labels=_label_counts(label.result),
    )


def _label_counts(result: Iterable[Any]) -> tuple[LabelCount, ...]:
    """Return how often a result gives each label of each control tag."""
    counts = Counter(
        (str(item.get("from_name")), joined(label) if isinstance(label, list) else str(label))
        for item in result
        if isinstance(item, Mapping)
        for label in labels_of(item, str(item.get("type")))
    )
    return tuple(LabelCount(tag, label, count) for (tag, label), count in sorted(counts.items()))


class _Shown:
    """Which version's regions an annotator saw; each file of the store is read once."""

    def __init__(self, context: Context, project_id: int) -> None:
        record = require_project(context, project_id)
        self._context, self._project_id = context, project_id
        self._numbers = {version.name: version.number for version in context.store.versions(project_id)}
        self._numbers[version_name(base_model(context, record), 0)] = 0
        self._tags = tuple(tag.from_name for tag in label_config.parse(record.label_config))
        self._explored: dict[int, frozenset[int]] = {}
        self._blanks: dict[int, frozenset[int]] = {}

    def number_of(self, label: SubmittedAnnotation, parent: StoredPrediction | None) -> int | None:
        """Return the version that an annotation began from, None if from none of ours.

        Once the prediction is gone, the ids of the regions tell: they depend on task, version, tag and row alone.
        """
        if parent is not None:
            return self._numbers.get(parent.version)
        ids = {id_of(item.get("id")) for item in label.result if _is_predicted(item)}
        if not ids:
            return None
        for name, number in self._numbers.items():
            ours = {region_id(f"{label.task_id}/{name}", tag, row) for tag in self._tags for row in range(_ROWS)}
            if ids & ours:
                return number
        return None

    def explored(self, number: int) -> frozenset[int]:
        """Return the tasks that a version's ranking drew at random; none once the version was pruned."""
        if number not in self._explored:
            order = self._context.store.pools.ranking(self._project_id, number)
            drawn = frozenset(order.task_ids[order.explored].tolist()) if order else frozenset[int]()
            self._explored[number] = drawn
        return self._explored[number]

    def blanks(self, number: int) -> frozenset[int]:
        """Return the tasks that a version handed out without its regions."""
        if number not in self._blanks:
            self._blanks[number] = self._context.store.state.blank_tasks(self._project_id, number) or frozenset()
        return self._blanks[number]


def _is_predicted(item: Any) -> bool:
    return isinstance(item, Mapping) and str(item.get("origin", "")).startswith("prediction")
