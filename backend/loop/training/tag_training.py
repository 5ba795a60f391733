"""The training of one control tag's model, which is then judged against the champion."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from backend.datasets import image_crops, writer
from backend.datasets.writer import LabeledImage
from backend.errors import MediaError
from backend.evaluation.held_out_report import EvaluationReport, LearnedLabels
from backend.labelstudio.tags.timelinelabels import epochs, lstm
from backend.loop.base_models import open_base, tag_base_model
from backend.loop.context import Context
from backend.loop.training import labels_since, tile_images
from backend.loop.training.challenger_evaluation import Evaluation, evaluate_challenger
from backend.loop.training.snapshot import TagPlan
from backend.media.task_errors import task_error
from backend.model_versions import Metrics, ModelVersion, TagModel
from backend.policy import tiling
from backend.policy.hyper_parameters import hyper_parameters
from backend.policy.training_start import Origin, starts_from_served
from backend.storage import file_sha256
from backend.store.store import StoredEvaluation
from backend.types import ControlTag, HyperParameters, LstmOptions
from backend.yolo import timeline_model, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.lstm import Epoch
from backend.yolo.tasks import details
from backend.yolo.timeline_model import LeftOut

log = logging.getLogger(__name__)

_STAYS = "; the previous model stays"
CONTINUED = "; continued from the previous model"  # in the reason of a version that did not start from base weights


@dataclass(frozen=True, slots=True)
class Champion:
    """The current model of a tag."""

    model: TagModel
    weights: Path
    chosen: bool = False  # somebody rolled back to its version


@dataclass(frozen=True, slots=True)
class Candidate:
    """The result of a training for one tag: the challenger, and the model that the tag keeps if it is rejected."""

    challenger: TagModel  # without a sha256 if the tag was not trained
    weights: Path | None  # of the challenger
    accepted: bool
    fallback: TagModel
    fallback_weights: Path | None
    timings: Mapping[str, float]  # seconds per stage
    evaluation: StoredEvaluation | None = None  # of the challenger


def champion_of(context: Context, version: ModelVersion | None, tag: ControlTag) -> Champion | None:
    """Return the model of a tag in the accepted version, None if it has none for this tag and task."""
    model = version.model_of(tag) if version else None
    if version is None or model is None:
        return None
    chosen = context.store.pointers.is_chosen(version.project_id)
    return Champion(model, context.store.weights(version, model.from_name), chosen)


def untrained_candidate(tag: ControlTag, base_model: str, before: Champion | None, why: str) -> Candidate:
    """Return the candidate of a tag that is not trained: it keeps its current model, if there is one.

    `why` is the reason, for the manifest.
    """
    reason = f"not trained: {why}"
    nothing = TagModel(tag.from_name, tag.task, tag.labels, "", base_model, None, None, {}, reason)
    return Candidate(nothing, None, False, *_fallback(nothing, before), {})


def train(
    context: Context,
    plan: TagPlan,
    before: Champion | None,
    scratch: Path,
    on_epoch: Callable[[training.EpochReport], None],
    on_evaluate: Callable[[], None],
) -> Candidate:
    """Train, measure and judge the model of one tag; `before` is its champion, `scratch` a folder for files."""
    started = time.monotonic()
    judged = _of_boxes(plan, scratch / "crops") if plan.tag.regions_of else plan
    learned = tile_images.in_tiles(judged, scratch / "tiles")
    data_yaml = writer.write(learned.split, plan.tag.labels, scratch / "data", plan.tag.task, details(plan.tag))
    origin = continued_champion(plan, before, tag_base_model(context, plan.record, plan.tag))
    start = _start(context, plan, origin)
    prepared = time.monotonic()
    left_out = partial(note_left_out, context, plan)
    trained = train_weights(learned, start, data_yaml, scratch / "run", on_epoch, left_out)
    on_evaluate()
    champion, chosen = (before.weights, before.chosen) if before else (None, False)
    evaluation = evaluate_challenger(judged, trained, champion, data_yaml, left_out, chosen=chosen)
    timings = {
        "prepare": prepared - started,
        "train": trained.seconds,
        "evaluate": time.monotonic() - prepared - trained.seconds,
    }
    judgement = evaluation.judgement
    model = _model(context, plan, _hyper_settings(learned), origin, start, trained, evaluation)
    fallback = _fallback(model, before, judgement.champion)
    stored = stored_evaluation(context, plan, evaluation)
    return Candidate(model, trained.weights, judgement.promoted, *fallback, timings, stored)


def _of_boxes(plan: TagPlan, folder: Path) -> TagPlan:
    """Return the plan with crops around the labeled boxes in the place of whole images."""
    split = image_crops.cut_split(plan.split, folder)
    name = f"project {plan.record.project_id}, {plan.tag.from_name}"
    log.info("%s: %d boxes of %d images are learned", name, len(split.train), len(plan.split.train))
    return replace(plan, split=split)


def stored_evaluation(context: Context, plan: TagPlan, evaluation: Evaluation) -> StoredEvaluation:
    """Return the evaluation of a challenger as it is stored beside the version."""
    report, answers = evaluation.held_out or (None, None)
    boxes = [box.label for image in plan.split.train for box in image.boxes]
    learned = LearnedLabels(len(plan.split.train), len(boxes), Counter(boxes))
    since = labels_since.labeled_since(context, plan)
    return StoredEvaluation(EvaluationReport(plan.tag.labels, learned, report, since), answers)


def note_left_out(context: Context, plan: TagPlan, task_id: int, error: MediaError) -> None:
    """Report a video that cannot be read to its end, in the log and on the status page."""
    reason = f"left out of what is learned in order: {task_error(error, None, task_id)}"
    project_id = plan.record.project_id
    log.warning("project %d: task %d: %s", project_id, task_id, reason)
    context.progress.note_failures(project_id, (), {task_id: reason})


def lesson_hash(plan: TagPlan, base_model: str) -> str:
    """Return a hash of the inputs of a tag's training: its labels, image by image, their split, and the settings.

    The order of the images does not matter. Background images count.
    """

    def content(images: Sequence[LabeledImage]) -> list[tuple[str, str, str]]:
        """Return the names and labels of images."""
        return sorted((image.name, image.path.name, repr(image.boxes)) for image in images)

    tag, split = plan.tag, plan.split
    run_with = tag.task, tag.labels, details(tag), base_model, plan.settings.train_from, hyper_parameters_of(plan)
    images = content(split.train), content(split.val), split.held_out
    # An LSTM also learns the borders of segments, which the sampled images may not show.
    segments = sorted((video.task_id, repr(video.segments)) for video in plan.videos)
    in_order = [lstm(tag), segments] if lstm(tag) else []
    side = tiling.tile_side(plan.settings, tag)
    return hashlib.sha256(repr((run_with, images, *in_order, *([side] if side else []))).encode()).hexdigest()[:16]


def is_trained_on_these_labels(plan: TagPlan, before: Champion | None, base_model: str) -> bool:
    """Return whether a tag's champion was trained on exactly these labels, with these settings."""
    return before is not None and before.model.lesson == lesson_hash(plan, base_model)


