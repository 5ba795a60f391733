from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli.log_lines import JsonFormatter, LineFormatter
from backend.queue.log_fields import JobFields


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


def test_a_record_is_one_json_object() -> None:
    try:
        raise ValueError("no\nfile")
    except ValueError:
        record = logging.LogRecord("backend", logging.WARNING, "", 1, "task %d: ü\n", (7,), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == ("WARNING", "backend", "task 7: ü\n")
    assert fields["traceback"].startswith("Traceback")
    assert not {"project", "job"} & fields.keys()


def test_a_line_says_which_project_and_job_it_is_of(redis: Redis) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(JobFields())
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger()
    logger.addHandler(handler)
    try:
        at_once = Queue("test", connection=redis, is_async=False, serializer=JSONSerializer)
        for job_id in ("7-abc", "reconcile-abc"):
            at_once.enqueue("logging.warning", "in a job", job_id=job_id)
        logger.warning("outside")
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    shown = [(line["message"], line.get("project"), line.get("job")) for line in lines if line["logger"] == "root"]
    assert shown == [("in a job", 7, "7-abc"), ("in a job", None, "reconcile-abc"), ("outside", None, None)]
