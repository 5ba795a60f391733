"""Log lines that nobody can forge: what a task, a label or a server says stands on one line, or is indented."""

from __future__ import annotations

import logging

from backend.errors import one_line


class LineFormatter(logging.Formatter):
    """Formats a record as one line; what has several lines of its own, such as a traceback, is indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with each line after the first indented, and without other control characters."""
        return "\n    ".join(one_line(line) for line in super().format(record).split("\n"))
