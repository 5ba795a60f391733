"""How good a newly trained model of one control tag is, and whether it may take the place of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.datasets import writer
from backend.evaluation import matching
from backend.evaluation.bootstrap import Measured
from backend.evaluation.matching import Detections
from backend.labelstudio.tags.timelinelabels import lstm
from backend.loop.training.snapshot import TagPlan
from backend.model_versions import Calibration
from backend.policy import judgement
from backend.policy.judgement import Judgement
from backend.yolo import evaluate, timeline_model
from backend.yolo.predictors import load_predictor
from backend.yolo.tasks import details, quality
from backend.yolo.timeline_model import LeftOut, Watched
from backend.yolo.training import Trained


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the evaluation of a challenger gave."""

    verdict: Judgement
    calibration: Calibration
    class_quality: Mapping[str, float]  # PPAL's, of the classes that the challenger matched


def evaluate_challenger(
    plan: TagPlan,
    trained: Trained,
    champion: Path | None,
    data_yaml: Path,
    left_out: LeftOut,
    *,
    chosen: bool = False,
) -> Evaluation:
    """Measure the challenger and, where there is one, the champion on the same validation set.

    `chosen`: somebody rolled back to the champion.
    """
    models = [trained.weights, champion] if champion else [trained.weights]
    measured = [_measure(plan, weights, data_yaml, left_out) for weights in models]
    verdict = judgement.judge_challenger(
        [quality_of for quality_of, _ in measured],
        lambda: _measure_on_labels(plan, models, data_yaml.parent / "labels-alone", left_out),
        held_out=plan.split.held_out,
        finite=trained.losses_finite,
        tolerance=plan.settings.tolerance,
        quality=quality(plan.tag),
        chosen=chosen,
    )
    detections = validation_detections(plan, trained.weights, measured[0][1])
    class_quality = judgement.class_quality_of(detections, plan.tag.labels)
    return Evaluation(verdict, judgement.calibration_of(detections), class_quality)


def _measure_on_labels(plan: TagPlan, models: Sequence[Path], folder: Path, left_out: LeftOut) -> list[Measured]:
    """Measure the models on all labels there are."""
    everything = replace(plan, split=plan.split.whole())
    data_yaml = writer.write(everything.split, plan.tag.labels, folder, plan.tag.task, details(plan.tag))
    return [_measure(everything, weights, data_yaml, left_out)[0] for weights in models]


def _measure(plan: TagPlan, weights: Path, data_yaml: Path, left_out: LeftOut) -> tuple[Measured, Watched | None]:
    """Return the quality of a model, and what it says of the validation videos where an LSTM is judged by them."""
    size, device = plan.settings.imgsz, plan.settings.device
    if lstm(plan.tag) is None:
        return evaluate.measure(weights, data_yaml, size, device), None
    watched = timeline_model.watched(weights, plan.judged_videos, plan.tag, size, device, left_out)
    return timeline_model.measured(watched, plan.tag.labels), watched


def validation_detections(plan: TagPlan, weights: Path, seen: Watched | None = None) -> Detections | None:
    """Predict the validation images, or take what is `seen` of videos; None where the model has learned from them."""
    if not plan.split.held_out:
        return None
    if seen is not None:
        return matching.answers(seen.probs, seen.labels)
    detector = load_predictor(weights, plan.settings.imgsz, plan.settings.device)
    found = detector.predict([image.path for image in plan.split.val])
    pairs = zip(found, (image.boxes for image in plan.split.val), strict=True)
    return matching.detections(pairs, plan.tag.labels, plan.tag.task, multiple=plan.tag.multiple)
