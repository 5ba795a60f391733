from __future__ import annotations

import json
import signal
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from backend.queue import rq_queue
from backend.queue.rq_queue import CONTROL, QUEUES, SCORE, TRAIN, BackendJob, DelayedJobs, Jobs, hint
from backend.queue.run_state import Progress, connect
from backend.settings import Settings
from backend.worker import jobs as job_functions
from tests.outages import own_redis


@pytest.fixture
def jobs(redis: Redis) -> Jobs:
    return Jobs(redis)


@pytest.fixture
def _signals() -> Iterator[None]:
    """Put back the signal handlers that an rq worker replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def queue(redis: Redis, name: str) -> Queue:
    return Queue(name, connection=redis, serializer=JSONSerializer)


@pytest.mark.parametrize("job", rq_queue.QUEUE_OF)
def test_every_job_is_a_function_and_has_a_queue(job: str) -> None:
    assert callable(getattr(job_functions, job))
    assert rq_queue.QUEUE_OF[job] in QUEUES


def test_jobs_are_json_never_a_pickle(jobs: Jobs, redis: Redis) -> None:
    jobs.put("score_shard", 7, 1, 0, [5, 6])
    (job,) = queue(redis, SCORE).jobs
    raw = zlib.decompress(cast(bytes, redis.hget(f"rq:job:{job.id}", "data")))
    assert json.loads(raw) == ["backend.worker.jobs.score_shard", None, [7, 1, 0, [5, 6]], {}]


def test_jobs_go_to_their_queue_and_are_retried(jobs: Jobs, redis: Redis) -> None:
    jobs.put("check", 7)
    jobs.put("retrain", 7, 1)
    (check,), (retrain,) = queue(redis, CONTROL).jobs, queue(redis, TRAIN).jobs
    assert (check.func_name, check.args, check.retries_left) == ("backend.worker.jobs.check", [7], 3)
    assert retrain.retries_left is None  # the next check tries again
    assert retrain.func_name == "backend.worker.jobs.retrain"
    assert jobs.depth() == 2


def test_a_job_that_the_release_before_queued_is_run(redis: Redis) -> None:
    """It had its jobs in `backend.jobs`."""
    waiting = queue(redis, CONTROL).enqueue("backend.jobs.check", 7)
    job = BackendJob.fetch(waiting.id, connection=redis, serializer=JSONSerializer)
    assert (job.func, job.args) == (job_functions.check, [7])


def test_a_delayed_job_waits_for_its_time(jobs: Jobs, redis: Redis) -> None:
    jobs.put("delete_old", 7, delay_s=60)
    assert jobs.depth() == 0
    assert queue(redis, CONTROL).scheduled_job_registry.count == 1


def test_an_unknown_job_is_refused_at_once(jobs: Jobs) -> None:
    with pytest.raises(KeyError):
        jobs.put("no_such_job", 7)


def test_once_folds_hints_by_job_and_project(jobs: Jobs, redis: Redis) -> None:
    assert [jobs.once("check", 7), jobs.once("check", 7), jobs.once("check", 8), jobs.once("score_new", 7)] == [
        True,
        False,
        True,
        True,
    ]
    assert jobs.depth() == 3
    Progress(redis).unclaim(hint("check", 7))
    assert jobs.once("check", 7)


@pytest.mark.usefixtures("_signals")
def test_a_burst_worker_runs_what_waits(
    jobs: Jobs, redis: Redis, redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("MODEL_DIR", settings.model_dir)
    jobs.once("reconcile")
    rq_queue.work(redis_url, (CONTROL, SCORE), burst=True)
    assert jobs.depth() == 0
    assert jobs.once("reconcile")  # the job removed its claim
    assert queue(redis, CONTROL).failed_job_registry.count == 0


@pytest.mark.usefixtures("_signals")
def test_a_job_that_raises_is_kept_for_another_try(
    jobs: Jobs, redis: Redis, redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("MODEL_DIR", settings.model_dir)
    jobs.once("check", 7)  # there is no Label Studio
    rq_queue.work(redis_url, (CONTROL,), burst=True)
    control = queue(redis, CONTROL)
    assert control.scheduled_job_registry.count + control.failed_job_registry.count == 1
    assert jobs.once("check", 7)  # and later hints are not lost


# A claim and its job


def test_no_claim_is_written_if_its_job_cannot_be_enqueued(redis: Redis, redis_url: str) -> None:
    """Redis accepts the claim's key and refuses the job's, as it may at the limit of its memory."""
    redis.acl_setuser("halfway", enabled=True, nopass=True, keys=["pending:*"], commands=["+@all"])
    try:
        with Redis.from_url(redis_url, username="halfway", password="") as halfway, pytest.raises(RedisError):
            Jobs(halfway).once("check", 7)
        assert Jobs(redis).once("check", 7)
    finally:
        redis.acl_deluser("halfway")


@pytest.mark.parametrize("status", [JobStatus.STARTED, JobStatus.FAILED, None])
def test_the_claim_of_a_job_that_no_longer_waits_is_void(jobs: Jobs, redis: Redis, status: JobStatus | None) -> None:
    """Its worker was killed before it removed the claim, or the job is gone."""
    jobs.once("check", 7)
    (job,) = queue(redis, CONTROL).jobs
    queue(redis, CONTROL).empty()
    if status is not None:
        job.save()
        job.set_status(status)
    assert jobs.once("check", 7)
    assert not jobs.once("check", 7)


def test_a_delayed_job_keeps_its_claim(jobs: Jobs) -> None:
    assert jobs.once("check", 7, delay_s=60)
    assert not jobs.once("check", 7)


def test_many_hints_at_the_same_time_make_one_job(redis_url: str, jobs: Jobs) -> None:
    def hint_now(_: int) -> bool:
        with Redis.from_url(redis_url) as client:
            return Jobs(client).once("check", 7)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(hint_now, range(8))) == [False] * 7 + [True]
    assert jobs.depth() == 1


@pytest.mark.parametrize("empty", [False, True], ids=["with its data", "empty"])
def test_a_claim_outlives_its_redis_only_with_its_job(tmp_path: Path, empty: bool) -> None:
    with own_redis(tmp_path) as outages, connect(outages.url) as client:
        jobs = Jobs(client)
        assert jobs.once("check", 7)
        outages.kill()
        with pytest.raises(RedisError):
            jobs.once("check", 7)
        outages.start(empty=empty)
        assert jobs.once("check", 7) == empty
        assert jobs.depth() == 1


def test_a_delayed_job_comes_in_time_after_an_outage(tmp_path: Path) -> None:
    """rq's own scheduler ends when it loses the connection, and rq replaces it only after ten minutes."""
    with own_redis(tmp_path) as outages, connect(outages.url) as client:
        jobs, delayed = Jobs(client), DelayedJobs(connect(outages.url))
        delayed.enqueue_due()
        jobs.put("check", 7, delay_s=0.1)
        outages.kill()
        with pytest.raises(RedisError):
            delayed.enqueue_due()
        outages.start()
        time.sleep(1)  # rq stores times in whole seconds
        delayed.enqueue_due()
        assert jobs.depth() == 1
        delayed.close()


