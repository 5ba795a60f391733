"""The pages of a task: an Image with a valueList shows a list of images, and regions have the place of theirs in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backend.errors import MediaError
from backend.labelstudio import task_fields
from backend.types import ControlTag, Task

MOST_PAGES = 1000  # of a task

Item = Mapping[str, Any]


def of_task(tag: ControlTag, task: Task) -> Sequence[object]:
    """Return what each page of a task shows; raises MediaError if the task has no list, or too long a list."""
    shown = task_fields.shown(task, tag.data_key)
    pages = [shown] if isinstance(shown, str) and shown else shown
    fix = f"give each task a list of images in the field {tag.data_key:.80}"
    if not isinstance(pages, list) or not pages:
        raise MediaError("the task has no list of images", where=f"task {task.id}", fix=fix)
    if len(pages) > MOST_PAGES:
        problem = f"the task has {len(pages)} pages, and at most {MOST_PAGES} are read"
        raise MediaError(problem, where=f"task {task.id}", fix="split it into several tasks")
    return pages


def shown(tag: ControlTag, task: Task, number: int) -> object:
    """Return what a page shows, counted from 1; the first page where the task has fewer. Raises as `of_task`."""
    uris = of_task(tag, task)
    return uris[number - 1] if 0 < number <= len(uris) else uris[0]


def page_of(item: Item) -> int:
    """Return the page of a region, from 0; Label Studio takes the first where a region names none.

    >>> page_of({"item_index": 2}), page_of({}), page_of({"item_index": None})
    (2, 0, 0)
    """
    page = item.get("item_index")
    return page if isinstance(page, int) and page >= 0 else 0


def by_page(items: Iterable[Item]) -> dict[int, list[Item]]:
    """Return the regions of each page that has some."""
    pages: dict[int, list[Item]] = {}
    for item in items:
        pages.setdefault(page_of(item), []).append(item)
    return pages
