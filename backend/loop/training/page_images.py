"""The pages of an annotated task that a training learns from, as images."""

from __future__ import annotations

from backend.datasets.writer import SMALLEST_SIDE_PX, LabeledImage
from backend.errors import MediaError
from backend.labelstudio import foreign_regions, pages, tags
from backend.loop.context import Context
from backend.loop.training.video_images import TaskImages
from backend.types import AnnotatedTask, ControlTag


def take(context: Context, tag: ControlTag, task: AnnotatedTask, *, random: bool) -> TaskImages:
    """Return an image for each page of a task; a page without regions shows nothing of the tag.

    `random` says whether the task was chosen at random. Raises MediaError if a page cannot be read, or has another
    shape than the image on which its regions were drawn.
    """
    uris = pages.of_task(tag, task.task)
    boxes = tags.decode(tag, task.result)
    by_page = pages.by_page(item for item in task.result if isinstance(item, dict))
    images: list[LabeledImage] = []
    left_out: list[str] = []
    for index, file in enumerate(context.media.fetch_many((uri, task.task.id) for uri in uris)):
        if isinstance(file, MediaError):
            raise file
        size = file.width, file.height
        exact = tags.get(tag.kind).masks
        for problem in foreign_regions.size_problems(tag, by_page.get(index, ()), *size, exact=exact):
            raise MediaError(f"page {index + 1}: {problem}", where=f"task {task.task.id}")
        if tag.task != "classify" and min(size) < SMALLEST_SIDE_PX:
            left_out.append(
                f"page {index + 1} has {size[0]} x {size[1]} pixels, and under {SMALLEST_SIDE_PX} is too few"
            )
            continue
        of_page = tuple(box for box in boxes if box.frame == index + 1)
        images.append(LabeledImage(task.task.id, file.path, of_page, random, index + 1))
    if past_end := sorted(page + 1 for page in by_page if page >= len(uris)):
        left_out.append(f"regions on pages past the end of the task, which has {len(uris)}: {past_end[:5]}")
    return TaskImages(images, task.result, tuple(left_out))
