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
_MAINTENANCE_S = 60  # how often rq looks for jobs of dead workers
_RETRY_AFTER_S = [5, 30, 120]

# A job's turn is its position among the jobs of its project. Lua makes this atomic: a worker never sees half a list.
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
# Job name -> queue. The functions are in the module JOBS. Their names are text, so the server imports no training code.
QUEUE_OF = {
    "check": CONTROL,
    "configure": CONTROL,
    "reconcile": CONTROL,
    "score_new": CONTROL,
    "start_scoring": CONTROL,
    "rank_and_push": CONTROL,
    "reorder": CONTROL,
    "delete_old": CONTROL,
    "map_pool": SCORE,
    "measure_effort": CONTROL,
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
        """Enqueue the function `job` of the module JOBS, to start in `delay_s` seconds.

        A job that dies or raises is tried again three times, but a training is not.
        """
        with self._redis.pipeline() as pipe:
            self._add(pipe, job, args, delay_s)
            pipe.execute()

    def _add(self, pipe: Pipeline, job: str, args: Sequence[int | str | list[int]], delay_s: float) -> str:
        """Add a job and its entry in the queue to a transaction; return the job's id."""
        queue = Queue(QUEUE_OF[job], connection=self._redis, serializer=JSONSerializer)
        options = {
            "job_timeout": _DAY_S,
            "result_ttl": 0,
            "failure_ttl": _DAY_S,
            # The next check starts a failed training again; after a fault of the machine there is a pause first.
            "retry": None if job == "retrain" else Retry(max=len(_RETRY_AFTER_S), interval=_RETRY_AFTER_S),
            "pipeline": pipe,
            "job_id": f"{_owner(job, args)}-{uuid.uuid4().hex}",  # `deal` reads the project from it
        }
        name = f"{JOBS}.{job}"
        if delay_s:
            return str(queue.enqueue_in(timedelta(seconds=delay_s), name, *args, **options).id)
        return str(queue.enqueue(name, *args, **options).id)

    def once(self, job: str, *args: int, delay_s: float = 0) -> bool:
        """Enqueue a job unless the same one already waits; return whether it was enqueued.

        The job must begin with `unclaim` for the same hint. The claim holds the job's id and is written in one
        transaction with the job, so neither exists without the other. The claim of a job that no longer waits is void.
        """
        key, claimed = f"{PENDING}:{hint(job, *args)}", False

        def claim(pipe: Pipeline) -> None:
            """Write the claim and the job, unless a claimed job waits."""
            nonlocal claimed
            claimed = not self._waits(pipe.get(key))
            if claimed:
                pipe.multi()
                pipe.set(key, self._add(pipe, job, args, delay_s))

        self._redis.transaction(claim, key)  # redis repeats it if another process writes the claim meanwhile
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
        """Reorder the waiting shards so that projects take turns, the project with the fewest first.

        The shards of one project keep their order.
        """
        self._redis.eval(_DEAL, 1, Queue(SCORE, connection=self._redis).key)

    def depth(self) -> int:
        """Return the number of waiting jobs in all queues."""
        return sum(Queue(name, connection=self._redis, serializer=JSONSerializer).count for name in QUEUES)


def _owner(job: str, args: Sequence[int | str | list[int]]) -> int | str:
    """Return the project id of a job, or the job's name; rq allows only letters, digits, dashes and underscores."""
    return args[0] if args and isinstance(args[0], int) else job


def hint(job: str, *args: int) -> str:
    """Return the name of a hint: `Jobs.once` enqueues one job for all hints of the same name.

    >>> hint("check", 5)
    'check:5'
    """
    return ":".join([job, *map(str, args)])


class DelayedJobs:
    """Moves delayed jobs into their queue when they are due.

    rq runs this in a separate process. That process ends when it loses the connection, and rq takes ten minutes to
    replace it.
    """

    def __init__(self, redis: Redis) -> None:
        self._scheduler = RQScheduler(QUEUES, redis, serializer=JSONSerializer, logging_level="ERROR")

    def enqueue_due(self) -> None:
        """Enqueue the jobs that are due, unless the workers of another machine do it."""
        self._scheduler.acquire_locks()
        self._scheduler.enqueue_scheduled_jobs()

    def close(self) -> None:
        """Release the scheduler's locks, so that another machine takes over; without redis they expire in a minute."""
        with suppress(RedisError):
            self._scheduler.release_locks()


class BackendJob(Job):  # type: ignore[misc]  # rq has no types
    """A job that is identified by the name of its function alone: an earlier release had it in another module."""

    @property
    def func(self) -> Any:
        """The function that the job calls."""
        return getattr(import_module(JOBS), str(self.func_name).rpartition(".")[2])


class JobWorker(Worker):  # type: ignore[misc]  # rq has no types
    """A worker that survives an outage of redis; rq's own worker dies, and its job runs on without supervision."""

    _horse_end: tuple[Any, ...] | None = None

    def wait_for_horse(self) -> tuple[Any, ...]:
        """Return how the job's process ended, but wait until redis answers: rq writes the result there."""
        if self._horse_end is None:
            self._horse_end = super().wait_for_horse()
        while not self._stop_requested and not self._answers():
            time.sleep(1)
        horse_end, self._horse_end = self._horse_end, None
        return horse_end

    def _answers(self) -> bool:
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Renew the heartbeats as rq does, but ignore an outage of redis."""
        with suppress(RedisError):
            super().maintain_heartbeats(job, execution)


def work(redis_url: str, queues: tuple[str, ...], *, burst: bool = False) -> None:
    """Run the jobs of `queues` in this process until a signal stops it; with `burst` until the queues are empty.

    Each job runs in a forked child, so a training that leaks or crashes harms nothing else.
    """
    if TRAIN in queues:
        os.nice(10)  # on a shared machine, predictions and health checks of the server come first
    connection = Redis.from_url(redis_url)
    worker = JobWorker(
        [Queue(name, connection=connection, serializer=JSONSerializer) for name in queues],
        connection=connection,
        serializer=JSONSerializer,
        job_class=BackendJob,
        log_job_description=False,
        maintenance_interval=_MAINTENANCE_S,
    )
    # Round robin, so that a steady stream of checks does not keep shards waiting.
    worker.work(burst=burst, logging_level="ERROR", dequeue_strategy=DequeueStrategy.ROUND_ROBIN)
