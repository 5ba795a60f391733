"""GET /ready: whether redis, store, Label Studio and workers answer. GET /health says only that the server runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError

from backend.errors import BackendError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from backend.loop.warm import COLD, Warmth
from backend.queue import presence
from backend.queue.rq_queue import QUEUES

KEPT_S = 5.0  # how long an answer is reused: probes come often, and each would send Label Studio a request
_REDIS_S = 2.0
OK = "ok"


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of each service: "ok", or the reason why it does not answer."""

    redis: str
    store: str
    label_studio: str
    workers: dict[str, int] = field(default_factory=dict)  # queue -> number of its worker processes
    reconciled: str = ""  # when the last reconcile ended, in UTC
    models: str = COLD  # whether the models of recently used projects are loaded

    @property
    def ready(self) -> bool:
        """Whether all services answer. Models do not count: a request loads its model if need be."""
        return {self.redis, self.store, self.label_studio} == {OK} and all(self.workers.get(name) for name in QUEUES)


class Probe:
    """Checks all services, at most once in KEPT_S."""

    def __init__(self, context: Context, warmth: Warmth | None) -> None:
        self._context = context
        self._warmth = warmth
        self._lock = threading.Lock()
        self._last: tuple[float, Readiness] | None = None

    def look(self) -> Readiness:
        """Return the state of all services, at most KEPT_S old."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > KEPT_S:
                self._last = time.monotonic(), self._look()
            return self._last[1]

    def _look(self) -> Readiness:
        settings, workers, reconciled = self._context.settings, dict.fromkeys(QUEUES, 0), ""
        try:
            with closing(Redis.from_url(settings.redis_url, socket_timeout=_REDIS_S)) as redis:
                workers |= presence.workers(redis)
                reconciled = presence.last_reconcile(redis)
            answer = OK
        except RedisError as error:
            answer = f"redis does not answer: {error}"
        with LabelStudioClient.impatient(settings.label_studio_url, settings.label_studio_api_key) as client:
            label_studio = _outcome(client.check)
        models = self._warmth.state if self._warmth else COLD
        return Readiness(answer, _outcome(self._context.store.check), label_studio, workers, reconciled, models)


def _outcome(check: Callable[[], object]) -> str:
    try:
        check()
    except BackendError as error:
        return str(error)
    return OK
