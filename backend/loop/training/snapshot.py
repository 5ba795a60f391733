"""What a training is made of: the labels that count now, their images, and who goes into validation."""

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
    """All that the training of one control tag works from."""

    record: ProjectRecord
    settings: Settings
    tag: ControlTag
    snapshot: TrainingSnapshot
    split: Split
    videos: tuple[LabeledVideo, ...] = ()  # where an LSTM learns their frames in order

    @property
    def learned_videos(self) -> tuple[LabeledVideo, ...]:
        """Those of the split's training part."""
        return self._of(self.split.train)

    @property
    def judged_videos(self) -> tuple[LabeledVideo, ...]:
        """Those of the split's validation part."""
        return self._of(self.split.val)

    def _of(self, images: Sequence[LabeledImage]) -> tuple[LabeledVideo, ...]:
        tasks = {image.task_id for image in images}
        return tuple(one for one in self.videos if one.task_id in tasks)


@dataclass(frozen=True, slots=True)
class TrainingLabels:
    """What a training finds of each control tag: a plan, or why it is not trained."""

    record: ProjectRecord
    tags: tuple[ControlTag, ...]
    plans: Mapping[str, TagPlan]  # by the tag's name; one at least
    lacking: Mapping[str, str]  # why not, even where there is a plan

    @property
    def snapshot(self) -> TrainingSnapshot:
        """What the version says it was made of: the annotations, and the split of the first tag that has one."""
        return next(iter(self.plans.values())).snapshot


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


def count(context: Context, project_id: int) -> LabelCounts:
    """Count the project's labels through Label Studio, and remember the counts for the status page."""
    snapshot = last_snapshot(context, project_id)
    now = context.label_studio.annotations.stamps(project_id)
    tasks = context.label_studio.projects.get(project_id).task_count
    counts = LabelCounts(tasks, len(now), count_changes(snapshot.annotations if snapshot else {}, now))
    context.progress.set_counts(project_id, counts)
    return counts


def take(context: Context, project_id: int, on_images: Callable[[], None]) -> TrainingLabels:
    """Read the labels from Label Studio, fetch their images and split them, for each control tag that is trained.

    Raises TrainingError if none is, or the labels of no tag allow a training.
    """
    record = project_record(context, project_id)  # the config may have changed since /setup
    found = label_config.parse(record.label_config)
    trained = _trainable_tags(project_id, found)
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
    reasons = {name: each.what for name, each in lacking.items()}
    for name, reason in reasons.items():
        log.warning("project %d: %s is not trained: %s", project_id, name, reason)
    frozen = {tag.from_name: _FROZEN for tag in found if not tag.trainable}
    return TrainingLabels(record, found, plans, frozen | reasons)


