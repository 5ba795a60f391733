"""From labels to a published version: snapshot, images, train, evaluate, judge, publish."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backend import dataset, label_config, tags, training
from backend.context import Context
from backend.dataset import LabeledImage, Split
from backend.errors import MediaError, NotFoundError, TrainingError
from backend.files import file_sha256
from backend.models import base_model, open_base
from backend.progress import Counts, Fence
from backend.settings import Settings
from backend.software import versions as software_versions
from backend.store import ProjectRecord, version_name
from backend.training import BaseWeights
from backend.types import (
    AnnotatedTask,
    ControlTag,
    Metrics,
    ModelVersion,
    TrainingProgress,
    TrainingSnapshot,
)

log = logging.getLogger(__name__)

MIN_JUDGED_IMAGES = 10  # a validation set smaller than this only guards against collapse
# Where each stage begins on the one progress bar, from measured shares of a training's time.
_STAGE_STARTS = {"snapshot": 0.0, "images": 0.02, "train": 0.05, "evaluate": 0.92, "publish": 0.98}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one training works from."""

    record: ProjectRecord
    settings: Settings
    tag: ControlTag
    snapshot: TrainingSnapshot
    split: Split


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluation gave, and whether the version is published for it."""

    challenger: Metrics
    champion: Metrics | None
    promoted: bool
    reason: str


def last_snapshot(context: Context, project_id: int) -> TrainingSnapshot | None:
    """Return the labels of the newest training, whether its version was promoted or not."""
    versions = context.store.versions(project_id)
    return max(versions, key=lambda version: version.number).snapshot if versions else None


def count_changes(before: Mapping[int, str], now: Mapping[int, str]) -> int:
    """Return how many annotations are new, changed or deleted.

    >>> count_changes({1: "a", 2: "a", 3: "a"}, {1: "a", 2: "b", 4: "a"})
    3
    """
    changed = sum(before.get(annotation) != stamp for annotation, stamp in now.items())
    return changed + len(before.keys() - now.keys())


def count(context: Context, project_id: int) -> Counts:
    """Count the project's labels through Label Studio, and remember the counts for the status page."""
    snapshot = last_snapshot(context, project_id)
    now = context.label_studio.label_stamps(project_id)
    tasks = context.label_studio.project(project_id).task_count
    counts = Counts(tasks, len(now), count_changes(snapshot.annotations if snapshot else {}, now))
    context.progress.set_counts(project_id, counts)
    return counts


def retrain(context: Context, project_id: int) -> ModelVersion:
    """Train, judge and publish one version of the project.

    Raises TrainingError with the reason if the labels do not allow it, BusyError if another training holds the project.
    """
    with context.progress.lock(project_id, "training") as fence:
        try:
            with tempfile.TemporaryDirectory(prefix="training-", dir=_scratch(context)) as scratch:
                version = _retrain(context, project_id, fence, Path(scratch))
        except BaseException as error:
            context.progress.set_training(project_id, TrainingProgress("failed", error=str(error) or repr(error)))
            raise
    context.progress.set_training(project_id, TrainingProgress("idle", progress=1.0))
    return version


def _retrain(context: Context, project_id: int, fence: Fence, scratch: Path) -> ModelVersion:
    started = time.monotonic()
    show = _Reporter(context, project_id, started)
    show("snapshot")
    plan = _plan(context, project_id, show)
    data_yaml = dataset.write(plan.split, plan.tag.labels, scratch / "data")
    base = open_base(context, plan.record)
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
    )


def _verdict(context: Context, plan: Plan, trained: training.Trained, data_yaml: Path) -> Verdict:
    challenger, champion = _evaluate(context, plan, trained.weights, data_yaml)
    promoted, reason = judge(
        challenger,
        champion,
        finite=trained.losses_finite,
        held_out=plan.split.held_out,
        tolerance=plan.settings.tolerance,
    )
    return Verdict(challenger, champion, promoted, reason)


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
        reason=verdict.reason + ("" if base.pretrained else "; trained from scratch: no pretrained weights"),
    )


