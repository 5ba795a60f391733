"""The verdicts of a tag's model on the labels of that tag, one per annotation.

A classifier memorises label errors. So choices are judged by the newest version that had not learned from the image, if
there is one.
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
from backend.labelstudio import tags, task_fields, visibility
from backend.loop.context import Context
from backend.loop.scoring.past_predictions import fair_predictions, latest_predictions, past_models
from backend.loop.served_models import ServedModel
from backend.model_versions import ModelVersion
from backend.types import AnnotatedTask, BoolArray, ControlTag, FloatArray, Prediction

_WHOLE_IMAGE = (0.0, 0.0, 100.0, 100.0)  # in percent


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The issues that one tag's model found, and the thresholds that were used."""

    issues: tuple[LabelIssue, ...]
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class _ChosenLabels:
    """The choices of an annotator about an image, beside a model's prediction."""

    annotated: AnnotatedTask
    labels: BoolArray  # (C,)
    probs: FloatArray  # (C,)
    learned: bool  # the model has learned from the image


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

    `annotated` are the tasks by id. `measured` are the thresholds to use; None measures them on these labels. `alone`
    says that the project has no other tag.
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
        _label_issue(model, annotated[task_id], pairs[task_id], quality, task_id in learned)
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
    """Return the verdicts on choices; with several tags, tasks without a choice are skipped."""
    labels = [name for name in model.classes if name in model.tag.labels]
    rows = list(_chosen_by_task(context, version, model, annotated, labels, alone=alone).values()) if labels else []
    shape = len(rows), len(labels)
    probs = np.array([row.probs for row in rows], dtype=np.float64).reshape(shape)
    chosen = np.array([row.labels for row in rows], dtype=np.bool_).reshape(shape)
    unlearned = ~np.array([row.learned for row in rows], dtype=np.bool_)
    used = choice_thresholds(probs, chosen, unlearned) if measured is None else _later(measured, len(rows))
    qualities = choice_quality(probs, chosen, used, multiple=model.tag.multiple)
    issues = (_choice_issue(model, labels, row, quality) for row, quality in zip(rows, qualities, strict=True))
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
    """Return, by task id, which of `labels` were chosen, beside a fair prediction, else the served model's."""
    learned, columns = version.learned_task_ids(model.key), np.isin(model.classes, labels)
    pasts = [past for past in past_models(context, model) if past.classes == model.classes]
    rows: dict[int, _ChosenLabels] = {}
    sources = _sources(model, annotated.values())
    for task_id, latest in latest_predictions(context, model.project_id, model.number, model.key, sources):
        chosen = chosen_labels(model.tag, labels, annotated[task_id])
        if chosen is None or not latest.one_image or not (alone or chosen.any()):
            continue
        rows[task_id] = _ChosenLabels(annotated[task_id], chosen, latest.class_probs[0, columns], task_id in learned)
    learned_sources = _sources(model, [row.annotated for row in rows.values() if row.learned])
    for task_id, _, earlier in fair_predictions(context, pasts, learned_sources):
        rows[task_id] = replace(rows[task_id], probs=earlier.class_probs[0, columns], learned=False)
    return rows


def _later(measured: Thresholds, images: int) -> Thresholds:
    """Return the thresholds with the number of images that were judged since they were measured."""
    return replace(measured, since=measured.since + images)


def _sources(model: ServedModel, annotated: Iterable[AnnotatedTask]) -> dict[int, int]:
    """Return the hash of the media that each task shows now for the model's tag, by task id."""
    return {task.task.id: task_fields.source(model.tag, task.task) for task in annotated}


def labels_and_predictions(
    tag: ControlTag, classes: tuple[str, ...], annotated: AnnotatedTask, prediction: Prediction
) -> Reviewed | None:
    """Return a task's labels and predictions, in percent of the image; None if the model cannot judge the labels.

    It cannot if one of the labels has a class that it lacks, or if the result belongs to another label config or image.
    Videos are not judged, because their boxes are of many frames. Predictions of classes that the label config no
    longer has are left out.
    """
    if not prediction.one_image:
        return None
    if tags.is_foreign(tag, annotated.result, (prediction.width, prediction.height)):
        return None
    labels, label_classes = label_arrays(tags.objects(tag, annotated.result), classes, 100, 100)
    if (label_classes < 0).any():
        return None
    class_ids = prediction.class_probs.argmax(axis=1) if len(prediction.boxes) else np.zeros(0, dtype=np.int64)
    in_config = np.isin(class_ids, [class_id for class_id, name in enumerate(classes) if name in tag.labels])
    percent = prediction.boxes.astype(np.float64) * 100 / np.tile([prediction.width, prediction.height], 2)
    confidence = prediction.confidence.astype(np.float64)
    return Reviewed(
        labels, label_classes, percent[in_config], class_ids[in_config].astype(np.int64), confidence[in_config]
    )


def chosen_labels(tag: ControlTag, labels: Sequence[str], annotated: AnnotatedTask) -> BoolArray | None:
    """Return which of `labels` were chosen for a task (C,); None if anything else was chosen."""
    reading = tags.read(tag, annotated.result)
    chosen = {box.label for box in reading.boxes}
    if reading.unreadable or visibility.is_hidden(tag, annotated.result):
        return None
    return np.isin(labels, list(chosen)) if chosen <= set(labels) else None


def _label_issue(
    model: ServedModel, annotated: AnnotatedTask, reviewed: Reviewed, quality: LabelQuality, learned: bool
) -> LabelIssue:
    """Return the verdict on one annotation, with the box that looks wrong most."""
    label, box, suspicion = "", None, quality.suspicion if quality.score < SUSPECT else ""
    if suspicion:
        overlooked = suspicion == "overlooked"
        boxes = reviewed.predictions if overlooked else reviewed.labels
        class_ids = reviewed.predicted_classes if overlooked else reviewed.label_classes
        worst = int(np.nanargmin(getattr(quality, suspicion)))
        label = model.classes[class_ids[worst]]
        left, top, right, bottom = boxes[worst].round(2).tolist()
        box = (left, top, right, bottom)
    judged = (annotated.task.id, annotated.annotation_id, annotated.updated_at)
    return LabelIssue(*judged, round(quality.score, 6), suspicion, label, box, learned, model.tag.from_name)


def _choice_issue(model: ServedModel, labels: Sequence[str], choice: _ChosenLabels, quality: Floats) -> LabelIssue:
    """Return the verdict on one annotation's choices, with the label that is most likely wrong."""
    worst = int(quality.argmin())
    label, box, suspicion = "", None, ""
    if quality[worst] < SUSPECT:
        wrong = "mistaken" if model.tag.multiple else "swapped"
        label, box, suspicion = labels[worst], _WHOLE_IMAGE, wrong if choice.labels[worst] else "overlooked"
    judged = (choice.annotated.task.id, choice.annotated.annotation_id, choice.annotated.updated_at)
    score = round(float(quality[worst]), 6)
    return LabelIssue(*judged, score, suspicion, label, box, choice.learned, model.tag.from_name)
