"""Keeps worker processes alive and ticks the reconcile: what `yolo-backend worker` runs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

from redis.exceptions import RedisError

from backend.processes import spawn
from backend.progress import connect
from backend.queues import CONTROL, SCORE, TRAIN, Delayed, Jobs
from backend.settings import Settings

log = logging.getLogger(__name__)

# A training takes minutes: beside it one process stays free to configure, check, score and push.
GROUPS = ((CONTROL, SCORE), (TRAIN,))
_RESTART_PAUSE_S = 2.0
_DUE_S = 1.0  # how late a delayed job may be
_SECOND_SIGNAL_S = 1.5


def run(settings: Settings, environ: Mapping[str, str], stop: threading.Event) -> None:
    """Run one process per group of queues until `stop` is set; a process that dies is started again."""
    jobs, delayed = Jobs(connect(settings.redis_url)), Delayed(connect(settings.redis_url))
    _start_thread(lambda: jobs.once("reconcile"), settings.reconcile_s, "reconciles", stop)
    _start_thread(delayed.enqueue_due, _DUE_S, "delayed jobs", stop)
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
        delayed.close()


def _start_thread(work: Callable[[], object], every_s: float, what: str, stop: threading.Event) -> None:
    threading.Thread(target=_repeat, args=(work, every_s, what, stop), daemon=True).start()


def _start(queues: tuple[str, ...], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return spawn([sys.executable, "-m", "backend.cli", "worker", "--queues", ",".join(queues)], environ)


def _await_end(child: subprocess.Popen[bytes]) -> None:
    """End a told worker; rq takes a second signal, a second later, to end the job too: it is idempotent."""
    try:
        child.wait(_SECOND_SIGNAL_S)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()


def _repeat(work: Callable[[], object], every_s: float, what: str, stop: threading.Event) -> None:
    """Do something again and again, whatever becomes of redis meanwhile; each outage is one line of log."""
    away = False
    while not stop.wait(every_s):
        try:
            work()
        except RedisError as error:
            if not away:
                log.error("%s wait until redis answers again: %s", what, error)
            away = True
        else:
            if away:
                log.error("%s go on: redis answers again", what)
            away = False
