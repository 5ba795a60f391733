"""How good a newly trained model of one control tag is, and whether it may take the place of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backend.datasets import writer
from backend.datasets.writer import Split
from backend.evaluation import bootstrap, matching
from backend.evaluation.bootstrap import Measured
from backend.evaluation.matching import Detections
from backend.evaluation.promotion import Contest, judge, needs_labels
from backend.labelstudio.tags.timelinelabels import lstm
from backend.loop.training.snapshot import Plan
from backend.model_versions import Calibration, Metrics
from backend.yolo import evaluate, timeline_model
from backend.yolo.classification import load_predictor
from backend.yolo.tasks import details, quality
from backend.yolo.timeline_model import LeftOut, Watched
from backend.yolo.training import Trained


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluation gave, and whether the challenger is accepted for it."""

    challenger: Metrics
    champion: Metrics | None
    promoted: bool
    reason: str
    calibration: Calibration  # of the challenger
    class_quality: Mapping[str, float]  # PPAL's, of the classes it matched


def verdict_on(
    plan: Plan,
    trained: Trained,
    champion: Path | None,
    data_yaml: Path,
    left_out: LeftOut,
    *,
    chosen: bool = False,
) -> Verdict:
    """Measure the challenger and, where there is one, the champion on the same validation set.

    `chosen`: somebody rolled back to the champion.
    """
    challenger, seen = _measured(plan, trained.weights, data_yaml, left_out)
    before = _measured(plan, champion, data_yaml, left_out)[0] if champion else None
    if before:
        challenger = bootstrap.gained(challenger, before)
    on_labels = None
    if champion and plan.split.held_out and needs_labels(challenger, before):
        on_labels = _on_labels(plan, trained.weights, champion, data_yaml.parent / "labels-alone", left_out)
    promoted, reason = judge(
        challenger,
        before,
        finite=trained.losses_finite,
        tolerance=plan.settings.tolerance,
        on_labels=on_labels,
        chosen=chosen,
        quality=quality(plan.tag),
    )
    found = detected(plan, trained.weights, seen)
    known = matching.class_quality(found, plan.tag.labels) if found else {}
    measured = before.metrics if before else None
    return Verdict(challenger.metrics, measured, promoted, reason, calibrated_on(found), known)


def _on_labels(plan: Plan, challenger: Path, champion: Path, folder: Path, left_out: LeftOut) -> Contest:
    """Measure both on all labels there are."""
    images = (*plan.split.train, *plan.split.val)
    everything = replace(plan, split=Split(images, images, held_out=False))
    data_yaml = writer.write(everything.split, plan.tag.labels, folder, plan.tag.task, details(plan.tag))
    return Contest(*(_measured(everything, weights, data_yaml, left_out)[0] for weights in (challenger, champion)))


def _measured(plan: Plan, weights: Path, data_yaml: Path, left_out: LeftOut) -> tuple[Measured, Watched | None]:
    """Return the quality of a model, and what it says of the validation videos where an LSTM is judged by them."""
    size, device = plan.settings.imgsz, plan.settings.device
    if lstm(plan.tag) is None:
        found, seen = evaluate.measure(weights, data_yaml, size, device), None
    else:
        seen = timeline_model.watched(weights, plan.judged_videos, plan.tag, size, device, left_out)
        found = timeline_model.measured(seen, plan.tag.labels)
    return replace(found, metrics=replace(found.metrics, held_out=plan.split.held_out)), seen


def detected(plan: Plan, weights: Path, seen: Watched | None = None) -> Detections | None:
    """Predict the validation images, or take what is `seen` of videos; None where the model has learned from them."""
    if not plan.split.held_out:
        return None
    if seen is not None:
        return matching.answers(seen.probs, seen.labels)
    detector = load_predictor(weights, plan.settings.imgsz, plan.settings.device)
    found = detector.predict([image.path for image in plan.split.val])
    pairs = zip(found, (image.boxes for image in plan.split.val), strict=True)
    return matching.detections(pairs, plan.tag.labels, plan.tag.task, multiple=plan.tag.multiple)


def calibrated_on(found: Detections | None) -> Calibration:
    """Return the temperature that fits what was found on the validation images, 1 where there are none."""
    if found is None:
        return Calibration(reason="there are no validation images yet that the model has not learned from")
    return found.calibration()
