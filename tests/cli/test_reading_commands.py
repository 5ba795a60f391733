"""`status --watch` in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.loop.context import Context
from backend.queue.run_state import LabelCounts
from tests.cli.commands import cli, in_terminal
from tests.cli.test_app import set_up
from tests.support import publish


@pytest.mark.redis
def test_a_watched_status_shows_what_changes_until_ctrl_c(
    environ: dict[str, str], context: Context, tiny_weights: Path
) -> None:
    set_up(context)
    publish(context.store, 7, tiny_weights)
    context.progress.set_counts(7, LabelCounts(100, 30, 4))

    def changed(screen: str) -> bool:
        """Return whether the screen shows the new counts; the first screen makes them."""
        if "30 of 100 tasks" in screen:
            context.progress.set_counts(7, LabelCounts(100, 31, 5))
        return "31 of 100 tasks" in screen

    screen = in_terminal(environ, "status", "7", "--watch", until=changed, keys=b"\x03")
    assert screen.status == 0, screen.raw
    assert "31 of 100 tasks" in screen.raw


@pytest.mark.redis
def test_a_status_is_watched_in_a_terminal_only(environ: dict[str, str], context: Context) -> None:
    set_up(context)
    done = cli(environ, "status", "7", "--watch")
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
