from __future__ import annotations

import logging
import sys

import pytest

from backend.cli.log_lines import LineFormatter


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\x1b[2J\n"])
def test_nothing_that_is_logged_begins_a_line_of_its_own(ending: str) -> None:
    forged = f"a.png{ending}2026-11-29 ERROR backend: forged"
    try:
        raise ValueError(forged)
    except ValueError:
        record = logging.LogRecord("backend", logging.WARNING, "", 1, "task 7: %s", (forged,), sys.exc_info())
    first, *others = LineFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert first.startswith("WARNING task 7: a.png")
    assert len(others) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)
