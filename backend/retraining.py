"""From labels to a published version: snapshot, images, train, evaluate, judge, publish."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from backend import calibration, dataset, evaluation, snapshot, training, validation
from backend.classifying import load_predictor
from backend.context import Context
from backend.files import file_sha256
from backend.gate import judge
from backend.models import base_model, open_base
from backend.pretrained import BaseWeights
from backend.progress import Fence
from backend.snapshot import Plan
from backend.software import versions as software_versions
from backend.store import version_name
from backend.types import Calibration, Metrics, ModelVersion, TrainingProgress
from backend.validation import Detections
from backend.yolo_tasks import details, quality

log = logging.getLogger(__name__)

# Where each stage begins on the one progress bar, from measured shares of a training's time.
_STAGE_STARTS = {"snapshot": 0.0, "images": 0.02, "train": 0.05, "evaluate": 0.92, "publish": 0.98}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluation gave, and whether the version is published for it."""

    challenger: Metrics
    champion: Metrics | None
    promoted: bool
    reason: str
    detections: Detections | None  # on the held-out images


def retrain(context: Context, project_id: int) -> ModelVersion:
    """Train, judge and publish one version of the project.

    Raises TrainingError with the reason if the labels do not allow it, BusyError if another training holds the project.
    """
    with context.progress.lock(project_id, "training") as fence:
        try:
            with tempfile.TemporaryDirectory(prefix="training-", dir=_scratch(context)) as scratch:
                version = _retrain(context, project_id, fence, Path(scratch))
            # Still under the lock: "running" without a lock means that the worker died.
            context.progress.set_training(project_id, TrainingProgress("idle", progress=1.0))
        except BaseException as error:
            context.progress.set_training(project_id, TrainingProgress("failed", error=str(error) or repr(error)))
            raise
    return version


def _retrain(context: Context, project_id: int, fence: Fence, scratch: Path) -> ModelVersion:
    started = time.monotonic()
    show = _Reporter(context, project_id, started)
    show("snapshot")
    plan = snapshot.take(context, project_id, lambda: show("images"))
    data_yaml = dataset.write(plan.split, plan.tag.labels, scratch / "data", plan.tag.task, details(plan.tag))
    base = open_base(context, plan.record, plan.tag)
    prepared = time.monotonic()
    trained = _train(plan, base, data_yaml, scratch / "run", fence, show)
    show("evaluate")
    verdict = _verdict(context, plan, trained, data_yaml)
    timings = {
        "prepare": prepared - started,
        "train": trained.seconds,
        "evaluate": time.monotonic() - prepared - trained.seconds,
    }
    show("publish")
    fence.check()  # the last moment: a stalled training must not publish over its successor
    version = _version(context, plan, base, trained, verdict, timings)
    context.store.publish(version, trained.weights)
    log.info("project %d: %s %s", project_id, version.name, version.reason)
    return version


def _train(
    plan: Plan, base: BaseWeights, data_yaml: Path, out: Path, fence: Fence, show: _Reporter
) -> training.Trained:
    images, hyper = len(plan.split.train), _hyper(plan)
    name = f"project {plan.record.project_id}"
    log.info("%s: training on %d images for %d epochs from %s", name, images, hyper.epochs, base.source)
    if not base.pretrained:
        log.warning("%s: %s", name, base.note)

    def on_epoch(report: training.EpochReport) -> None:
        fence.check()
        show.epoch(report)

    return training.train(data_yaml, base, hyper, out, on_epoch)


def _hyper(plan: Plan) -> training.Hyper:
    settings = plan.settings
    return training.Hyper(
        epochs=training.epochs_for(len(plan.split.train), settings),
        batch=settings.batch,
        imgsz=settings.imgsz,
        seed=settings.seed,
        device=settings.device,
        minutes=settings.train_minutes,
    )


def _verdict(context: Context, plan: Plan, trained: training.Trained, data_yaml: Path) -> Verdict:
    challenger, champion = _evaluate(context, plan, trained.weights, data_yaml)
    promoted, reason = judge(
        challenger,
        champion,
        finite=trained.losses_finite,
        held_out=plan.split.held_out,
        tolerance=plan.settings.tolerance,
        quality=quality(plan.tag),
    )
    return Verdict(challenger, champion, promoted, reason, _detections(plan, trained.weights))


