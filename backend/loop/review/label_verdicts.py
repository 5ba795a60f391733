"""What a tag's model thinks of the labels of that tag: its verdict on each annotation.

A classifier learns errors by heart, so choices are judged by the newest version that had not learned from the image,
where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.evaluation.choice_quality import choice_quality, choice_thresholds
from backend.evaluation.label_quality import (
    SUSPECT,
    Floats,
    LabelIssue,
    LabelQuality,
    Reviewed,
    Thresholds,
    label_quality,
    thresholds,
)
from backend.geometry.coordinates import label_arrays
from backend.labelstudio import tags
from backend.loop.context import Context
from backend.loop.scoring.past_predictions import fair_predictions, latest_predictions, past_models
from backend.loop.served_models import ServedModel
from backend.model_versions import ModelVersion
from backend.types import AnnotatedTask, BoolArray, ControlTag, FloatArray, Prediction

_WHOLE = (0.0, 0.0, 100.0, 100.0)  # the box of an image


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What one tag's model thinks of labels, and the thresholds that it went by."""

    issues: tuple[LabelIssue, ...]
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class _ChosenLabels:
    """What an annotator chose about an image, beside what a model says."""

    annotated: AnnotatedTask
    given: BoolArray  # (C,)
    probs: FloatArray  # (C,)
    learned: bool  # that model was trained on the image


def judge(
    context: Context,
    version: ModelVersion,
    model: ServedModel,
    annotated: Mapping[int, AnnotatedTask],
    measured: Thresholds | None = None,
    *,
    alone: bool,
) -> Verdicts:
    """Return the verdicts of one tag's model on the labels of that tag.

    `measured`: go by these thresholds; None: measure them on these labels. `alone`: there is no other tag.
    """
    if model.tag.task == "classify":
        return _judge_choices(context, version, model, annotated, measured, alone=alone)
    pairs = {}
    sources = _sources(model, annotated.values())
    for task_id, prediction in latest_predictions(context, model.project_id, model.number, model.key, sources):
        reviewed = labels_and_predictions(model.tag, model.classes, annotated[task_id], prediction)
        if reviewed is not None:
            pairs[task_id] = reviewed
    learned, images = version.learned_task_ids(model.key), list(pairs.values())
    used = thresholds(images) if measured is None else _later(measured, len(images))
    issues = (
        _doubt(model, annotated[task_id], pairs[task_id], quality, task_id in learned)
        for task_id, quality in zip(pairs, label_quality(images, used.sure[0], used.floor), strict=True)
    )
    return Verdicts(tuple(issues), used)


def _judge_choices(
    context: Context,
    version: ModelVersion,
    model: ServedModel,
    annotated: Mapping[int, AnnotatedTask],
    measured: Thresholds | None,
    *,
    alone: bool,
) -> Verdicts:
    """Return the verdicts on the choices about images; beside other tags a task without any is none of its business."""
    labels = [name for name in model.classes if name in model.tag.labels]
    rows = list(_chosen_by_task(context, version, model, annotated, labels, alone=alone).values()) if labels else []
    shape = len(rows), len(labels)
    probs = np.array([row.probs for row in rows], dtype=np.float64).reshape(shape)
    given = np.array([row.given for row in rows], dtype=np.bool_).reshape(shape)
    unlearned = ~np.array([row.learned for row in rows], dtype=np.bool_)
    used = choice_thresholds(probs, given, unlearned) if measured is None else _later(measured, len(rows))
    quality = choice_quality(probs, given, used, multiple=model.tag.multiple)
    issues = (_choice_issue(model, labels, row, of) for row, of in zip(rows, quality, strict=True))
    return Verdicts(tuple(issues), used)


def _chosen_by_task(
    context: Context,
    version: ModelVersion,
    model: ServedModel,
    annotated: Mapping[int, AnnotatedTask],
    labels: Sequence[str],
    *,
    alone: bool,
) -> dict[int, _ChosenLabels]:
    """Return by task what was chosen of `labels`, beside what a model says that had not learned from it, if any."""
    learned, columns = version.learned_task_ids(model.key), np.isin(model.classes, labels)
    pasts = [past for past in past_models(context, model) if past.classes == model.classes]
    rows: dict[int, _ChosenLabels] = {}
    sources = _sources(model, annotated.values())
    for task_id, latest in latest_predictions(context, model.project_id, model.number, model.key, sources):
        given = chosen_labels(model.tag, labels, annotated[task_id])
        if given is None or latest.tracks is not None or not (alone or given.any()):
            continue
        rows[task_id] = _ChosenLabels(annotated[task_id], given, latest.class_probs[0, columns], task_id in learned)
    taught = _sources(model, [row.annotated for row in rows.values() if row.learned])
    for task_id, _, earlier in fair_predictions(context, pasts, taught):
        rows[task_id] = replace(rows[task_id], probs=earlier.class_probs[0, columns], learned=False)
    return rows


