"""Log lines that nobody can forge: what a task, a label or a server says stands on one line, or is indented."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from backend.errors import one_line


class LineFormatter(logging.Formatter):
    """Formats a record as one line; what has several lines of its own, such as a traceback, is indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with each line after the first indented, and without other control characters."""
        return "\n    ".join(one_line(line) for line in super().format(record).split("\n"))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object a line, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, message and traceback, with the project and the job where there is one."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "project": getattr(record, "project", 0),
            "job": getattr(record, "job", ""),
            "traceback": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)
