"""Versions with evaluations, for tests of what people see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.evaluation.bootstrap import measured
from backend.evaluation.held_out_report import (
    EvaluationReport,
    HeldOutAnswers,
    HeldOutReport,
    LabeledSince,
    LearnedLabels,
    group_quality,
    report_held_out,
)
from backend.evaluation.judged_images import JudgedImage, judge_image, sample_of
from backend.evaluation.matching import joined
from backend.loop.context import Context
from backend.model_versions import Metrics, ModelVersion, TrainingSnapshot
from backend.store.store import StoredEvaluation
from backend.types import LabeledBox, Prediction, YoloTask
from tests.support import CLASSES, publish, with_model

SIDE = 100  # px of the images


def judged(
    tasks: Sequence[int], right: float, classes: Sequence[str] = CLASSES, seed: int = 0
) -> tuple[JudgedImage, ...]:
    """Return images with a label of each class, which a model detects with the probability `right`."""
    rng = np.random.default_rng(seed)
    return tuple(_judged(task, right, classes, rng) for task in tasks)


def _judged(task: int, right: float, classes: Sequence[str], rng: np.random.Generator) -> JudgedImage:
    boxes, kinds, confidence = [], [], []
    labels = []
    for kind, name in enumerate(classes):
        left = 10 + 40 * (kind % 2)
        labels.append(LabeledBox(name, ((left + 15) / SIDE, 0.3, 0.3, 0.3)))
        is_right = rng.random() < right
        boxes.append([left, 15, left + 30, 45] if is_right else [left, 60, left + 20, 90])
        kinds.append(kind)
        confidence.append(rng.uniform(0.5, 0.95) if is_right else rng.uniform(0.2, 0.7))
    probs = np.zeros((len(kinds), len(classes)), np.float32)
    probs[np.arange(len(kinds)), kinds] = confidence
    prediction = Prediction(SIDE, SIDE, np.array(boxes, np.float32), probs, np.array(confidence, np.float32))
    return judge_image(task, 0, prediction, labels, classes, "detect")


def evaluation(
    images: Sequence[JudgedImage],
    classes: Sequence[str] = CLASSES,
    *,
    learned: int = 20,
    since: LabeledSince | None = None,
) -> tuple[StoredEvaluation, Metrics]:
    """Return the evaluation of a model on these held-out images, and its metrics."""
    sample = sample_of(images, len(classes))
    once = np.ones((1, sample.size), np.int64)
    by_class = {
        name: float(value)
        for name, value in zip(classes, sample.by_class(once)[:, 0], strict=True)
        if np.isfinite(value)
    }
    quality = float(sample.quality(once)[0])
    metrics = Metrics(quality, quality, by_class, len(images), 2 * len(images), 2 * len(images), held_out=True)
    measurement = measured(metrics, sample, tasks=tuple(sorted(str(image.task_id) for image in images)))
    detections = joined([image.detections for image in images], len(classes), single=False)
    temperature = detections.calibration().temperature
    report, answers = report_held_out(images, detections, measurement, classes, temperature)
    stored = evaluation_of(report, answers, classes, learned=learned, since=since)
    return stored, measurement.metrics


def evaluation_of(
    report: HeldOutReport | None,
    answers: HeldOutAnswers | None,
    classes: Sequence[str] = CLASSES,
    *,
    learned: int = 20,
    since: LabeledSince | None = None,
) -> StoredEvaluation:
    """Return an evaluation whose training learned one label of each class in each of `learned` images."""
    labels = LearnedLabels(learned, learned * len(classes), dict.fromkeys(classes, learned))
    return StoredEvaluation(EvaluationReport(tuple(classes), labels, report, since), answers)


def labeled_since(version: int, chance: int, picked: int) -> LabeledSince:
    """Return the quality of a version on so many tasks labeled since, of which the picked ones are harder."""
    groups = (judged(range(500, 500 + chance), 0.8), judged(range(600, 600 + picked), 0.4))
    return LabeledSince(version, *(group_quality(images, len(CLASSES)) for images in groups))


def publish_evaluated(
    context: Context,
    project_id: int,
    weights: Path,
    stored: StoredEvaluation,
    metrics: Metrics | None,
    *,
    promoted: bool = True,
    classes: Sequence[str] = CLASSES,
    tasks: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
    task: YoloTask = "detect",
) -> ModelVersion:
    """Publish weights as the next version, with its evaluation; `tasks` are held out."""
    store, current = context.store, context.store.current(project_id)
    number = store.reserve_number(project_id)
    first = publish(store, 99, weights, classes=tuple(classes), task=task)
    reason = "published: it is better" if promoted else "not published: worse than the tolerance 0.02"
    hyper_parameters = {"epochs": 10, **(settings or {})}
    version = with_model(
        first, metrics=metrics, classes=tuple(classes), hyper_parameters=hyper_parameters, reason=reason
    )
    learned = stored.report.learned.images
    version = replace(
        version,
        project_id=project_id,
        number=number,
        name=f"yolo11n-v{number}",
        parent=current.number if current else None,
        promoted=promoted,
        reason=reason,
        snapshot=TrainingSnapshot(project_id, "hash", {}, tuple(range(1000, 1000 + learned)), tuple(tasks)),
        timings={"prepare": 2.0, "train": 60.0, "evaluate": 3.0},
    )
    store.publish(version, {"label": weights}, {"label": stored})
    return version
