"""Media whose URLs expire: the media cache gets them as soon as their tasks are seen.

A scoring fetches the media of unlabeled tasks. Tasks that were imported with annotations are first needed by a
training, which may be too late.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import MediaError
from backend.labelstudio import label_config, pages, task_fields
from backend.loop.context import Context
from backend.loop.served_models import require_project
from backend.types import ControlTag, Task
from backend.urls.signed_urls import expires

AT_ONCE = 256  # files per job, so that other projects have their turn before the next job
_SEEN = "expiring_media"  # the name under which the id of the last task is remembered


def fetch(context: Context, project_id: int) -> bool:
    """Fetch the media of tasks that were imported with annotations, if their URLs expire; each task once.

    Returns whether more may be left, because at most about AT_ONCE files are fetched. The status shows why a file could
    not be fetched.
    """
    tags = label_config.parse(require_project(context, project_id).label_config)
    last = fetched_up_to = int(context.progress.recall(project_id, _SEEN) or 0)
    videos: list[tuple[str, int]] = []
    images: list[tuple[str, int]] = []
    for task in context.label_studio.tasks.completed(project_id, after=fetched_up_to):
        for tag in tags:
            (videos if tag.frame_rate or tag.frame_rate_key else images).extend(
                (uri, task.id) for uri in _expiring(tag, task)
            )
        last = task.id
        if len(videos) + len(images) >= AT_ONCE:
            break
    _fetch(context, project_id, list(dict.fromkeys(images)), list(dict.fromkeys(videos)))
    if last > fetched_up_to:
        context.progress.remember(project_id, _SEEN, str(last))
    return len(videos) + len(images) >= AT_ONCE


def _expiring(tag: ControlTag, task: Task) -> list[str]:
    """Return the URLs that a tag shows of a task and that expire."""
    try:
        uris = pages.of_task(tag, task) if tag.pages else [task_fields.shown(task, tag.data_key)]
    except MediaError:  # the training says why
        return []
    return [uri for uri in uris if isinstance(uri, str) and expires(uri)]


def _fetch(
    context: Context, project_id: int, images: Sequence[tuple[str, int]], videos: Sequence[tuple[str, int]]
) -> None:
    """Fetch the files of (url, task id), and note why some could not be fetched."""
    answers = context.media.fetch_many(images)
    reasons = {
        task_id: str(answer)
        for (_, task_id), answer in zip(images, answers, strict=True)
        if isinstance(answer, MediaError)
    }
    for url, task_id in videos:
        try:
            context.media.fetch_video(url, task_id)
        except MediaError as error:
            reasons[task_id] = str(error)
    context.progress.note_failures(project_id, (), reasons)
