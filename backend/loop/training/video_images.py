"""The frames of an annotated video that a training learns from, as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.datasets.writer import LabeledImage
from backend.labelstudio import frame_rates, regions, tags, task_fields
from backend.labelstudio.tags import Result
from backend.labelstudio.tags.timelinelabels import lstm
from backend.loop.context import Context
from backend.types import AnnotatedTask, ControlTag, LabeledBox
from backend.yolo import frame_classifier
from backend.yolo.frame_classifier import LabeledVideo


@dataclass(frozen=True, slots=True)
class TaskImages:
    """The images of one task for a training, and why others are left out."""

    images: Sequence[LabeledImage]
    result: Result  # of the annotation
    left_out: tuple[str, ...] = ()  # the reasons
    video: LabeledVideo | None = None  # if an LSTM learns from all its frames
    tag: ControlTag | None = None  # the tag as the task's video has it, None for an image
    size: tuple[int, int] | None = None  # of the image or the video: width and height in pixels


def take(context: Context, tag: ControlTag, task: AnnotatedTask, *, random: bool) -> TaskImages:
    """Return the images of a video's key frames; for a tag that labels segments, images of sampled frames.

    `random` says whether the task was chosen at random. Raises MediaError if the video cannot be read.
    """
    tag = frame_rates.of_task(tag, task.task)
    clip = context.media.fetch_video(task_fields.shown(task.task, tag.data_key), task.task.id)
    result = regions.with_size(task.result, clip.width, clip.height)
    boxes, length = tags.decode(tag, result), clip.length(tag.frame_rate)
    sampled = tag.task == "classify"
    labels = frame_classifier.sample(boxes, tag, length) if sampled else _by_frame(boxes)
    stills = list(context.media.stills(clip, list(labels), tag.frame_rate))
    images = [
        LabeledImage(task.task.id, path, labels[frame], random, frame)
        for frame, path in zip(labels, stills, strict=False)  # a frame past the end has no image
    ]
    past_end = {box.frame for box in boxes if box.frame > length} if sampled else list(labels)[len(stills) :]
    left_out = []
    if past_end:
        frames = ", ".join(map(str, sorted(past_end)[:5]))
        left_out.append(f"frames past the end of the video, which has {length}: {frames}")
    if not labels and not tags.explain(tag, result):
        left_out.append("nothing is drawn in the video, so it has no key frames to learn from")
    video = LabeledVideo(task.task.id, clip, boxes, tag.frame_rate) if lstm(tag) else None
    return TaskImages(images, result, tuple(left_out), video, tag, (clip.width, clip.height))


def _by_frame(boxes: Sequence[LabeledBox]) -> Mapping[int, tuple[LabeledBox, ...]]:
    by_frame: dict[int, list[LabeledBox]] = {}
    for box in boxes:
        by_frame.setdefault(box.frame, []).append(box)
    return {frame: tuple(drawn) for frame, drawn in by_frame.items()}