def _trainable_tags(project_id: int, found: Sequence[ControlTag]) -> tuple[ControlTag, ...]:
    """Return the tags that are trained at all; raises TrainingError where none is."""
    trained = tuple(tag for tag in found if tag.trainable)
    if not trained:
        raise TrainingError(
            f'model_trainable="false" is set on {", ".join(tag.from_name for tag in found)}, so nothing is trained',
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
    unseen = writer.unseen_classes(read.images, tag.labels)
    if unseen:
        log.warning("project %d: no box yet of %s; the version will not predict them", project_id, ", ".join(unseen))
    snapshot = TrainingSnapshot(
        project_id=project_id,
        label_config_hash=label_config.config_hash(record.label_config),
        annotations={task.annotation_id: task.updated_at for task in annotated},
        train_tasks=_tasks(split.train),
        val_tasks=_tasks(split.val),
        random_tasks=tuple(sorted(chance)),
    )
    return TagPlan(record, settings, tag, snapshot, split, tuple(read.videos))


def split_of(read: ReadLabels, val_share: float, project_id: int) -> Split:
    """Split the images; where they allow no training, the tasks that were left out may be why."""
    try:
        return writer.split(read.images, val_share=val_share, project_id=project_id)
    except TrainingError as error:
        if not read.left_out:
            raise
        what = f"{error.what}, and {len(read.left_out)} labeled tasks were left out"
        raise TrainingError(what, where=error.where, fix=next(iter(read.left_out.values()))) from error


def _tasks(images: Sequence[LabeledImage]) -> tuple[int, ...]:
    """Return the tasks of images, each once: a video has many."""
    return tuple(dict.fromkeys(image.task_id for image in images))


def chance_tasks(context: Context, project_id: int, annotated: tuple[AnnotatedTask, ...]) -> frozenset[int]:
    """Return the labeled tasks that chance chose: known so from before, explored, or labeled before any ranking.

    A task that came later and was placed into a version's ranking was not: its value decided when it was handed out.
    """
    before = last_snapshot(context, project_id)
    known = set(before.random_tasks) if before else set()
    seen = set(before.train_tasks) | set(before.val_tasks) if before else set()
    champion = context.store.current(project_id)
    ranking = context.store.ranking(project_id, champion.number if champion else 0)
    if ranking is None:  # it cannot be ranked, or not yet: the queue is still the serving version's
        ranking = context.store.ranking(project_id, serving_number(context, project_id))
    if ranking is None:
        explored, ranked = set[int](), set[int]()
    else:
        explored, ranked = set(ranking.task_ids[ranking.explored].tolist()), set(ranking.task_ids.tolist())
    fresh = {task.task.id for task in annotated} - seen
    return frozenset(known | {task for task in fresh if task in explored or (champion is None and task not in ranked)})


def labeled_images(
    context: Context,
    project_id: int,
    found: Sequence[ControlTag],
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
) -> list[ReadLabels]:
    """Fetch for each tag the images of all labeled tasks, of videos those of their key frames.

    A task is left out whose image fails, or which has a region that cannot be learned from: what it shows would be
    learned as background. Its reason is on the status page.
    """
    read = [_read(context, project_id, tag, annotated, chance) for tag in found]
    reasons: dict[int, list[str]] = {}
    for each in read:
        for task_id, reason in (each.left_out | each.reduced).items():
            reasons.setdefault(task_id, []).append(reason)
    told = {task_id: "; ".join(dict.fromkeys(several)) for task_id, several in reasons.items()}
    for task_id, reason in told.items():
        log.warning("project %d: task %d: %s", project_id, task_id, reason)
    context.progress.note_failures(project_id, [task.task.id for task in annotated], told)
    if any(each.left_out for each in read) and not any(each.images for each in read):
        raise TrainingError("no labeled task could be read", fix=next(iter(told.values())))
    return read


@dataclass(slots=True)
class ReadLabels:
    """The images of one tag; by task why it teaches nothing, or less than was drawn."""

    images: list[LabeledImage] = field(default_factory=list)
    videos: list[LabeledVideo] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    reduced: dict[int, str] = field(default_factory=dict)


def _read(
    context: Context,
    project_id: int,
    tag: ControlTag,
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
) -> ReadLabels:
    read, dropped = ReadLabels(), 0
    fetch = _video_examples if tag.frame_rate else _image_examples
    for task, found in zip(annotated, fetch(context, tag, annotated, chance), strict=True):
        task_id = task.task.id
        if isinstance(found, MediaError):
            read.left_out[task_id] = f"left out of training: {found}"
            continue
        reading = tags.read(tag, found.result, found.size)
        if reading.unreadable:
            read.left_out[task_id] = f"left out of training: {'; '.join(reading.unreadable)}"
            continue
        read.images += found.images
        read.videos += [found.video] if found.video else []
        dropped += len(reading.nothing)
        if missing := (*reading.nothing, *found.left_out):
            read.reduced[task_id] = f"not all of it can be learned: {'; '.join(missing)}"
    _warn(project_id, read.images, dropped)
    return read


def _warn(project_id: int, images: Sequence[LabeledImage], dropped: int) -> None:
    """Warn how many labels are not learned as they were drawn, and how many regions show nothing."""
    notes = Counter(box.note for image in images for box in image.boxes if box.note)
    for note, count in notes.items():
        log.warning("project %d: %d %s", project_id, count, note)
    if dropped:
        log.warning("project %d: %d regions dropped: they show nothing inside their images", project_id, dropped)


def _image_examples(
    context: Context, tag: ControlTag, annotated: Sequence[AnnotatedTask], chance: frozenset[int]
) -> Iterator[TaskImages | MediaError]:
    """Yield the one image of each task, or why there is none."""
    requests = [(task.task.shown(tag.data_key), task.task.id) for task in annotated]
    for task, media in zip(annotated, context.media.fetch_many(requests), strict=True):
        if isinstance(media, MediaError):
            yield media
        elif tag.task != "classify" and min(media.width, media.height) < SMALLEST_SIDE_PX:
            what = (
                f"the image has {media.width} x {media.height} pixels; images under {SMALLEST_SIDE_PX} are not learned"
            )
            yield MediaError(what, fix="delete the task, or crop the image less")
        else:
            boxes, random = tags.decode(tag, task.result), task.task.id in chance
            image = LabeledImage(task.task.id, media.path, boxes, random)
            yield TaskImages([image], task.result, size=(media.width, media.height))


def _video_examples(
    context: Context, tag: ControlTag, annotated: Sequence[AnnotatedTask], chance: frozenset[int]
) -> Iterator[TaskImages | MediaError]:
    """Yield the images of each task's frames, or why there are none."""
    for task in annotated:
        try:
            yield video_images.take(context, tag, task, random=task.task.id in chance)
        except MediaError as error:
            yield task_error(error, task.task.shown(tag.data_key), task.task.id)
