"""The picture of a task, small enough for a page: its image, or a frame of its video."""

from __future__ import annotations

import io
import os
import threading

from PIL import Image

from backend.errors import NotFoundError
from backend.labelstudio import frame_rates, pages, task_fields
from backend.loop.context import Context
from backend.types import ControlTag, Task

WIDTHS = (160, 320, 640, 1280)
_MAKERS = threading.Semaphore(max(1, (os.cpu_count() or 1) // 2))  # a browser asks for six at once, and for pages too


def picture(context: Context, tag: ControlTag, project_id: int, task_id: int, width: int, frame: int = 1) -> bytes:
    """Return a JPEG of what a control tag shows of a task, at most `width` pixels wide.

    Of a video it is the picture of `frame`, counted from 1. Raises NotFoundError for a task of another project or
    without such a frame, MediaError for an image that cannot be read, LabelStudioError if Label Studio does not answer.
    """
    task = context.label_studio.tasks.shown(project_id, task_id)
    if task is None:
        raise NotFoundError(f"project {project_id} has no task {task_id}", fix="reload the page")
    with context.media.in_use():
        return _jpeg(context, tag, task, width, frame)


def _jpeg(context: Context, tag: ControlTag, task: Task, width: int, frame: int) -> bytes:
    uri = task_fields.shown(task, tag.data_key)
    if tag.frame_rate:
        rate = frame_rates.of_task(tag, task).frame_rate
        clip = context.media.fetch_video(uri, task.id)
        path = next(iter(context.media.stills(clip, [frame], rate)), None)
        if path is None:
            raise NotFoundError(f"the video of task {task.id} has no frame {frame}", fix="choose an earlier frame")
    else:
        path = context.media.fetch(pages.shown(tag, task, frame) if tag.pages else uri, task.id).path
    encoded = io.BytesIO()
    with _MAKERS, Image.open(path) as image:
        image.draft("RGB", (width, width))  # lets the decoder of a large JPEG skip most of the work
        small = image.convert("RGB")
        small.thumbnail((width, 4 * width))
        small.save(encoded, "JPEG", quality=82)
    return encoded.getvalue()