def _later(measured: Thresholds, images: int) -> Thresholds:
    return replace(measured, since=measured.since + images)


def _sources(model: ServedModel, annotated: Iterable[AnnotatedTask]) -> dict[int, int]:
    """Return by task what the model's tag shows of it now."""
    return {task.task.id: model.tag.source(task.task) for task in annotated}


def labels_and_predictions(
    tag: ControlTag, classes: tuple[str, ...], annotated: AnnotatedTask, prediction: Prediction
) -> Reviewed | None:
    """Return a task's labels beside its predictions, in percent; None if the version cannot judge them.

    That is where it never learned one of the labels, where the result is of another config or image, and in videos,
    whose boxes are of many frames.

    Predictions of classes that the label config no longer has accuse nobody.
    """
    if prediction.tracks is not None:
        return None
    if tags.is_foreign(tag, annotated.result, (prediction.width, prediction.height)):
        return None
    labels, kinds = label_arrays(tags.objects(tag, annotated.result), classes, 100, 100)
    if (kinds < 0).any():
        return None
    found = prediction.class_probs.argmax(axis=1) if len(prediction.boxes) else np.zeros(0, dtype=np.int64)
    kept = np.isin(found, [number for number, name in enumerate(classes) if name in tag.labels])
    percent = prediction.boxes.astype(np.float64) * 100 / np.tile([prediction.width, prediction.height], 2)
    confidence = prediction.confidence.astype(np.float64)
    return Reviewed(labels, kinds, percent[kept], found[kept].astype(np.int64), confidence[kept])


def chosen_labels(tag: ControlTag, labels: Sequence[str], annotated: AnnotatedTask) -> BoolArray | None:
    """Return which of `labels` a task was given (C,); None where it was given something else."""
    reading = tags.read(tag, annotated.result)
    chosen = {box.label for box in reading.boxes}
    if reading.unreadable:
        return None
    return np.isin(labels, list(chosen)) if chosen <= set(labels) else None


def _doubt(
    model: ServedModel, annotated: AnnotatedTask, reviewed: Reviewed, quality: LabelQuality, learned: bool
) -> LabelIssue:
    """Return the verdict on one annotation, with the one box that its suspicion is about."""
    label, box, suspicion = "", None, quality.suspicion if quality.score < SUSPECT else ""
    if suspicion:
        overlooked = suspicion == "overlooked"
        boxes = reviewed.predictions if overlooked else reviewed.labels
        kinds = reviewed.predicted_classes if overlooked else reviewed.label_classes
        worst = int(np.nanargmin(getattr(quality, suspicion)))
        label = model.classes[kinds[worst]]
        left, top, right, bottom = boxes[worst].round(2).tolist()
        box = (left, top, right, bottom)
    judged = (annotated.task.id, annotated.annotation_id, annotated.updated_at)
    return LabelIssue(*judged, round(quality.score, 6), suspicion, label, box, learned, model.tag.from_name)


def _choice_issue(model: ServedModel, labels: Sequence[str], choice: _ChosenLabels, quality: Floats) -> LabelIssue:
    """Return the verdict on one annotation's choices, with the label that is the likeliest error."""
    worst = int(quality.argmin())
    label, box, suspicion = "", None, ""
    if quality[worst] < SUSPECT:
        wrong = "mistaken" if model.tag.multiple else "swapped"
        label, box, suspicion = labels[worst], _WHOLE, wrong if choice.given[worst] else "overlooked"
    judged = (choice.annotated.task.id, choice.annotated.annotation_id, choice.annotated.updated_at)
    score = round(float(quality[worst]), 6)
    return LabelIssue(*judged, score, suspicion, label, box, choice.learned, model.tag.from_name)
