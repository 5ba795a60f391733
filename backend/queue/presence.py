"""What workers write to redis for /ready: which workers are alive, and when the last reconcile ended."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from redis import Redis

ALIVE_S = 20  # a `yolo-backend worker` that has not written for this long counts as gone
_RECONCILED = "reconciled"


def note_workers(redis: Redis, queues: Iterable[str]) -> None:
    """Write which queues the workers of this process serve now, one name for each worker and queue."""
    redis.set(f"workers:{socket.gethostname()}:{os.getpid()}", ",".join(queues), ex=ALIVE_S)


def workers(redis: Redis) -> Counter[str]:
    """Return the number of worker processes for each queue, on all machines."""
    values = (redis.get(key) for key in redis.scan_iter("workers:*"))
    return Counter(queue for value in values if value for queue in _text(value).split(",") if queue)


def note_reconcile(redis: Redis) -> None:
    """Write that a reconcile has gone through all projects."""
    redis.set(_RECONCILED, datetime.now(UTC).isoformat(timespec="seconds"))


def last_reconcile(redis: Redis) -> str:
    """Return when the last reconcile ended, in UTC; "" if there was none."""
    return _text(redis.get(_RECONCILED) or "")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
