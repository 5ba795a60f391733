"""What workers leave in redis so that /ready can tell of them: which of them live, and when the last reconcile was."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from redis import Redis

ALIVE_S = 20  # a `yolo-backend worker` that is gone for longer counts no more
_RECONCILED = "reconciled"


def note_workers(redis: Redis, queues: Iterable[str]) -> None:
    """Keep the queues that this machine's workers work off now, one name for each process and queue."""
    redis.set(f"workers:{socket.gethostname()}:{os.getpid()}", ",".join(queues), ex=ALIVE_S)


def workers(redis: Redis) -> Counter[str]:
    """Return how many processes work off which queue, on all machines."""
    kept = (redis.get(key) for key in redis.scan_iter("workers:*"))
    return Counter(queue for value in kept if value for queue in _text(value).split(",") if queue)


def note_reconcile(redis: Redis) -> None:
    """Keep that a reconcile has gone through all projects."""
    redis.set(_RECONCILED, datetime.now(UTC).isoformat(timespec="seconds"))


def reconciled(redis: Redis) -> str:
    """Return when the last reconcile ended, in UTC; "" if there was none."""
    return _text(redis.get(_RECONCILED) or "")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
