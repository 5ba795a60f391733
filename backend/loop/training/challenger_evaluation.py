"""The evaluation of a newly trained model of one control tag, and whether it may replace the champion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.datasets import writer
from backend.evaluation import held_out_report, judged_quality, matching
from backend.evaluation.bootstrap import Measured
from backend.evaluation.held_out_report import HeldOutAnswers, HeldOutReport
from backend.evaluation.judged_images import JudgedImage, judge_frames, judge_image
from backend.evaluation.matching import Detections
from backend.labelstudio.tags.timelinelabels import lstm
from backend.loop.training.snapshot import TagPlan
from backend.model_versions import Calibration
from backend.policy import judgement, tiling
from backend.policy.judgement import Judgement
from backend.types import Prediction, frame_step
from backend.yolo import evaluate, tiled_prediction, timeline_model
from backend.yolo.detector import KEEP_CONFIDENCE
from backend.yolo.predictors import load_predictor
from backend.yolo.tasks import details, quality
from backend.yolo.timeline_model import FramePredictions, LeftOut
from backend.yolo.training import Trained


@dataclass(frozen=True, slots=True)
class _Measurement:
    """The measurement of a model, and the predictions that it was made from."""

    measured: Measured
    videos: FramePredictions | None = None  # of an LSTM
    judged: tuple[JudgedImage, ...] | None = None  # of a model that sees images in tiles


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of the evaluation of a challenger."""

    judgement: Judgement
    calibration: Calibration
    class_quality: Mapping[str, float]  # PPAL's quality of each class that the challenger matched
    held_out: tuple[HeldOutReport, HeldOutAnswers] | None = None  # None: no image is held out


def evaluate_challenger(
    plan: TagPlan,
    trained: Trained,
    champion: Path | None,
    data_yaml: Path,
    left_out: LeftOut,
    *,
    chosen: bool = False,
) -> Evaluation:
    """Measure the challenger and, if there is one, the champion on the same validation set, and judge the challenger.

    `champion` are its weights. `chosen` says that somebody rolled back to it. `left_out` is called for videos that
    cannot be read.
    """
    models = [trained.weights, champion] if champion else [trained.weights]
    measured = [_measure(plan, weights, data_yaml, left_out) for weights in models]
    outcome = judgement.judge_challenger(
        [measurement.measured for measurement in measured],
        lambda: _measure_on_labels(plan, models, data_yaml.parent / "labels-alone", left_out),
        held_out=plan.split.held_out,
        finite=trained.losses_finite,
        tolerance=plan.settings.tolerance,
        quality=quality(plan.tag),
        chosen=chosen,
    )
    challenger = measured[0].measured
    judged = measured[0].judged if plan.split.held_out else None
    judged = judged or judged_images(plan, trained.weights, measured[0].videos)
    detections = None if judged is None else joined(plan, judged)
    calibration = judgement.calibration_of(detections)
    held_out = None
    if judged is not None and detections is not None:
        labels, temperature = plan.tag.labels, calibration.temperature
        held_out = held_out_report.report_held_out(judged, detections, challenger, labels, temperature)
    class_quality = judgement.class_quality_of(detections, plan.tag.labels)
    return Evaluation(outcome, calibration, class_quality, held_out)


def _measure_on_labels(plan: TagPlan, models: Sequence[Path], folder: Path, left_out: LeftOut) -> list[Measured]:
    """Measure the models on all labels."""
    everything = replace(plan, split=plan.split.whole())
    data_yaml = writer.write(everything.split, plan.tag.labels, folder, plan.tag.task, details(plan.tag))
    return [_measure(everything, weights, data_yaml, left_out).measured for weights in models]


def _measure(plan: TagPlan, weights: Path, data_yaml: Path, left_out: LeftOut) -> _Measurement:
    """Return the measurement of a model on the validation images as it serves: in tiles if the tag has them."""
    size, device = plan.settings.imgsz, plan.settings.device
    if tiling.tile_side(plan.settings, plan.tag):
        predictions = list(_predictions(plan, weights, evaluate.LOWEST))
        measured = judged_quality.measured_of(_judged(plan, predictions), plan.tag.labels, KEEP_CONFIDENCE)
        shown = (judged_quality.confident(prediction, KEEP_CONFIDENCE) for prediction in predictions)
        return _Measurement(measured, judged=_judged(plan, shown))
    if lstm(plan.tag) is None:
        return _Measurement(_by_image(plan, evaluate.measure(weights, data_yaml, size, device)))
    frame_predictions = timeline_model.predict_videos(weights, plan.judged_videos, plan.tag, size, device, left_out)
    return _Measurement(timeline_model.measured(frame_predictions, plan.tag.labels), frame_predictions)


def _by_image(plan: TagPlan, measured: Measured) -> Measured:
    """Return a measurement that counts whole images, also where the model sees the crops of their boxes."""
    if not plan.tag.regions_of:
        return measured
    images = len({image.task_id for image in plan.split.val})
    return replace(measured, metrics=replace(measured.metrics, images=images))


def judged_images(
    plan: TagPlan, weights: Path, videos: FramePredictions | None = None
) -> tuple[JudgedImage, ...] | None:
    """Predict the validation images and match them, or take the predictions of `videos`.

    None if the images are not held out.
    """
    if not plan.split.held_out:
        return None
    if videos is not None:
        return judge_frames(videos.probs, videos.labels, videos.tasks, frame_step(plan.tag.attributes))
    return _judged(plan, _predictions(plan, weights))


def _predictions(plan: TagPlan, weights: Path, lowest: float = KEEP_CONFIDENCE) -> Iterator[Prediction]:
    """Yield the predictions of the validation images, in tiles if the tag has them, in the order of its labels.

    `lowest` is the lowest confidence of their boxes, for a tag with tiles.
    """
    side, labels = tiling.tile_side(plan.settings, plan.tag), plan.tag.labels
    predictor = load_predictor(weights, plan.settings.imgsz, plan.settings.device)
    predictions = tiled_prediction.predict(predictor, [image.path for image in plan.split.val], side, lowest)
    if not side:
        return predictions
    return (judged_quality.with_classes(prediction, predictor.classes, labels) for prediction in predictions)


def _judged(plan: TagPlan, predictions: Iterable[Prediction]) -> tuple[JudgedImage, ...]:
    """Match the predictions of the validation images."""
    tag = plan.tag
    return tuple(
        judge_image(image.task_id, image.frame, prediction, image.boxes, tag.labels, tag.task, multiple=tag.multiple)
        for image, prediction in zip(plan.split.val, predictions, strict=True)
    )


def joined(plan: TagPlan, judged: Sequence[JudgedImage]) -> Detections:
    """Return the detections of all images."""
    single = plan.tag.task == "classify" and not plan.tag.multiple
    return matching.joined([image.detections for image in judged], len(plan.tag.labels), single=single)