def continued_champion(plan: TagPlan, before: Champion | None, base_model: str) -> Champion | None:
    """Return the champion if the training starts from its weights, None if it starts from the base weights."""
    served = Origin(before.model.classes, before.model.base_model, before.model.learned) if before else None
    continues = starts_from_served(
        served,
        train_from=plan.settings.train_from,
        classes=plan.tag.labels,
        base_model=base_model,
        held_out=plan.split.held_out_tasks,
    )
    return before if continues else None


def _start(context: Context, plan: TagPlan, origin: Champion | None) -> BaseWeights:
    if origin is None:
        return open_base(context, plan.record, plan.tag)
    return BaseWeights(str(origin.weights), pretrained=True, note="", task=plan.tag.task)


def _learned(plan: TagPlan, origin: Champion | None) -> tuple[int, ...]:
    """Return the ids of all tasks that a model has learned from, also through the champion that it started from."""
    by_origin = set(origin.model.learned or ()) if origin else set()
    return tuple(sorted(by_origin | plan.split.learned_tasks))


def _fallback(
    challenger: TagModel, before: Champion | None, measured: Metrics | None = None
) -> tuple[TagModel, Path | None]:
    """Return the model and weights that a tag keeps if its challenger is rejected; `measured` are its new metrics."""
    if before is None:
        return replace(challenger, sha256="", metrics=None, champion_metrics=None), None
    stays = replace(
        before.model,
        from_name=challenger.from_name,
        metrics=measured or before.model.metrics,
        champion_metrics=None,
        reason=challenger.reason + _STAYS,
        carried=True,
    )
    return stays, before.weights


