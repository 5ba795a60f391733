"""The only user of rq: how jobs are enqueued and worked off. Jobs are named functions with plain JSON arguments."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Retry, Worker
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.worker import DequeueStrategy

from backend.queue.run_state import PENDING

log = logging.getLogger(__name__)

CONTROL, SCORE, TRAIN = "control", "score", "train"
QUEUES = (CONTROL, SCORE, TRAIN)
_DAY_S = 24 * 3600
_MAINTENANCE_S = 60  # how often jobs of workers that died are looked for
_RETRY_AFTER_S = [5, 30, 120]

# A job's turn is how many of its project's are before it. Whole in Lua: no worker takes a job from a list half dealt.
_DEAL = """
local jobs, counts = {}, {}
for place, id in ipairs(redis.call('lrange', KEYS[1], 0, -1)) do
    local project = string.match(id, '^(%d+)%-') or id
    counts[project] = (counts[project] or 0) + 1
    jobs[place] = {id = id, project = project, turn = counts[project], place = place}
end
table.sort(jobs, function(a, b)
    if a.turn ~= b.turn then return a.turn < b.turn end
    if counts[a.project] ~= counts[b.project] then return counts[a.project] < counts[b.project] end
    return a.place < b.place
end)
redis.call('del', KEYS[1])
for _, job in ipairs(jobs) do redis.call('rpush', KEYS[1], job.id) end
"""

JOBS = "backend.worker.jobs"
# Job name -> queue. The functions live in JOBS; naming them by string keeps training code out of the server.
QUEUE_OF = {
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

    def put(self, job: str, *args: int | str | list[int], delay_s: float = 0) -> None:
        """Enqueue the function `job` of JOBS; all but trainings are retried three times when they die or raise."""
        with self._redis.pipeline() as pipe:
            self._add(pipe, job, args, delay_s)
            pipe.execute()

    def _add(self, pipe: Pipeline, job: str, args: Sequence[int | str | list[int]], delay_s: float) -> str:
        """Write a job and its place in the queue into a transaction; return the job's id."""
        queue = Queue(QUEUE_OF[job], connection=self._redis, serializer=JSONSerializer)
        options = {
            "job_timeout": _DAY_S,
            "result_ttl": 0,
            "failure_ttl": _DAY_S,
            # A training is tried again by the next check; after a fault of the machine it rests first.
            "retry": None if job == "retrain" else Retry(max=len(_RETRY_AFTER_S), interval=_RETRY_AFTER_S),
            "pipeline": pipe,
            "job_id": f"{_owner(job, args)}-{uuid.uuid4().hex}",  # `deal` reads the project in it
        }
        name = f"{JOBS}.{job}"
        if delay_s:
            return str(queue.enqueue_in(timedelta(seconds=delay_s), name, *args, **options).id)
        return str(queue.enqueue(name, *args, **options).id)

    def once(self, job: str, *args: int, delay_s: float = 0) -> bool:
        """Enqueue unless the same job already waits; the job must call `unclaim` with the same hint first.

        The claim names the job and is written with it in one transaction: there is never one without the other, and a
        job that is gone, whatever became of it, keeps nobody waiting.
        """
        key, claimed = f"{PENDING}:{hint(job, *args)}", False

        def claim(pipe: Pipeline) -> None:
            nonlocal claimed
            claimed = not self._waits(pipe.get(key))
            if claimed:
                pipe.multi()
                pipe.set(key, self._add(pipe, job, args, delay_s))

        self._redis.transaction(claim, key)  # once more if another hint comes in this moment
        return claimed

    def _waits(self, claimant: bytes | str | None) -> bool:
        if claimant is None:
            return False
        job_id = claimant.decode() if isinstance(claimant, bytes) else claimant
        try:
            status = Job.fetch(job_id, connection=self._redis, serializer=JSONSerializer).get_status(refresh=False)
        except NoSuchJobError:
            return False
        return status in (JobStatus.QUEUED, JobStatus.SCHEDULED)

    def deal(self) -> None:
        """Let the projects whose shards wait take turns, the one with the fewest first; each keeps its own order."""
        self._redis.eval(_DEAL, 1, Queue(SCORE, connection=self._redis).key)

    def depth(self) -> int:
        """Return how many jobs wait."""
        return sum(Queue(name, connection=self._redis, serializer=JSONSerializer).count for name in QUEUES)


def _owner(job: str, args: Sequence[int | str | list[int]]) -> int | str:
    """Return the project that a job is of, or its name; rq takes only letters, digits, dashes and underscores."""
    return args[0] if args and isinstance(args[0], int) else job


def hint(job: str, *args: int) -> str:
    """Return the name under which a job waits.

    >>> hint("check", 5)
    'check:5'
    """
    return ":".join([job, *map(str, args)])


class Delayed:
    """Moves jobs into their queue when their time has come.

    rq runs this in a process of its own, which ends with the first lost connection and is missed for ten minutes.
    """

    def __init__(self, redis: Redis) -> None:
        self._scheduler = RQScheduler(QUEUES, redis, serializer=JSONSerializer, logging_level="ERROR")

    def enqueue_due(self) -> None:
        """Enqueue what is due, unless the workers of another machine do it."""
        self._scheduler.acquire_locks()
        self._scheduler.enqueue_scheduled_jobs()

    def close(self) -> None:
        """Leave it to the next one that asks, without redis a minute later."""
        with suppress(RedisError):
            self._scheduler.release_locks()


class BackendJob(Job):  # type: ignore[misc]  # rq has no types
    """A job of ours, known by the name of its function alone: the release before had it in another module."""

    @property
    def func(self) -> Any:
        """Return the function that runs."""
        return getattr(import_module(JOBS), str(self.func_name).rpartition(".")[2])


class JobWorker(Worker):  # type: ignore[misc]  # rq has no types
    """A worker that does not leave its job alone while redis is away; rq's own dies, and the job goes on unseen."""

    _horse_end: tuple[Any, ...] | None = None

    def wait_for_horse(self) -> tuple[Any, ...]:
        """Return how the job's process ended, and not before redis can be told."""
        if self._horse_end is None:
            self._horse_end = super().wait_for_horse()
        while not self._stop_requested and not self._answers():
            time.sleep(1)
        ended, self._horse_end = self._horse_end, None
        return ended

    def _answers(self) -> bool:
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        with suppress(RedisError):
            super().maintain_heartbeats(job, execution)


def work(redis_url: str, queues: tuple[str, ...], *, burst: bool = False) -> None:
    """Work off `queues` in this process until it is told to stop; `burst` stops when they are empty.

    Each job runs in a forked child, so a training that leaks or crashes takes nothing else with it.
    """
    if TRAIN in queues:
        os.nice(10)  # predictions and health checks of the server come first on a shared machine
    connection = Redis.from_url(redis_url)
    worker = JobWorker(
        [Queue(name, connection=connection, serializer=JSONSerializer) for name in queues],
        connection=connection,
        serializer=JSONSerializer,
        job_class=BackendJob,
        log_job_description=False,
        maintenance_interval=_MAINTENANCE_S,
    )
    # In turn: a steady stream of checks must not keep shards from being scored.
    turn = DequeueStrategy.ROUND_ROBIN
    worker.work(burst=burst, logging_level="ERROR", dequeue_strategy=turn)
