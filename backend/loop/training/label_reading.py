"""The labels of a project as images to learn from: for each control tag, with the reasons for what is left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backend.datasets.writer import SMALLEST_SIDE_PX, LabeledImage
from backend.errors import MediaError, TrainingError
from backend.labelstudio import consensus, tags, task_fields, visibility
from backend.loop.context import Context
from backend.loop.training import page_images, video_images
from backend.loop.training.video_images import TaskImages
from backend.media.task_errors import task_error
from backend.types import AnnotatedTask, ControlTag
from backend.yolo.frame_classifier import LabeledVideo

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ReadLabels:
    """The images and videos of one tag, and why tasks are left out."""

    images: list[LabeledImage] = field(default_factory=list)
    videos: list[LabeledVideo] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)  # task id -> why nothing of it is learned
    reduced: dict[int, str] = field(default_factory=dict)  # task id -> why not all of it is learned


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
    settings = context.project_settings(context.store.project(project_id))
    undecided = _undecided(settings.consensus, annotated)
    by_tag = [_read(context, project_id, tag, annotated, chance, undecided) for tag in control_tags]
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


def _read(
    context: Context,
    project_id: int,
    tag: ControlTag,
    annotated: tuple[AnnotatedTask, ...],
    chance: frozenset[int],
    undecided: Mapping[int, str],
) -> ReadLabels:
    read, dropped = ReadLabels(), 0
    asked = tuple(task for task in annotated if not visibility.is_hidden(tag, task.result))
    if len(asked) < len(annotated):
        log.info("project %d: %s was hidden in %d tasks", project_id, tag.from_name, len(annotated) - len(asked))
    fetch = _image_examples if tag.one_image else _several_examples
    for task, examples in zip(asked, fetch(context, tag, asked, chance), strict=True):
        task_id = task.task.id
        if task_id in undecided:
            read.left_out[task_id] = f"left out of training: {undecided[task_id]}"
            continue
        if isinstance(examples, MediaError):
            read.left_out[task_id] = f"left out of training: {examples}"
            continue
        reading = tags.read(examples.tag or tag, examples.result, examples.size)
        if reading.unreadable:
            read.left_out[task_id] = f"left out of training: {'; '.join(reading.unreadable)}"
            continue
        # An image teaches nothing about boxes that nobody answered about.
        read.images += [image for image in examples.images if image.boxes or not tag.regions_of]
        read.videos += [examples.video] if examples.video else []
        dropped += len(reading.nothing)
        if missing := (*reading.nothing, *examples.left_out):
            read.reduced[task_id] = f"not all of it can be learned: {'; '.join(missing)}"
    _warn(project_id, read.images, dropped)
    return read


def _undecided(rule: str, annotated: Sequence[AnnotatedTask]) -> dict[int, str]:
    """Return why tasks that several people annotated wait for a ground truth, by task id."""
    return {
        task.task.id: f"{1 + len(task.others)} people annotated it, and no annotation is the ground truth "
        "(CONSENSUS=ground_truth): mark one with the star in Label Studio"
        for task in annotated
        if consensus.is_undecided(rule, task)
    }


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
    requests = [(task_fields.shown(task.task, tag.data_key), task.task.id) for task in annotated]
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


def _several_examples(
    context: Context, tag: ControlTag, annotated: Sequence[AnnotatedTask], chance: frozenset[int]
) -> Iterator[TaskImages | MediaError]:
    """Yield the images of each task's frames or pages, or the MediaError that prevented them, in order."""
    take = page_images.take if tag.pages else video_images.take
    for task in annotated:
        try:
            yield take(context, tag, task, random=task.task.id in chance)
        except MediaError as error:
            yield task_error(error, task_fields.shown(task.task, tag.data_key), task.task.id)
