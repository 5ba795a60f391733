"""A training, from labels to a published version: read the labels, train and judge each tag's model, publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from backend.environment import versions as software_versions
from backend.errors import BusyError, machine_fault
from backend.labelstudio import label_config
from backend.loop.base_models import base_model, tag_base_model
from backend.loop.context import Context
from backend.loop.locks import Fence
from backend.loop.training import scratch, snapshot, tag_training
from backend.loop.training.snapshot import TrainingLabels
from backend.loop.training.tag_training import Candidate, Champion
from backend.model_versions import ModelVersion, TagModel, renamed
from backend.queue import run_state
from backend.queue.run_state import TrainingProgress
from backend.store.store import version_name
from backend.yolo import training

log = logging.getLogger(__name__)

# Where each stage begins on the one progress bar, from measured shares of a training's time.
_STAGE_STARTS = {"snapshot": 0.0, "images": 0.02, "train": 0.05, "evaluate": 0.92, "publish": 0.98}
OUTAGE_S = 600.0  # a training that has ended waits at most this long for redis
_UNCHANGED = "its labels have not changed"

Watch = Callable[[TrainingProgress], None]


def _ignore(_: TrainingProgress) -> None:
    """Ignore the progress: the status shows it."""


def retrain(context: Context, project_id: int, *, forced: bool = False, watch: Watch = _ignore) -> ModelVersion:
    """Train, judge and publish one version of the project.

    Tags whose labels have not changed keep their model, but `forced` trains all tags. `watch` gets the progress that
    the status shows, at each stage and epoch. Raises TrainingError with the reason if the labels do not allow a
    training, MachineError if the machine fails, BusyError if another training of the project runs.
    """
    with context.lock(project_id, "training") as fence:
        try:
            with scratch.folder(context.work_dir) as folder:
                version = _retrain(context, project_id, fence, folder, forced=forced, watch=watch)
            _end(context, project_id, fence, TrainingProgress("idle", progress=1.0))
        except BusyError:
            raise  # the status belongs to the training that took over
        except BaseException as error:
            fault = machine_fault(error)
            reason = str(fault or error) or repr(error)
            patience_s = OUTAGE_S if isinstance(error, Exception) else 0.0  # who stops the process does not wait
            _end(context, project_id, fence, TrainingProgress("failed", error=reason), patience_s)
            if fault is not None:
                raise fault from error
            raise
        context.progress.forget_fault(project_id, "training")
    return version


def _end(context: Context, project_id: int, fence: Fence, last: TrainingProgress, patience_s: float = OUTAGE_S) -> None:
    """Write the last state of a training while it holds the lock; wait for redis first, at most `patience_s`.

    "running" without a lock would mean that the worker died. A lock without its holder would delay the next training.
    """
    run_state.await_answer(context.redis, patience_s)
    if fence.hold():  # otherwise the status belongs to the training that took over
        context.progress.set_training(project_id, last)


def _retrain(
    context: Context, project_id: int, fence: Fence, folder: Path, *, forced: bool, watch: Watch
) -> ModelVersion:
    started = time.monotonic()
    show = _Reporter(context, project_id, started, watch)
    show("snapshot")
    labels = snapshot.take(context, project_id, lambda: show("images"))
    # After a loss of the store, Label Studio still has the numbers of earlier versions.
    context.store.skip_numbers(project_id, context.label_studio.predictions.highest_number(project_id))
    gathered = time.monotonic() - started
    current = context.store.current(project_id)
    champions = champions_of(context, labels, current)
    if not forced:
        labels = _changed_labels(context, labels, champions)
    candidates = _candidates(context, labels, champions, fence, folder, show)
    show("publish")
    fence.check()  # as late as possible: a stalled training must not publish after its successor
    version = publish(context, labels, candidates, gathered, current)
    log.info("project %d: %s %s", project_id, version.name, version.reason)
    return version


def champions_of(context: Context, labels: TrainingLabels, current: ModelVersion | None) -> dict[str, Champion | None]:
    """Return each tag's model in the current version, by the tag's name; None if it has none."""
    tags = label_config.parse(labels.record.label_config)
    version = renamed(current, tags) if current else None
    return {tag.from_name: tag_training.champion_of(context, version, tag) for tag in tags}


def _changed_labels(
    context: Context, labels: TrainingLabels, champions: Mapping[str, Champion | None]
) -> TrainingLabels:
    """Return the labels with the unchanged tags listed in `lacking`; if no tag has changed, all are trained."""
    unchanged = {
        name
        for name, plan in labels.plans.items()
        if tag_training.is_trained_on_these_labels(
            plan, champions[name], tag_base_model(context, labels.record, plan.tag)
        )
    }
    if unchanged == set(labels.plans):
        return labels
    return replace(labels, lacking={**labels.lacking, **dict.fromkeys(unchanged, _UNCHANGED)})


def _candidates(
    context: Context,
    labels: TrainingLabels,
    champions: Mapping[str, Champion | None],
    fence: Fence,
    folder: Path,
    show: _Reporter,
) -> list[Candidate]:
    """Train the model of each tag in turn, and return one candidate per tag."""
    candidates: list[Candidate] = []
    for index, tag in enumerate(labels.tags):
        before, why = champions[tag.from_name], labels.lacking.get(tag.from_name)
        if why is not None:
            candidates.append(
                tag_training.untrained_candidate(tag, tag_base_model(context, labels.record, tag), before, why)
            )
            continue
        plan = labels.plans[tag.from_name]
        part = show.part(len(candidates), len(labels.tags))

        def on_epoch(report: training.EpochReport, part: _Reporter = part) -> None:
            """Show the epoch, and stop if another training has taken over."""
            fence.check()
            part.epoch(report)

        def on_evaluate(part: _Reporter = part) -> None:
            """Show that the evaluation begins."""
            part("evaluate")

        candidates.append(tag_training.train(context, plan, before, folder / str(index), on_epoch, on_evaluate))
    return candidates


def publish(
    context: Context,
    labels: TrainingLabels,
    candidates: Sequence[Candidate],
    gathered: float,
    parent: ModelVersion | None,
) -> ModelVersion:
    """Publish a version with one model per tag; `gathered` is the time that reading the labels took, in seconds.

    It becomes the current version if the challenger of at least one tag is accepted; the other tags keep their model.
    `parent` is the version that the candidates were judged against. Raises BusyError if it is no longer the current
    one.
    """
    promoted = any(candidate.accepted for candidate in candidates)
    chosen = [_published_model(candidate, promoted=promoted) for candidate in candidates]
    timings = {"prepare": gathered, "train": 0.0, "evaluate": 0.0}
    for candidate in candidates:
        timings |= {stage: timings[stage] + spent for stage, spent in candidate.timings.items()}
    models = [model for model, _ in chosen]
    evaluations = {
        model.from_name: candidate.evaluation
        for model, candidate in zip(models, candidates, strict=True)
        if candidate.evaluation and model.sha256 == candidate.challenger.sha256
    }
    version = _version(context, labels, models, parent, promoted=promoted, timings=timings)
    context.store.publish(version, {model.from_name: path for model, path in chosen if path}, evaluations)
    return version


def _published_model(candidate: Candidate, *, promoted: bool) -> tuple[TagModel, Path | None]:
    """Return a tag's model in the version; a version that is not promoted records the rejected challengers."""
    if candidate.accepted or (candidate.weights and not promoted):
        return candidate.challenger, candidate.weights
    return candidate.fallback, candidate.fallback_weights