def _detections(plan: Plan, weights: Path) -> Detections | None:
    """Predict the validation images; None where the model has learned from them."""
    if not plan.split.held_out:
        return None
    detector = load_predictor(weights, plan.settings.imgsz, plan.settings.device)
    found = detector.predict([image.path for image in plan.split.val])
    pairs = zip(found, (image.boxes for image in plan.split.val), strict=True)
    return validation.detections(pairs, plan.tag.labels)


def _calibration(found: Detections | None) -> Calibration:
    if found is None:
        return Calibration(reason="there are no validation images yet that the model has not learned from")
    return calibration.fit(found.confidence, found.overlap > 0)


def _version(
    context: Context,
    plan: Plan,
    base: BaseWeights,
    trained: training.Trained,
    verdict: Verdict,
    timings: Mapping[str, float],
) -> ModelVersion:
    """Return the manifest of a finished training, under a number of its own."""
    project_id, name = plan.record.project_id, base_model(context, plan.record)
    champion = context.store.current(project_id)
    number = context.store.reserve_number(project_id)
    return ModelVersion(
        project_id=project_id,
        number=number,
        name=version_name(name, number),
        sha256=file_sha256(trained.weights),
        base_model=name,
        parent=champion.number if champion else None,
        classes=plan.tag.labels,
        snapshot=plan.snapshot,
        metrics=verdict.challenger,
        champion_metrics=verdict.champion,
        hyper_parameters=asdict(_hyper(plan)) | {"pretrained": base.pretrained},
        software=software_versions(),
        timings=timings,
        created=datetime.now(UTC),
        promoted=verdict.promoted,
        calibration=_calibration(verdict.detections),
        class_quality=validation.class_quality(verdict.detections, plan.tag.labels) if verdict.detections else {},
        task=plan.tag.task,
        reason=verdict.reason + ("" if base.pretrained else "; trained from scratch: no pretrained weights"),
    )


def _evaluate(context: Context, plan: Plan, weights: Path, data_yaml: Path) -> tuple[Metrics, Metrics | None]:
    """Measure the challenger and, where there is one for the same task, the champion on the same validation set."""
    size, device = plan.settings.imgsz, plan.settings.device
    challenger = evaluation.evaluate(weights, data_yaml, size, device)
    champion = context.store.current(plan.snapshot.project_id)
    if champion is None or champion.task != plan.tag.task:
        return challenger, None
    return challenger, evaluation.evaluate(context.store.weights(champion), data_yaml, size, device)


class _Reporter:
    """Writes the training's stage, progress and ETA where GET /api/projects/{id} reads them."""

    def __init__(self, context: Context, project_id: int, started: float) -> None:
        self._context = context
        self._project_id = project_id
        self._started = started

    def __call__(self, stage: str) -> None:
        self._write(TrainingProgress("running", stage, _STAGE_STARTS[stage], self._eta(_STAGE_STARTS[stage])))

    def epoch(self, report: training.EpochReport) -> None:
        begin, end = _STAGE_STARTS["train"], _STAGE_STARTS["evaluate"]
        share = begin + (end - begin) * report.epoch / report.epochs
        self._write(
            TrainingProgress(
                "running",
                "train",
                share,
                report.eta_s,
                epoch=report.epoch,
                epochs=report.epochs,
                losses=dict(report.losses),
            )
        )

    def _eta(self, share: float) -> float | None:
        spent = time.monotonic() - self._started
        return None if share < 0.5 else spent * (1 - share) / share

    def _write(self, progress: TrainingProgress) -> None:
        self._context.progress.set_training(self._project_id, progress)


def _scratch(context: Context) -> Path:
    """Scratch space on the media cache's file system, so that images can be hard links."""
    scratch = context.work_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def clear_scratch(context: Context, older_than_s: float = 48 * 3600) -> None:
    """Remove what killed trainings left behind."""
    for left in _scratch(context).glob("training-*"):
        if time.time() - left.stat().st_mtime > older_than_s:
            shutil.rmtree(left, ignore_errors=True)
