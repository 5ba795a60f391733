"""The tasks that were read a moment ago, so that the pictures of a page cost Label Studio no request each.

Label Studio takes 0.1 s and more for the smallest request, and answers one after the other. A page shows 24 pictures.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from backend.types import Task

SECONDS = 60.0  # a task whose data change shows its old picture for so long
MOST = 500  # tasks


class RecentTasks:
    """Tasks by project and id; one object may serve many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: OrderedDict[tuple[int, int], tuple[float, Task]] = OrderedDict()

    def note(self, project_id: int, tasks: Iterable[Task]) -> None:
        """Remember tasks that Label Studio has just named as tasks of a project."""
        now = self._clock()
        with self._lock:
            for task in tasks:
                self._noted[project_id, task.id] = now, task
                self._noted.move_to_end((project_id, task.id))
            while len(self._noted) > MOST:
                self._noted.popitem(last=False)

    def find(self, project_id: int, task_id: int) -> Task | None:
        """Return a task that was noted within the last SECONDS."""
        with self._lock:
            at, task = self._noted.get((project_id, task_id), (float("-inf"), None))
        return task if self._clock() - at < SECONDS else None