def _version(
    context: Context,
    labels: TrainingLabels,
    models: Sequence[TagModel],
    parent: ModelVersion | None,
    *,
    promoted: bool,
    timings: Mapping[str, float],
) -> ModelVersion:
    """Return the manifest of a finished training, under a new number."""
    project_id, name = labels.record.project_id, base_model(context, labels.record)
    number = context.store.reserve_number(project_id)
    reasons = [f"{model.from_name}: {model.reason}" if len(models) > 1 else model.reason for model in models]
    return ModelVersion(
        project_id=project_id,
        number=number,
        name=version_name(name, number),
        parent=parent.number if parent else None,
        snapshot=labels.snapshot,
        software=software_versions(),
        timings=timings,
        created=datetime.now(UTC),
        promoted=promoted,
        reason="; ".join(reasons),
        models=tuple(models),
    )


class _Reporter:
    """Writes the stage, progress and ETA of a training for GET /api/projects/{id}."""

    def __init__(
        self, context: Context, project_id: int, started: float, watch: Watch, place: int = 0, parts: int = 1
    ) -> None:
        self._context = context
        self._project_id = project_id
        self._started = started
        self._watch = watch
        self._place = place
        self._parts = parts

    def part(self, place: int, parts: int) -> _Reporter:
        """Return the reporter of one tag's training, the `place`-th of `parts`, and report that it starts."""
        reporter = _Reporter(self._context, self._project_id, self._started, self._watch, place, parts)
        reporter("train")
        return reporter

    def __call__(self, stage: str) -> None:
        share = self._share(_STAGE_STARTS[stage])
        self._write(TrainingProgress("running", stage, share, self._eta(share)))

    def epoch(self, report: training.EpochReport) -> None:
        """Write the progress after an epoch."""
        begin, end = _STAGE_STARTS["train"], _STAGE_STARTS["evaluate"]
        share = self._share(begin + (end - begin) * report.epoch / report.epochs)
        self._write(
            TrainingProgress(
                "running",
                "train",
                share,
                report.eta_s if self._place == self._parts - 1 else self._eta(share),
                epoch=report.epoch,
                epochs=report.epochs,
                losses=dict(report.losses),
            )
        )

    def _share(self, share: float) -> float:
        """Return the progress of all tags' trainings together, when this one is at `share`."""
        begin, end = _STAGE_STARTS["train"], _STAGE_STARTS["publish"]
        if self._parts == 1 or not begin <= share < end:
            return share
        return begin + (end - begin) * (self._place + (share - begin) / (end - begin)) / self._parts

    def _eta(self, share: float) -> float | None:
        spent = time.monotonic() - self._started
        return None if share < 0.5 else spent * (1 - share) / share

    def _write(self, progress: TrainingProgress) -> None:
        self._context.progress.set_training(self._project_id, progress)
        self._watch(progress)
