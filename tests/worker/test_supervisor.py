"""The threads of the supervisor survive outages of redis."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from backend.queue.rq_queue import Jobs
from backend.queue.run_state import connect
from backend.worker import supervisor
from tests.outages import own_redis

pytestmark = pytest.mark.processes


def test_the_reconcile_outlives_redis(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Redis is killed and comes back empty, twice. The log has a line when each outage begins and when it ends."""
    stop = threading.Event()
    caplog.set_level(logging.INFO, "backend.worker.supervisor")
    with own_redis(tmp_path) as outages, connect(outages.url) as client:
        jobs = Jobs(client)
        thread = threading.Thread(
            target=supervisor.repeat, args=(lambda: jobs.once("reconcile"), 0.01, "reconciles", stop)
        )
        thread.start()
        for _ in range(2):
            await_depth(jobs, 1)
            outages.kill()
            time.sleep(0.5)
            outages.start(empty=True)
        await_depth(jobs, 1)
        stop.set()
        thread.join()
    lines = [record.message for record in caplog.records if record.name == "backend.worker.supervisor"]
    assert [line.split(":")[0] for line in lines] == [
        "reconciles wait until redis answers again",
        "reconciles go on",
    ] * 2
    assert not any(record.exc_info for record in caplog.records)


def await_depth(jobs: Jobs, depth: int) -> None:
    deadline = time.monotonic() + 60
    while jobs.depth() != depth:
        assert time.monotonic() < deadline, f"waited for {depth} jobs"
        time.sleep(0.02)
