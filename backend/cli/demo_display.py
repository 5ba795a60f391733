"""The demo's output: lines, and progress as a bar on a terminal or as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_S = 15.0  # between two lines of progress where there is no terminal


class Report(Protocol):
    """Takes the progress: `done` of `total`; a total of 0 means that it is not known."""

    def __call__(self, done: int, total: int) -> None: ...


class Display:
    """Prints the demo's lines and progress to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        """Print a line as it is, without markup."""
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def progress(self, activity: str) -> Iterator[Report]:
        """Show the progress of `activity` while the block runs."""
        if not self._console.is_terminal:
            yield _Lines(self, activity)
            return
        columns = (TextColumn("{task.description:22}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as progress:
            yield _Bar(progress, progress.add_task(activity, total=None))


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total or None)


class _Lines:
    """Prints a line at the start, and then one every LINE_S seconds if the progress has changed."""

    def __init__(self, display: Display, activity: str) -> None:
        self._display = display
        self._activity = activity
        self._shown = (0, 0)
        self._due = time.monotonic() + LINE_S
        display.line(f"{activity} ...")

    def __call__(self, done: int, total: int) -> None:
        if (done, total) != self._shown and total and time.monotonic() >= self._due:
            self._shown, self._due = (done, total), time.monotonic() + LINE_S
            self._display.line(f"{self._activity}: {done} of {total}")
