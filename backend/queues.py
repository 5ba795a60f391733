"""The only user of rq: how jobs are enqueued and worked off. Jobs are named functions with plain JSON arguments."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

from redis import Redis
from rq import Queue, Retry, Worker
from rq.serializers import JSONSerializer
from rq.worker import DequeueStrategy

from backend.progress import Progress

log = logging.getLogger(__name__)

CONTROL, SCORE, TRAIN = "control", "score", "train"
QUEUES = (CONTROL, SCORE, TRAIN)
_DAY_S = 24 * 3600
_RETRY_AFTER_S = [5, 30, 120]

# Job name -> queue. The functions live in backend.jobs; naming them by string keeps training code out of the server.
_QUEUE_OF = {
    "check": CONTROL,
    "configure": CONTROL,
    "reconcile": CONTROL,
    "score_new": CONTROL,
    "start_scoring": CONTROL,
    "rank_and_push": CONTROL,
    "delete_old": CONTROL,
    "review_labels": CONTROL,
    "score_shard": SCORE,
    "retrain": TRAIN,
    "simulate": TRAIN,
}


class Jobs:
    """Enqueues jobs by name; `once` folds hints of the same kind into one waiting job."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._progress = Progress(redis)

    def put(self, job: str, *args: int | str | list[int], delay_s: float = 0) -> None:
        """Enqueue `backend.jobs.<job>(*args)`, retried three times when it dies or raises."""
        queue = Queue(_QUEUE_OF[job], connection=self._redis, serializer=JSONSerializer)
        options = {
            "job_timeout": _DAY_S,
            "result_ttl": 0,
            "failure_ttl": _DAY_S,
            "retry": Retry(max=len(_RETRY_AFTER_S), interval=_RETRY_AFTER_S),
        }
        if delay_s:
            queue.enqueue_in(timedelta(seconds=delay_s), f"backend.jobs.{job}", *args, **options)
        else:
            queue.enqueue(f"backend.jobs.{job}", *args, **options)

    def once(self, job: str, *args: int, delay_s: float = 0) -> bool:
        """Enqueue unless the same job already waits; the job must call `unclaim` with the same hint first."""
        if not self._progress.claim(hint(job, *args)):
            return False
        self.put(job, *args, delay_s=delay_s)
        return True

    def depth(self) -> int:
        """Return how many jobs wait."""
        return sum(Queue(name, connection=self._redis, serializer=JSONSerializer).count for name in QUEUES)


def hint(job: str, *args: int) -> str:
    """Return the name under which a job waits.

    >>> hint("check", 5)
    'check:5'
    """
    return ":".join([job, *map(str, args)])


def work(redis_url: str, queues: tuple[str, ...], *, burst: bool = False) -> None:
    """Work off `queues` in this process until it is told to stop; `burst` stops when they are empty.

    Each job runs in a forked child, so a training that leaks or crashes takes nothing else with it.
    """
    if TRAIN in queues:
        os.nice(10)  # predictions and health checks of the server come first on a shared machine
    connection = Redis.from_url(redis_url)
    worker = Worker(
        [Queue(name, connection=connection, serializer=JSONSerializer) for name in queues],
        connection=connection,
        serializer=JSONSerializer,
        log_job_description=False,
    )
    # In turn: a steady stream of checks must not keep shards from being scored.
    turn = DequeueStrategy.ROUND_ROBIN
    worker.work(burst=burst, with_scheduler=not burst, logging_level="ERROR", dequeue_strategy=turn)
