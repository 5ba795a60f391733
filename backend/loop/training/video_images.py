"""The frames of an annotated video that a training learns, as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.datasets.writer import LabeledImage
from backend.labelstudio import regions, tags
from backend.labelstudio.tags import Result
from backend.labelstudio.tags.timelinelabels import lstm
from backend.loop.context import Context
from backend.types import AnnotatedTask, ControlTag, LabeledBox
from backend.yolo import frame_classifier
from backend.yolo.frame_classifier import LabeledVideo


@dataclass(frozen=True, slots=True)
class TaskImages:
    """What a training gets of one task, and why it does not get the rest."""

    images: Sequence[LabeledImage]
    result: Result  # of the annotation, as it is read
    left_out: tuple[str, ...] = ()
    video: LabeledVideo | None = None  # where a training learns all frames of it too
    size: tuple[int, int] | None = None  # of the image or the video: width and height in pixels


def take(context: Context, tag: ControlTag, task: AnnotatedTask, *, random: bool) -> TaskImages:
    """Return the images of a video's key frames, or of a sample of its frames where a tag is of frames.

    Raises MediaError where the video cannot be read.
    """
    clip = context.media.fetch_video(task.task.shown(tag.data_key), task.task.id)
    result = regions.with_size(task.result, clip.width, clip.height)
    found, length = tags.decode(tag, result), clip.length(tag.frame_rate)
    sampled = tag.task == "classify"
    labels = frame_classifier.sample(found, tag, length) if sampled else _by_frame(found)
    stills = list(context.media.stills(clip, list(labels), tag.frame_rate))
    images = [
        LabeledImage(task.task.id, path, labels[frame], random, frame)
        for frame, path in zip(labels, stills, strict=False)  # a frame past the end has no image
    ]
    past = {one.frame for one in found if one.frame > length} if sampled else list(labels)[len(stills) :]
    left_out = []
    if past:
        named = ", ".join(map(str, sorted(past)[:5]))
        left_out.append(f"frames past the end of the video, which has {length}: {named}")
    if not labels and not tags.explain(tag, result):
        left_out.append("nothing is drawn in the video, so it has no key frames to learn from")
    watched = LabeledVideo(task.task.id, clip, found) if lstm(tag) else None
    return TaskImages(images, result, tuple(left_out), watched, (clip.width, clip.height))


def _by_frame(found: Sequence[LabeledBox]) -> Mapping[int, tuple[LabeledBox, ...]]:
    boxes: dict[int, list[LabeledBox]] = {}
    for box in found:
        boxes.setdefault(box.frame, []).append(box)
    return {frame: tuple(drawn) for frame, drawn in boxes.items()}
