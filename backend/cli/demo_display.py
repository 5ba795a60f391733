"""What the demo shows: lines, and progress as a bar on a terminal or as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_S = 15.0  # between two lines of progress where there is no terminal


class Report(Protocol):
    """Takes how much is done, and of how much; a total of 0 is not known."""

    def __call__(self, done: int, total: int) -> None: ...


class Display:
    """Where the demo's lines go."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def progress(self, what: str) -> Iterator[Report]:
        """Show the progress of `what` while the block runs."""
        if not self._console.is_terminal:
            yield _Lines(self, what)
            return
        columns = (TextColumn("{task.description:22}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as progress:
            yield _Bar(progress, progress.add_task(what, total=None))


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total or None)


class _Lines:
    """Writes a line at the start, and then one each LINE_S while something changes."""

    def __init__(self, display: Display, what: str) -> None:
        self._display = display
        self._what = what
        self._shown = (0, 0)
        self._due = time.monotonic() + LINE_S
        display.line(f"{what} ...")

    def __call__(self, done: int, total: int) -> None:
        if (done, total) != self._shown and total and time.monotonic() >= self._due:
            self._shown, self._due = (done, total), time.monotonic() + LINE_S
            self._display.line(f"{self._what}: {done} of {total}")