def train_weights(
    plan: TagPlan,
    base: BaseWeights,
    data_yaml: Path,
    out: Path,
    on_epoch: Callable[[training.EpochReport], None],
    left_out: LeftOut,
) -> training.Trained:
    """Train weights from `base` into the folder `out`; for a tag with an LSTM, train that too."""
    images, hyper = len(plan.split.train), hyper_parameters_of(plan)
    name = f"project {plan.record.project_id}, {plan.tag.from_name}"
    log.info("%s: training on %d images for %d epochs from %s", name, images, hyper.epochs, base.source)
    if not base.pretrained:
        log.warning("%s: %s", name, base.note)
    trained = training.train(data_yaml, base, hyper, out, on_epoch)
    options = lstm(plan.tag)
    return _with_lstm(plan, options, trained, on_epoch, left_out) if options else trained


def _with_lstm(
    plan: TagPlan,
    options: LstmOptions,
    trained: training.Trained,
    on_epoch: Callable[[training.EpochReport], None],
    left_out: LeftOut,
) -> training.Trained:
    """Train the LSTM on top of a classifier; the status keeps showing the classifier's epochs."""
    started = time.monotonic()

    def on_lstm_epoch(epoch: Epoch) -> None:
        """Report the loss of an LSTM epoch."""
        on_epoch(training.EpochReport(trained.epochs, trained.epochs, {"lstm_loss": epoch.loss}, eta_s=0.0))

    hyper = hyper_parameters_of(plan)
    last = timeline_model.train(trained.weights, plan.learned_videos, plan.tag, options, hyper, on_lstm_epoch, left_out)
    name = f"project {plan.record.project_id}, {plan.tag.from_name}"
    videos = len(plan.learned_videos)
    log.info("%s: LSTM after %d of %d epochs on %d videos, not judged yet", name, last.number, options.epochs, videos)
    return replace(trained, seconds=trained.seconds + time.monotonic() - started)


def hyper_parameters_of(plan: TagPlan) -> HyperParameters:
    """Return the hyper-parameters of a tag's training; the tag may set its own epochs, up to MAX_EPOCHS."""
    images, minutes = len(plan.split.train), plan.settings.train_minutes
    return hyper_parameters(images, plan.settings, epochs=epochs(plan.tag), minutes=minutes)


def _model(
    context: Context,
    plan: TagPlan,
    hyper: Mapping[str, Any],
    origin: Champion | None,
    start: BaseWeights,
    trained: training.Trained,
    evaluation: Evaluation,
) -> TagModel:
    """Return the manifest entry of a trained model."""
    judgement = evaluation.judgement
    return TagModel(
        from_name=plan.tag.from_name,
        task=plan.tag.task,
        classes=plan.tag.labels,
        sha256=file_sha256(trained.weights),
        base_model=tag_base_model(context, plan.record, plan.tag),
        metrics=judgement.challenger,
        champion_metrics=judgement.champion,
        hyper_parameters={**hyper, "pretrained": start.pretrained},
        reason=judgement.reason + _start_reason(start, origin),
        calibration=evaluation.calibration,
        class_quality=evaluation.class_quality,
        learned=_learned(plan, origin),
        lesson=lesson_hash(plan, tag_base_model(context, plan.record, plan.tag)),
    )


def _hyper_settings(learned: TagPlan) -> dict[str, Any]:
    """Return what the manifest says of the training of a plan, whose images may be tiles."""
    options, side = lstm(learned.tag), tiling.tile_side(learned.settings, learned.tag)
    return {
        **asdict(hyper_parameters_of(learned)),
        **({"lstm": asdict(options)} if options else {}),
        **({"tile": side} if side else {}),
    }


def _start_reason(start: BaseWeights, origin: Champion | None) -> str:
    """Return the part of a version's reason about where its training started; "" for pretrained base weights."""
    if origin is not None:
        return CONTINUED
    return "" if start.pretrained else "; trained from scratch: no pretrained weights"