def _plan(context: Context, project_id: int, show: _Reporter) -> Plan:
    """Read the labels from Label Studio, fetch their images and split them."""
    record = context.store.project(project_id)
    if record is None:
        raise NotFoundError(f"project {project_id} was never set up", fix="add the backend in LS: Settings → Model")
    # The config may have changed since /setup: Label Studio's own is the truth.
    record = replace(record, label_config=context.label_studio.project(project_id).label_config)
    tag = label_config.parse(record.label_config)[0]
    settings = context.project_settings(record)
    annotated = tuple(context.label_studio.annotated_tasks(project_id))
    show("images")
    chance = chance_tasks(context, project_id, annotated)
    images = _labeled_images(context, project_id, tag, annotated, chance)
    split = dataset.split(images, val_share=settings.val_share, project_id=project_id)
    unseen = dataset.unseen_classes(images, tag.labels)
    if unseen:
        log.warning("project %d: no box yet of %s; the version will not predict them", project_id, ", ".join(unseen))
    snapshot = TrainingSnapshot(
        project_id=project_id,
        label_config_hash=label_config.config_hash(record.label_config),
        annotations={task.annotation_id: task.updated_at for task in annotated},
        train_tasks=tuple(image.task_id for image in split.train),
        val_tasks=tuple(image.task_id for image in split.val),
        random_tasks=tuple(sorted(chance)),
    )
    return Plan(record, settings, tag, snapshot, split)


def chance_tasks(context: Context, project_id: int, annotated: tuple[AnnotatedTask, ...]) -> frozenset[int]:
    """Return the labeled tasks that chance chose: known so from before, explored, or labeled before any ranking."""
    before = last_snapshot(context, project_id)
    known = set(before.random_tasks) if before else set()
    seen = set(before.train_tasks) | set(before.val_tasks) if before else set()
    champion = context.store.current(project_id)
    ranking = context.store.ranking(project_id, champion.number if champion else 0)
    if ranking is None:
        explored, ranked = set[int](), set[int]()
    else:
        explored, ranked = set(ranking.task_ids[ranking.explored].tolist()), set(ranking.task_ids.tolist())
    fresh = {task.task.id for task in annotated} - seen
    return frozenset(known | {task for task in fresh if task in explored or task not in ranked})


def _labeled_images(
    context: Context,
    project_id: int,
    tag: ControlTag,
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
) -> tuple[LabeledImage, ...]:
    """Fetch the images of all labeled tasks.

    An image that fails is left out, and so is a region that cannot be learned: its reason is on the status page.
    """
    requests = [(task.task.data.get(tag.data_key), task.task.id) for task in annotated]
    images: list[LabeledImage] = []
    unread: dict[int, str] = {}
    unlearned: dict[int, str] = {}
    for task, media in zip(annotated, context.media.fetch_many(requests), strict=True):
        task_id = task.task.id
        if isinstance(media, MediaError):
            unread[task_id] = f"left out of training: {media}"
            continue
        images.append(LabeledImage(task_id, media.path, tags.decode(tag, task.result), random=task_id in chance))
        if left_out := tags.explain(tag, task.result):
            unlearned[task_id] = f"not all of it can be learned: {'; '.join(left_out)}"
    _record_failures(context, project_id, annotated, unread | unlearned)
    if unread and not images:
        raise TrainingError("no image of any labeled task could be read", fix=next(iter(unread.values())))
    return tuple(images)


def _record_failures(
    context: Context, project_id: int, annotated: tuple[AnnotatedTask, ...], reasons: Mapping[int, str]
) -> None:
    for task_id, reason in reasons.items():
        log.warning("project %d: task %d: %s", project_id, task_id, reason)
    context.progress.clear_failures(project_id, [task.task.id for task in annotated if task.task.id not in reasons])
    context.progress.record_failures(project_id, reasons)


def _evaluate(context: Context, plan: Plan, weights: Path, data_yaml: Path) -> tuple[Metrics, Metrics | None]:
    """Measure the challenger and, where there is one, the champion on the same validation set."""
    size, device = plan.settings.imgsz, plan.settings.device
    challenger = training.evaluate(weights, data_yaml, size, device)
    champion = context.store.current(plan.snapshot.project_id)
    if champion is None:
        return challenger, None
    return challenger, training.evaluate(context.store.weights(champion), data_yaml, size, device)


def judge(
    challenger: Metrics, champion: Metrics | None, *, finite: bool, held_out: bool, tolerance: float
) -> tuple[bool, str]:
    """Return whether the challenger is published, and why.

    A validation set that is not held out, or is under 10 images, only guards against collapse.
    """
    if not finite:
        return False, "not published: the losses are not finite"
    if challenger.detections == 0 and challenger.boxes > 0:
        return False, "not published: the model collapsed, it detects nothing on the validation set"
    if champion is None:
        return True, "published: the first version"
    if not held_out or challenger.images < MIN_JUDGED_IMAGES:
        return True, f"published: the validation set ({challenger.images} images) is too small to judge, no collapse"
    scores = f"mAP50 {challenger.map50:.3f} against {champion.map50:.3f} on {challenger.images} images"
    if challenger.map50 < champion.map50 - tolerance:
        return False, f"not published: {scores}, worse than the tolerance {tolerance:g}"
    return True, f"published: {scores}"


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
