"""The progress of a command on stderr: a bar in a terminal, elsewhere a line for each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

LINE_S = 10.0  # between two lines of one stage, where there is no terminal
_BAR_WIDTH = 16  # characters; the rest of 80 columns is for the stage

# Takes the stage, its details, and the share of the whole work that is done, from 0 to 1; None: not measured.
Show = Callable[[str, str, float | None], None]


@contextmanager
def progress(work: str) -> Iterator[Show]:
    """Show how far `work` is while the block runs; the block calls the function that it gets.

    Without a terminal a new stage is printed at once, and a stage that goes on at most every LINE_S seconds. Nothing
    goes to stdout, so the result of the command stays alone there.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            yield _on_bar(bar, work)
    else:
        yield _in_lines(console, work)


def text(work: str, stage: str, details: str) -> str:
    """Return a stage in words.

    >>> text("training", "train", "epoch 3 of 30"), text("ranking", "", "")
    ('training: train, epoch 3 of 30', 'ranking')
    """
    words = ", ".join(part for part in (stage, details) if part)
    return f"{work}: {words}" if words else work


def _bar(console: Console) -> Progress:
    stage = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
    columns = (stage, BarColumn(_BAR_WIDTH), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, expand=True)


def _on_bar(bar: Progress, work: str) -> Show:
    """Return a function that moves a bar, which pulses while the share is not measured."""
    task = bar.add_task(work, total=None)

    def show(stage: str, details: str, share: float | None) -> None:
        """Move the bar."""
        total = None if share is None else 1.0
        bar.update(task, description=text(work, stage, details), total=total, completed=share or 0.0)

    return show


def _in_lines(console: Console, work: str) -> Show:
    """Return a function that prints lines."""
    shown_stage: str | None = None
    shown_at = 0.0

    def show(stage: str, details: str, share: float | None) -> None:
        """Print a line if the stage is new, or if the last line is LINE_S seconds old."""
        nonlocal shown_stage, shown_at
        now = time.monotonic()
        if stage == shown_stage and now - shown_at < LINE_S:
            return
        shown_stage, shown_at = stage, now
        percent = "" if share is None else f" ({share:.0%})"
        console.print(Text(text(work, stage, details) + percent), soft_wrap=True)

    return show
