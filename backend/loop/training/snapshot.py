"""The inputs of a training: the labels that count now, their images, and the split into training and validation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import TrainingError
from backend.labelstudio import consensus, label_config, task_fields, task_labels
from backend.loop.context import Context
from backend.loop.served_models import project_record, serving_number
from backend.loop.training import label_reading
from backend.loop.training.label_reading import ReadLabels
from backend.model_versions import TrainingSnapshot
from backend.policy import region_crops
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, ControlTag
from backend.yolo.frame_classifier import LabeledVideo

log = logging.getLogger(__name__)

_FROZEN = 'its tag says model_trainable="false"'


@dataclass(frozen=True, slots=True)
class TagPlan:
    """The inputs of the training of one control tag."""

    record: ProjectRecord
    settings: Settings
    tag: ControlTag
    snapshot: TrainingSnapshot
    split: Split
    videos: tuple[LabeledVideo, ...] = ()  # if an LSTM learns their frames in order
    sources: Mapping[int, int] = field(default_factory=dict)  # task id -> `ControlTag.source`

    @property
    def learned_videos(self) -> tuple[LabeledVideo, ...]:
        """The videos of the training split."""
        return self._of(self.split.train)

    @property
    def judged_videos(self) -> tuple[LabeledVideo, ...]:
        """The videos of the validation split."""
        return self._of(self.split.val)

    def _of(self, images: Sequence[LabeledImage]) -> tuple[LabeledVideo, ...]:
        task_ids = {image.task_id for image in images}
        return tuple(video for video in self.videos if video.task_id in task_ids)


@dataclass(frozen=True, slots=True)
class TrainingLabels:
    """The labels of a training: for each control tag a plan, or why it is not trained."""

    record: ProjectRecord
    tags: tuple[ControlTag, ...]
    plans: Mapping[str, TagPlan]  # by the tag's name; at least one
    lacking: Mapping[str, str]  # why a tag is not trained, by its name; it may have a plan nevertheless

    @property
    def snapshot(self) -> TrainingSnapshot:
        """The snapshot of the version: the annotations, and the split of the first tag with a plan."""
        return next(iter(self.plans.values())).snapshot


def last_snapshot(context: Context, project_id: int) -> TrainingSnapshot | None:
    """Return the snapshot of the newest version, promoted or not; None if there is no version."""
    versions = context.store.versions(project_id)
    return max(versions, key=lambda version: version.number).snapshot if versions else None


def take(context: Context, project_id: int, on_images: Callable[[], None]) -> TrainingLabels:
    """Read the labels from Label Studio, fetch their images and split them, for each control tag that is trained.

    `on_images` is called before the images are fetched. Raises TrainingError if no tag is trained, or if the labels of
    no tag allow a training.
    """
    record = project_record(context, project_id)  # the config may have changed since /setup
    annotated = tuple(context.annotated_tasks(project_id))
    record = _with_task_labels(context, record, annotated)
    config = label_config.parse(record.label_config)
    trained = _trainable_tags(project_id, config)
    on_images()
    chance = chance_tasks(context, project_id, annotated)
    plans: dict[str, TagPlan] = {}
    lacking: dict[str, TrainingError] = {}
    for tag, read in zip(
        trained, label_reading.labeled_images(context, project_id, trained, annotated, chance), strict=True
    ):
        try:
            plans[tag.from_name] = _plan(context, record, tag, read, annotated, chance)
        except TrainingError as error:
            lacking[tag.from_name] = error
    if not plans:
        raise next(iter(lacking.values()))
    reasons = {name: error.what for name, error in lacking.items()}
    for name, reason in reasons.items():
        log.warning("project %d: %s is not trained: %s", project_id, name, reason)
    frozen = {tag.from_name: _FROZEN for tag in config if not tag.trainable}
    return TrainingLabels(record, config, plans, frozen | reasons)


def _with_task_labels(context: Context, record: ProjectRecord, annotated: Sequence[AnnotatedTask]) -> ProjectRecord:
    """Return the project with all labels that annotated tasks name, and store them for predictions."""
    text = task_labels.learned(record.label_config, (task.task for task in annotated))
    if text != record.label_config:
        record = replace(record, label_config=text)
        stored = context.store.project(record.project_id)
        context.store.save_project(replace(stored or record, label_config=text))
    return record


def _trainable_tags(project_id: int, config: Sequence[ControlTag]) -> tuple[ControlTag, ...]:
    """Return the tags that are trained at all; raises TrainingError if there are none."""
    trained = tuple(tag for tag in config if tag.trainable)
    if not trained:
        raise TrainingError(
            f'model_trainable="false" is set on {", ".join(tag.from_name for tag in config)}, so nothing is trained',
            where=f"project {project_id}",
            fix="remove it from the control tags that should learn",
        )
    return trained


def _plan(
    context: Context,
    record: ProjectRecord,
    tag: ControlTag,
    read: ReadLabels,
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
) -> TagPlan:
    project_id, settings = record.project_id, region_crops.model_settings(context.project_settings(record), tag)
    split = split_of(read, settings.val_share, project_id)
    unlabeled = writer.unseen_classes(read.images, tag.labels)
    if unlabeled:
        log.warning("project %d: no box yet of %s; the version will not predict them", project_id, ", ".join(unlabeled))
    stamps = (consensus.stamps(settings.consensus, task) for task in annotated)
    snapshot = TrainingSnapshot(
        project_id=project_id,
        label_config_hash=label_config.config_hash(record.label_config),
        annotations=dict(chain.from_iterable(stamp.items() for stamp in stamps)),
        train_tasks=_tasks(split.train),
        val_tasks=_tasks(split.val),
        random_tasks=tuple(sorted(chance)),
    )
    sources = {task.task.id: task_fields.source(tag, task.task) for task in annotated}
    return TagPlan(record, settings, tag, snapshot, split, tuple(read.videos), sources)


def split_of(read: ReadLabels, val_share: float, project_id: int) -> Split:
    """Split the images into training and validation.

    Raises TrainingError if they allow no training; the error also names the first reason why tasks were left out.
    """
    try:
        return writer.split(read.images, val_share=val_share, project_id=project_id)
    except TrainingError as error:
        if not read.left_out:
            raise
        message = f"{error.what}, and {len(read.left_out)} labeled tasks were left out"
        raise TrainingError(message, where=error.where, fix=next(iter(read.left_out.values()))) from error


def _tasks(images: Sequence[LabeledImage]) -> tuple[int, ...]:
    """Return the task ids of images without duplicates, because a video has many images."""
    return tuple(dict.fromkeys(image.task_id for image in images))


def chance_tasks(context: Context, project_id: int, annotated: tuple[AnnotatedTask, ...]) -> frozenset[int]:
    """Return the ids of the labeled tasks that were chosen at random.

    They are those of the last snapshot, tasks that the ranking chose at random, and tasks that were labeled before any
    ranking. A late task that was placed in a ranking is none: its acquisition value decided its turn. A pinned task is
    none either: a person did.
    """
    before = last_snapshot(context, project_id)
    random_before = set(before.random_tasks) if before else set()
    tasks_before = set(before.train_tasks) | set(before.val_tasks) if before else set()
    champion = context.store.current(project_id)
    ranking = context.store.pools.ranking(project_id, champion.number if champion else 0)
    if ranking is None:  # it is not ranked yet, or cannot be: the queue is still that of the served version
        ranking = context.store.pools.ranking(project_id, serving_number(context, project_id))
    if ranking is None:
        explored, ranked = set[int](), set[int]()
    else:
        explored, ranked = set(ranking.task_ids[ranking.explored].tolist()), set(ranking.task_ids.tolist())
    new = {task.task.id for task in annotated} - tasks_before - set(context.store.steering.pins(project_id))
    chosen = {task_id for task_id in new if task_id in explored or (champion is None and task_id not in ranked)}
    return frozenset(random_before | chosen)
