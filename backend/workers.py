"""Keeps worker processes alive and ticks the reconcile: what `yolo-backend worker` runs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Mapping

from redis import Redis

from backend.processes import spawn
from backend.queues import CONTROL, SCORE, TRAIN, Jobs
from backend.settings import Settings

log = logging.getLogger(__name__)

# A training takes minutes: beside it one process stays free to configure, check, score and push.
GROUPS = ((CONTROL, SCORE), (TRAIN,))
_RESTART_PAUSE_S = 2.0
_SECOND_SIGNAL_S = 1.5


def run(settings: Settings, environ: Mapping[str, str], stop: threading.Event) -> None:
    """Run one process per group of queues until `stop` is set; a process that dies is started again."""
    jobs = Jobs(Redis.from_url(settings.redis_url))
    threading.Thread(target=_tick, args=(jobs, settings.reconcile_s, stop), daemon=True).start()
    children = {queues: _start(queues, environ) for queues in GROUPS}
    try:
        while not stop.wait(_RESTART_PAUSE_S):
            for queues, child in children.items():
                if child.poll() is not None:
                    log.error(
                        "worker for %s ended with status %s; starting it again", ",".join(queues), child.returncode
                    )
                    children[queues] = _start(queues, environ)
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            _await_end(child)


def _start(queues: tuple[str, ...], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return spawn([sys.executable, "-m", "backend.cli", "worker", "--queues", ",".join(queues)], environ)


def _await_end(child: subprocess.Popen[bytes]) -> None:
    """End a told worker; rq takes a second signal, a second later, to end the job too: it is idempotent."""
    try:
        child.wait(_SECOND_SIGNAL_S)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()


def _tick(jobs: Jobs, every_s: float, stop: threading.Event) -> None:
    while not stop.wait(every_s):
        jobs.once("reconcile")
