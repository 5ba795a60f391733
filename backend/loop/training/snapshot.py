"""The inputs of a training: the labels that count now, their images, and the split into training and validation."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backend.datasets import writer
from backend.datasets.writer import SMALLEST_SIDE_PX, LabeledImage, Split
from backend.errors import MediaError, TrainingError
from backend.labelstudio import label_config, tags
from backend.loop.context import Context
from backend.loop.served_models import project_record, serving_number
from backend.loop.training import video_images
from backend.loop.training.video_images import TaskImages
from backend.media.task_errors import task_error
from backend.model_versions import TrainingSnapshot
from backend.queue.run_state import LabelCounts
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


def count_changes(before: Mapping[int, str], now: Mapping[int, str]) -> int:
    """Return how many annotations are new, changed or deleted.

    >>> count_changes({1: "a", 2: "a", 3: "a"}, {1: "a", 2: "b", 4: "a"})
    3
    """
    changed = sum(before.get(annotation) != stamp for annotation, stamp in now.items())
    return changed + len(before.keys() - now.keys())


def count(context: Context, project_id: int) -> LabelCounts:
    """Count the project's labels in Label Studio, and store the counts for the status page."""
    snapshot = last_snapshot(context, project_id)
    now = context.label_studio.annotations.stamps(project_id)
    tasks = context.label_studio.projects.get(project_id).task_count
    counts = LabelCounts(tasks, len(now), count_changes(snapshot.annotations if snapshot else {}, now))
    context.progress.set_counts(project_id, counts)
    return counts


def take(context: Context, project_id: int, on_images: Callable[[], None]) -> TrainingLabels:
    """Read the labels from Label Studio, fetch their images and split them, for each control tag that is trained.

    `on_images` is called before the images are fetched. Raises TrainingError if no tag is trained, or if the labels of
    no tag allow a training.
    """
    record = project_record(context, project_id)  # the config may have changed since /setup
    config = label_config.parse(record.label_config)
    trained = _trainable_tags(project_id, config)
    annotated = tuple(context.annotated_tasks(project_id))
    on_images()
    chance = chance_tasks(context, project_id, annotated)
    plans: dict[str, TagPlan] = {}
    lacking: dict[str, TrainingError] = {}
    for tag, read in zip(trained, labeled_images(context, project_id, trained, annotated, chance), strict=True):
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
    project_id, settings = record.project_id, context.project_settings(record)
    split = split_of(read, settings.val_share, project_id)
    unlabeled = writer.unseen_classes(read.images, tag.labels)
    if unlabeled:
        log.warning("project %d: no box yet of %s; the version will not predict them", project_id, ", ".join(unlabeled))
    snapshot = TrainingSnapshot(
        project_id=project_id,
        label_config_hash=label_config.config_hash(record.label_config),
        annotations={task.annotation_id: task.updated_at for task in annotated},
        train_tasks=_tasks(split.train),
        val_tasks=_tasks(split.val),
        random_tasks=tuple(sorted(chance)),
    )
    sources = {task.task.id: tag.source(task.task) for task in annotated}
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


def labeled_images(
    context: Context,
    project_id: int,
    control_tags: Sequence[ControlTag],
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
) -> list[ReadLabels]:
    """Fetch for each tag the images of all labeled tasks; of a video, the images of its key frames.

    A task is left out if its image fails. It is also left out if it has a region that cannot be learned from, because
    the object would be learned as background. The status page shows the reason. `chance` are the ids of the tasks
    chosen at random. Raises TrainingError if no task could be read.
    """
    by_tag = [_read(context, project_id, tag, annotated, chance) for tag in control_tags]
    reasons: dict[int, list[str]] = {}
    for read in by_tag:
        for task_id, reason in (read.left_out | read.reduced).items():
            reasons.setdefault(task_id, []).append(reason)
    joined = {task_id: "; ".join(dict.fromkeys(several)) for task_id, several in reasons.items()}
    for task_id, reason in joined.items():
        log.warning("project %d: task %d: %s", project_id, task_id, reason)
    context.progress.note_failures(project_id, [task.task.id for task in annotated], joined)
    if any(read.left_out for read in by_tag) and not any(read.images for read in by_tag):
        raise TrainingError("no labeled task could be read", fix=next(iter(joined.values())))
    return by_tag


@dataclass(slots=True)
class ReadLabels:
    """The images and videos of one tag, and why tasks are left out."""

    images: list[LabeledImage] = field(default_factory=list)
    videos: list[LabeledVideo] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)  # task id -> why nothing of it is learned
    reduced: dict[int, str] = field(default_factory=dict)  # task id -> why not all of it is learned


def _read(
    context: Context,
    project_id: int,
    tag: ControlTag,
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
) -> ReadLabels:
    read, dropped = ReadLabels(), 0
    fetch = _video_examples if tag.frame_rate else _image_examples
    for task, examples in zip(annotated, fetch(context, tag, annotated, chance), strict=True):
        task_id = task.task.id
        if isinstance(examples, MediaError):
            read.left_out[task_id] = f"left out of training: {examples}"
            continue
        reading = tags.read(examples.tag or tag, examples.result, examples.size)
        if reading.unreadable:
            read.left_out[task_id] = f"left out of training: {'; '.join(reading.unreadable)}"
            continue
        read.images += examples.images
        read.videos += [examples.video] if examples.video else []
        dropped += len(reading.nothing)
        if missing := (*reading.nothing, *examples.left_out):
            read.reduced[task_id] = f"not all of it can be learned: {'; '.join(missing)}"
    _warn(project_id, read.images, dropped)
    return read


def _warn(project_id: int, images: Sequence[LabeledImage], dropped: int) -> None:
    """Log how many labels are learned in another form than drawn, and how many regions are empty."""
    notes = Counter(box.note for image in images for box in image.boxes if box.note)
    for note, count in notes.items():
        log.warning("project %d: %d %s", project_id, count, note)
    if dropped:
        log.warning("project %d: %d regions dropped: they show nothing inside their images", project_id, dropped)


def _image_examples(
    context: Context, tag: ControlTag, annotated: Sequence[AnnotatedTask], chance: frozenset[int]
) -> Iterator[TaskImages | MediaError]:
    """Yield the image of each task, or the MediaError that prevented it, in order."""
    requests = [(task.task.shown(tag.data_key), task.task.id) for task in annotated]
    for task, media in zip(annotated, context.media.fetch_many(requests), strict=True):
        if isinstance(media, MediaError):
            yield media
        elif tag.task != "classify" and min(media.width, media.height) < SMALLEST_SIDE_PX:
            message = (
                f"the image has {media.width} x {media.height} pixels; images under {SMALLEST_SIDE_PX} are not learned"
            )
            yield MediaError(message, fix="delete the task, or crop the image less")
        else:
            boxes, random = tags.decode(tag, task.result), task.task.id in chance
            image = LabeledImage(task.task.id, media.path, boxes, random)
            yield TaskImages([image], task.result, size=(media.width, media.height))


def _video_examples(
    context: Context, tag: ControlTag, annotated: Sequence[AnnotatedTask], chance: frozenset[int]
) -> Iterator[TaskImages | MediaError]:
    """Yield the images of each task's frames, or the MediaError that prevented them, in order."""
    for task in annotated:
        try:
            yield video_images.take(context, tag, task, random=task.task.id in chance)
        except MediaError as error:
            yield task_error(error, task.task.shown(tag.data_key), task.task.id)
