"""How good a newly trained model of one control tag is, and whether it may take the place of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend import evaluation, timeline_model, validation
from backend.classifying import load_predictor
from backend.gate import judge
from backend.snapshot import Plan
from backend.tags.timelinelabels import lstm
from backend.timeline_model import LeftOut, Watched
from backend.training import Trained
from backend.validation import Detections
from backend.versions import Calibration, Metrics
from backend.yolo_tasks import quality


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluation gave, and whether the challenger is accepted for it."""

    challenger: Metrics
    champion: Metrics | None
    promoted: bool
    reason: str
    calibration: Calibration  # of the challenger
    class_quality: Mapping[str, float]  # PPAL's, of the classes it matched


def verdict_on(plan: Plan, trained: Trained, champion: Path | None, data_yaml: Path, left_out: LeftOut) -> Verdict:
    """Measure the challenger and, where there is one, the champion on the same validation set."""
    challenger, seen = _measured(plan, trained.weights, data_yaml, left_out)
    before = _measured(plan, champion, data_yaml, left_out)[0] if champion else None
    promoted, reason = judge(
        challenger,
        before,
        finite=trained.losses_finite,
        held_out=plan.split.held_out,
        tolerance=plan.settings.tolerance,
        quality=quality(plan.tag),
    )
    found = detected(plan, trained.weights, seen)
    known = validation.class_quality(found, plan.tag.labels) if found else {}
    return Verdict(challenger, before, promoted, reason, calibrated_on(found), known)


def _measured(plan: Plan, weights: Path, data_yaml: Path, left_out: LeftOut) -> tuple[Metrics, Watched | None]:
    """Return the quality of a model, and what it says of the validation videos where an LSTM is judged by them."""
    size, device = plan.settings.imgsz, plan.settings.device
    if lstm(plan.tag) is None:
        return evaluation.evaluate(weights, data_yaml, size, device), None
    seen = timeline_model.watched(weights, plan.judged_videos, plan.tag, size, device, left_out)
    return timeline_model.metrics(seen, plan.tag.labels), seen


def detected(plan: Plan, weights: Path, seen: Watched | None = None) -> Detections | None:
    """Predict the validation images, or take what is `seen` of videos; None where the model has learned from them."""
    if not plan.split.held_out:
        return None
    if seen is not None:
        return validation.answers(seen.probs, seen.labels)
    detector = load_predictor(weights, plan.settings.imgsz, plan.settings.device)
    found = detector.predict([image.path for image in plan.split.val])
    pairs = zip(found, (image.boxes for image in plan.split.val), strict=True)
    return validation.detections(pairs, plan.tag.labels, plan.tag.task, multiple=plan.tag.multiple)


def calibrated_on(found: Detections | None) -> Calibration:
    """Return the temperature that fits what was found on the validation images, 1 where there are none."""
    if found is None:
        return Calibration(reason="there are no validation images yet that the model has not learned from")
    return found.calibration()
