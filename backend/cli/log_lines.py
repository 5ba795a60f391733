"""Log lines that nobody can forge: text of tasks, labels or servers stays on one line, or is indented below it."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from backend.errors import one_line


class LineFormatter(logging.Formatter):
    """Formats a record as one line; further lines, such as those of a traceback, are indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with each line after the first indented, and without other control characters."""
        return "\n    ".join(one_line(line) for line in super().format(record).split("\n"))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line, for programs that collect logs."""

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
