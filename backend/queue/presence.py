"""Signs of life in redis: which workers are alive, when the last reconcile ended, and the last event of a project."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from redis import Redis

ALIVE_S = 20  # a `yolo-backend worker` that has not written for this long counts as gone
EVENT_S = 30 * 24 * 3600  # how long the time of a project's last event stays
_RECONCILED = "reconciled"


def note_workers(redis: Redis, queues: Iterable[str]) -> None:
    """Write which queues the workers of this process serve now, one name for each worker and queue."""
    redis.set(f"workers:{socket.gethostname()}:{os.getpid()}", ",".join(queues), ex=ALIVE_S)


def workers(redis: Redis) -> Counter[str]:
    """Return the number of worker processes for each queue, on all machines."""
    keys = redis.scan_iter("workers:*", count=1000)  # in few round trips, because each open page asks every second
    values = (redis.get(key) for key in keys)
    return Counter(queue for value in values if value for queue in _text(value).split(",") if queue)


def note_reconcile(redis: Redis) -> None:
    """Write that a reconcile has gone through all projects."""
    redis.set(_RECONCILED, datetime.now(UTC).isoformat(timespec="seconds"))


def last_reconcile(redis: Redis) -> str:
    """Return when the last reconcile ended, in UTC; "" if there was none."""
    return _text(redis.get(_RECONCILED) or "")


def note_event(redis: Redis, project_id: int) -> None:
    """Write that a webhook of Label Studio came for a project."""
    redis.set(f"event:{project_id}", datetime.now(UTC).isoformat(timespec="seconds"), ex=EVENT_S)


def last_event(redis: Redis, project_id: int) -> str:
    """Return when the last webhook came for a project, in UTC; "" if none did in EVENT_S seconds."""
    return _text(redis.get(f"event:{project_id}") or "")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
