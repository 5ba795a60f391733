from __future__ import annotations

import json
import signal
import zlib
from collections.abc import Iterator
from typing import cast

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend import jobs as job_functions
from backend import queues
from backend.progress import Progress
from backend.queues import CONTROL, QUEUES, SCORE, TRAIN, Jobs, hint
from backend.settings import Settings


@pytest.fixture
def jobs(redis: Redis) -> Jobs:
    return Jobs(redis)


@pytest.fixture
def _signals() -> Iterator[None]:
    """Put back the signal handlers that an rq worker replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def queue(redis: Redis, name: str) -> Queue:
    return Queue(name, connection=redis, serializer=JSONSerializer)


@pytest.mark.parametrize("job", queues._QUEUE_OF)
def test_every_job_is_a_function_and_has_a_queue(job: str) -> None:
    assert callable(getattr(job_functions, job))
    assert queues._QUEUE_OF[job] in QUEUES


def test_jobs_are_json_never_a_pickle(jobs: Jobs, redis: Redis) -> None:
    jobs.put("score_shard", 7, 1, 0, [5, 6])
    (job,) = queue(redis, SCORE).jobs
    raw = zlib.decompress(cast(bytes, redis.hget(f"rq:job:{job.id}", "data")))
    assert json.loads(raw) == ["backend.jobs.score_shard", None, [7, 1, 0, [5, 6]], {}]


def test_jobs_go_to_their_queue_and_are_retried(jobs: Jobs, redis: Redis) -> None:
    jobs.put("check", 7)
    jobs.put("retrain", 7, 1)
    (check,), (retrain,) = queue(redis, CONTROL).jobs, queue(redis, TRAIN).jobs
    assert (check.func_name, check.args, check.retries_left) == ("backend.jobs.check", [7], 3)
    assert retrain.func_name == "backend.jobs.retrain"
    assert jobs.depth() == 2


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
    queues.work(redis_url, (CONTROL, SCORE), burst=True)
    assert jobs.depth() == 0
    assert jobs.once("reconcile")  # the job took its hint back
    assert queue(redis, CONTROL).failed_job_registry.count == 0


@pytest.mark.usefixtures("_signals")
def test_a_job_that_raises_is_kept_for_another_try(
    jobs: Jobs, redis: Redis, redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("MODEL_DIR", settings.model_dir)
    jobs.once("check", 7)  # there is no Label Studio
    queues.work(redis_url, (CONTROL,), burst=True)
    control = queue(redis, CONTROL)
    assert control.scheduled_job_registry.count + control.failed_job_registry.count == 1
    assert jobs.once("check", 7)  # and later hints are not lost
