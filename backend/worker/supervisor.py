"""What `yolo-backend worker` runs: it keeps the worker processes alive and enqueues the reconcile at intervals."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from redis import Redis
from redis.exceptions import RedisError

from backend.queue import presence
from backend.queue.rq_queue import CONTROL, SCORE, TRAIN, DelayedJobs, Jobs
from backend.queue.run_state import connect
from backend.settings import Settings
from backend.worker.supervision import Part

log = logging.getLogger(__name__)

# A training takes minutes. Meanwhile the other process configures, checks, scores and pushes.
GROUPS = ((CONTROL, SCORE), (TRAIN,))
_RESTART_PAUSE_S = 2.0
_DUE_S = 1.0  # between two looks for delayed jobs that are due
_SECOND_SIGNAL_S = 1.5


def run(settings: Settings, environ: Mapping[str, str], stop: threading.Event) -> None:
    """Run one process per group of queues until `stop` is set; a process that dies is started again.

    Raises BackendError with the last lines of a process that dies too often.
    """
    jobs, delayed = Jobs(connect(settings.redis_url)), DelayedJobs(connect(settings.redis_url))
    _start_thread(lambda: jobs.once("reconcile"), settings.reconcile_s, "reconciles", stop)
    _start_thread(delayed.enqueue_due, _DUE_S, "delayed jobs", stop)
    redis = connect(settings.redis_url)
    parts = {queues: _start(queues, environ, redis) for queues in GROUPS}
    try:
        while not stop.wait(_RESTART_PAUSE_S):
            for part in parts.values():
                part.look()
            with suppress(RedisError):
                presence.note_workers(redis, [name for queues in GROUPS if parts[queues].alive for name in queues])
    finally:
        for part in parts.values():
            part.process.terminate()
        for part in parts.values():
            _await_end(part.process)
        delayed.close()


def _start_thread(work: Callable[[], object], every_s: float, subject: str, stop: threading.Event) -> None:
    threading.Thread(target=repeat, args=(work, every_s, subject, stop), daemon=True).start()


def _start(queues: tuple[str, ...], environ: Mapping[str, str], redis: Redis) -> Part:
    names = ",".join(queues)
    command = [sys.executable, "-m", "backend.cli", "worker", "--queues", names]
    # Without redis it would end at once, and that must not count as one of its restarts.
    return Part(f"the worker for {names}", command, environ, may_start=lambda: _answers(redis))


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def _await_end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a worker that has got a signal; after a second signal rq ends its job too, which is safe to repeat."""
    try:
        child.wait(_SECOND_SIGNAL_S)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()


def repeat(work: Callable[[], object], every_s: float, subject: str, stop: threading.Event) -> None:
    """Call `work` every `every_s` seconds until `stop` is set, also after outages of redis.

    The log has one line when an outage begins and one when it ends; `subject` is their subject, in the plural.
    """
    away = False
    while not stop.wait(every_s):
        try:
            work()
        except RedisError as error:
            if not away:
                log.error("%s wait until redis answers again: %s", subject, error)
            away = True
        else:
            if away:
                log.error("%s go on: redis answers again", subject)
            away = False