# Fair shares


def order(redis: Redis) -> list[int]:
    """Return the projects whose shards wait, in the order in which they are scored."""
    return [job.args[0] for job in queue(redis, SCORE).jobs]


def put_shards(jobs: Jobs, project: int, count: int) -> None:
    for index in range(count):
        jobs.put("score_shard", project, 1, index, 0, [1])
    jobs.deal()


def test_a_small_scoring_passes_a_long_one(jobs: Jobs, redis: Redis) -> None:
    """One shard of a project is enqueued after eight of another."""
    put_shards(jobs, 1, 8)
    put_shards(jobs, 2, 1)
    assert order(redis).index(2) == 0


def test_projects_take_turns(jobs: Jobs, redis: Redis) -> None:
    put_shards(jobs, 1, 4)
    put_shards(jobs, 2, 2)
    put_shards(jobs, 3, 3)
    assert order(redis) == [2, 3, 1, 2, 3, 1, 3, 1, 1]
    indices = {
        project: [job.args[2] for job in queue(redis, SCORE).jobs if job.args[0] == project] for project in (1, 2)
    }
    assert indices == {1: [0, 1, 2, 3], 2: [0, 1]}


def test_dealing_loses_no_job(jobs: Jobs, redis: Redis) -> None:
    """Workers take jobs while `deal` reorders the others, and an earlier release enqueued one of them."""
    queue(redis, SCORE).enqueue("backend.worker.jobs.score_shard", 9, 1, 0, 0, [1], job_id="of-an-older-version")
    popped: list[str] = []

    def take() -> None:
        while len(popped) < 60:
            popped.append(queue(redis, SCORE).pop_job_id() or "")

    with ThreadPoolExecutor(2) as pool:
        worker = pool.submit(take)
        for project in range(5):
            pool.submit(put_shards, jobs, project, 20).result()
        while worker.running() and jobs.depth():
            time.sleep(0.01)
        popped += [""] * 60
    job_ids = [job_id for job_id in popped if job_id] + queue(redis, SCORE).job_ids
    assert len(job_ids) == len(set(job_ids)) == 101


@pytest.mark.usefixtures("_signals")
def test_a_job_may_take_longer_than_the_worker_waits_between_two_looks(
    jobs: Jobs, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rq 3 calls the method that we override with other arguments than rq 2."""
    monkeypatch.setattr(rq_queue, "JobWorker", partial(rq_queue.JobWorker, job_monitoring_interval=1))
    monkeypatch.setattr(job_functions, "reconcile", lambda: time.sleep(2.5))
    for _ in range(2):
        jobs.put("reconcile")
    rq_queue.work(redis_url, (CONTROL,), burst=True)
    assert jobs.depth() == 0, "the worker ended with the first job"
