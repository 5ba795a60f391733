"""A project in a real Label Studio whose jobs run only when a test calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from backend.queue.rq_queue import CONTROL, SCORE
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests.support import CONFIG, ImageSite, cycle_of, open_context, publish
from tests.world import queue_predictions


def queue(redis: Redis, name: str) -> Queue:
    return Queue(name, connection=redis, serializer=JSONSerializer)


@dataclass(frozen=True)
class Studio:
    """A project of four images with a served version and its ranking; its jobs run only when the test calls them."""

    context: Context
    project: int
    images: ImageSite

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def add(self, begin: int, end: int) -> None:
        rows = [{"image": self.images.add(f"{n}.png", n)} for n in range(begin, end)]
        self.client.http.send("POST", f"/api/projects/{self.project}/import", rows)

    def choose(self, strategy: str, **settings: int) -> None:
        extra = json.dumps({"STRATEGY": strategy, "EXPLORE_SHARE": 0, **settings})
        self.context.store.save_project(ProjectRecord(self.project, CONFIG, extra, "", "", ""))

    def waiting(self, name: str = CONTROL) -> list[str]:
        """Return the names of the delayed jobs."""
        rq_queue = queue(self.context.redis, name)
        scheduled = rq_queue.scheduled_job_registry.get_job_ids()
        return [job.func_name.rpartition(".")[2] for job in map(rq_queue.fetch_job, scheduled) if job]

    def queued(self, name: str) -> list[str]:
        """Return the names of the jobs that may begin."""
        return [job.func_name.rpartition(".")[2] for job in queue(self.context.redis, name).jobs]

    def run(self, name: str = CONTROL) -> None:
        """Run the jobs of a queue, and those that they enqueue there."""
        rq_queue = queue(self.context.redis, name)
        while rq_queue.job_ids:
            job = rq_queue.fetch_job(rq_queue.pop_job_id() or "")
            assert job is not None
            job.delete()
            getattr(cycle_of(self.context), job.func_name.rpartition(".")[2])(*job.args)

    def work(self, *names: str) -> None:
        """Run the jobs of the named queues, delayed jobs included; without names, repeat until CONTROL is empty."""
        for name in names or (CONTROL, SCORE):
            rq_queue = queue(self.context.redis, name)
            for job_id in rq_queue.scheduled_job_registry.get_job_ids():
                rq_queue.scheduled_job_registry.remove(job_id)
                rq_queue.push_job_id(job_id)
            self.run(name)
        if not names and self.context.redis.llen(queue(self.context.redis, CONTROL).key):
            self.work()

    def settle(self) -> None:
        for _ in range(5):
            self.work()

    def assert_in_order(self, strategy: str) -> None:
        """Assert that Label Studio holds the scores of a ranking by `strategy` of all unlabeled tasks."""
        assert self.context.progress.scoring(self.project) is None
        order = self.context.store.pools.ranking(self.project, 1)
        assert order is not None
        assert order.strategy == strategy
        wanted = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
        held = {
            task_id: [prediction.score for prediction in predictions]
            for task_id, predictions in queue_predictions(self.client, self.project).items()
        }
        assert held == {task_id: [pytest.approx(wanted.get(task_id))] for task_id in held}
        pool, _ = self.context.store.pools.load_pool(self.project, 1, None, tag="label")
        assert set(pool.task_ids.tolist()) >= set(held)


@contextmanager
def open_studio(
    label_studio: LabelStudioProcess, settings: Settings, weights: Path, images: ImageSite
) -> Iterator[Studio]:
    """Yield a project whose version 1 serves, with its ranking by class_entropy in Label Studio."""
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        project = context.label_studio.projects.create("jobs", CONFIG)
        studio = Studio(context, project, images)
        studio.add(0, 4)
        studio.choose("class_entropy")
        publish(context.store, project, weights)
        cycle_of(context).start_scoring(project)
        studio.settle()
        studio.assert_in_order("class_entropy")
        yield studio
