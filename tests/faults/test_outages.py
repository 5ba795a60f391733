"""The loop through outages: a real redis killed with and without its data, or hanging, at every stage; a killed job."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.loop import cycle
from backend.loop.context import Context
from backend.loop.locks import LOCK_TTL_MS
from backend.queue.rq_queue import TRAIN, Jobs
from backend.queue.run_state import FIRST_PAUSE_S
from backend.settings import from_env
from backend.store.store import ProjectRecord
from backend.subprocesses import running
from tests.outages import Outages, own_redis
from tests.support import CONFIG, ImageSite, cycle_of, open_context, publish, tiny_yolo
from tests.world import await_true, queue_predictions

PATIENCE_S = 300.0
AWAY_S = 2.0
RECONCILE_S = 2
# A redis that lost its data is the harder case, so `make test` runs it; `make test-slow` runs the other one.
EITHER_WAY = [pytest.param(False, id="with its data", marks=pytest.mark.slow), pytest.param(True, id="empty")]
BOX = {"x": 20, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}


@dataclass(frozen=True)
class World:
    """A worker of its own with a redis that dies, and their projects."""

    context: Context
    outages: Outages
    log: Path
    worker: int  # process id

    def project(self, images: ImageSite, *, version: bool) -> int:
        """Make a project of eight images, with or without a serving version."""
        client = self.context.label_studio
        project = client.projects.create("outages", CONFIG)
        client.http.send(
            "POST", f"/api/projects/{project}/import", [{"image": images.add(f"{n}.png", n)} for n in range(8)]
        )
        if version:
            publish(self.context.store, project, Path(self.context.settings.model_dir) / "yolo11n.pt")
        self.choose(project, "class_entropy")
        return project

    def choose(self, project: int, strategy: str) -> None:
        extra = json.dumps({"STRATEGY": strategy, "EXPLORE_SHARE": 0})
        self.context.store.save_project(ProjectRecord(project, CONFIG, extra, "", "", ""))

    def annotate(self, project: int, count: int) -> None:
        region = {"id": "b", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": BOX}
        for task in list(self.context.label_studio.tasks.unlabeled(project))[:count]:
            self.context.label_studio.annotations.create(task.id, [region])

    def score(self, project: int) -> None:
        Jobs(self.context.redis).once("start_scoring", project)

    def is_training(self, project: int) -> bool:
        return self.context.progress.training(project).stage == "train"

    def training_process(self) -> psutil.Process:
        """Return the process of the running training: the child that rq forked for the job."""
        (worker,) = (child for child in psutil.Process(self.worker).children() if child.cmdline()[-1] == TRAIN)
        (process,) = worker.children()
        return process

    def is_scoring(self, project: int) -> bool:
        run = self.context.progress.scoring(project)
        return run is not None and run.done < run.total

    def is_pushing(self, project: int) -> bool:
        run = self.context.progress.scoring(project)
        held = self.context.redis.exists(f"lock:push:{project}")
        return run is not None and run.done == run.total and bool(held)

    def is_in_order(self, project: int, strategy: str) -> bool:
        """Return whether Label Studio has one prediction per unlabeled task, with the priorities of `strategy`."""
        serving = self.context.store.serving(project)
        order = self.context.store.pools.ranking(project, serving.number) if serving else None
        if serving is None or order is None or order.strategy != strategy:
            return False
        client = self.context.label_studio
        wanted = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
        held = {
            task_id: [prediction.score for prediction in predictions if prediction.version == serving.name]
            for task_id, predictions in queue_predictions(client, project).items()
        }
        return client.projects.get(project).model_version == serving.name and held == {
            task_id: [pytest.approx(wanted.get(task_id), abs=1e-6)] for task_id in held
        }


@pytest.fixture(scope="module")
def world(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outages")
    models = folder / "models"
    models.mkdir()
    tiny_yolo(models / "yolo11n.pt")
    with own_redis(folder / "redis") as outages:
        environ = {
            "LABEL_STUDIO_URL": label_studio.url,
            "LABEL_STUDIO_API_KEY": label_studio.api_key,
            "MODEL_DIR": str(models),
            "REDIS_URL": outages.url,
            "ALLOWED_HOSTS": "127.0.0.1",
            "IMGSZ": "64",
            "DEVICE": "cpu",
            "MODEL_SCORE_THRESHOLD": "0.05",
            "RECONCILE_S": str(RECONCILE_S),
            "RETRAIN_EVERY": "2",
            "TRAIN_STEPS": "20",
            "TOLERANCE": "1",  # the quality of a version does not matter here
            "BATCH": "2",
            "LOG_LEVEL": "INFO",
        }
        log = folder / "worker.log"
        command = [sys.executable, "-m", "backend.cli", "worker"]
        with running(command, {**os.environ, **environ}, log) as child, open_context(from_env(environ)) as context:
            yield World(context, outages, log, child.process.pid)


@contextmanager
def away(outages: Outages, *, empty: bool) -> Iterator[None]:
    """Kill redis, and start it again some time after the block."""
    outages.kill()
    yield
    time.sleep(AWAY_S)
    outages.start(empty=empty)


def await_stage(reached: Callable[[], bool], stage: str) -> None:
    """Wait until a stage is reached, which may be short."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, f"waited for {stage}"
        time.sleep(0.01)


@pytest.mark.label_studio
@pytest.mark.parametrize("outage", [pytest.param("with its data", marks=pytest.mark.slow), "empty", "hangs"])
def test_a_training_outlives_redis_and_so_does_the_reconcile(world: World, images: ImageSite, outage: str) -> None:
    """The running training ends with a version, and labels that come later are trained, too."""
    project, store = world.project(images, version=False), world.context.store
    world.annotate(project, 2)
    await_stage(lambda: world.is_training(project), "a training")
    if outage == "hangs":
        with world.outages.stopped():
            time.sleep(AWAY_S)
    else:
        with away(world.outages, empty=outage == "empty"):
            pass
    await_true(lambda: len(store.versions(project)) == 1, "the version", PATIENCE_S, world.log.read_text)
    assert store.tokens.newest(project, "training") == 1, "it was trained once"
    world.annotate(project, 2)
    await_true(lambda: len(store.versions(project)) == 2, "the next version", PATIENCE_S, world.log.read_text)
    log = world.log.read_text()
    assert "took over" not in log
    assert "was killed" not in log


@pytest.mark.label_studio
@pytest.mark.parametrize("empty", EITHER_WAY)
def test_labels_that_come_while_redis_is_away_are_trained(world: World, images: ImageSite, empty: bool) -> None:
    project = world.project(images, version=False)
    with away(world.outages, empty=empty):
        world.annotate(project, 2)
    store = world.context.store
    await_true(lambda: len(store.versions(project)) == 1, "the version", PATIENCE_S, world.log.read_text)


@pytest.mark.label_studio
def test_a_training_that_is_killed_rests_with_its_reason_and_then_succeeds(world: World, images: ImageSite) -> None:
    """The training gets SIGKILL, as from the kernel when memory is short."""
    project, store, progress = world.project(images, version=False), world.context.store, world.context.progress
    world.annotate(project, 2)
    await_stage(lambda: world.is_training(project), "a training")
    world.training_process().kill()
    lock, pause_key = f"lock:training:{project}", f"rests:training:{project}"
    assert 0 < world.context.redis.pttl(lock) <= LOCK_TTL_MS
    world.context.redis.delete(lock)  # as it expires
    assert "the training was killed" in progress.training(project).error, "at once, before any check"
    await_true(lambda: progress.is_paused(project, "training"), "the pause", PATIENCE_S, world.log.read_text)
    assert world.context.redis.pttl(pause_key) <= FIRST_PAUSE_S * 1000
    time.sleep(3 * RECONCILE_S)
    shown = progress.training(project)
    assert (shown.state, "the training was killed" in shown.error) == ("failed", True)
    assert store.tokens.newest(project, "training") == 1, "it is paused, whatever the reconcile does"
    world.context.redis.delete(pause_key)  # as it expires
    await_true(lambda: len(store.versions(project)) == 1, "the version", PATIENCE_S, world.log.read_text)
    await_true(lambda: progress.training(project).state == "idle", "the end", PATIENCE_S, world.log.read_text)
    assert (progress.training(project).error, progress.fault(project, "training")) == ("", None)
    assert store.tokens.newest(project, "training") == 2, "two tries"


@pytest.mark.label_studio
@pytest.mark.parametrize("stage", ["scoring", "push"])
@pytest.mark.parametrize("empty", EITHER_WAY)
def test_a_scoring_outlives_redis(world: World, images: ImageSite, stage: str, empty: bool) -> None:
    project = world.project(images, version=True)
    await_true(lambda: world.is_in_order(project, "class_entropy"), "the first order", PATIENCE_S, world.log.read_text)
    world.choose(project, "margin")
    world.score(project)
    reached = world.is_scoring if stage == "scoring" else world.is_pushing
    await_stage(lambda: reached(project), f"the {stage}")
    with away(world.outages, empty=empty):
        pass
    await_true(lambda: world.is_in_order(project, "margin"), "the order", PATIENCE_S, world.log.read_text)


@pytest.mark.label_studio
def test_a_push_that_stood_still_does_not_write_over_the_next(world: World, images: ImageSite) -> None:
    """The worker is stopped during its push, its lock expires, and this test pushes the next version meanwhile."""
    project = world.project(images, version=True)
    await_stage(lambda: world.is_pushing(project), "the push")
    processes = [psutil.Process(world.worker), *psutil.Process(world.worker).children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        world.context.redis.delete(f"lock:push:{project}")  # like its expiry a minute later
        second = publish(world.context.store, project, Path(world.context.settings.model_dir) / "yolo11n.pt")
        cycle_of(world.context).start_scoring(project)
        run = world.context.progress.scoring(project)
        assert run is not None
        tasks = [task.id for task in world.context.label_studio.tasks.unlabeled(project)]
        cycle_of(world.context).score_shard(project, run.run, 0, 0, tasks)
        with world.context.lock(project, "push") as fence:
            cycle.rank_push_and_flip(world.context, project, second.number, fence.check)
        assert world.context.label_studio.projects.get(project).model_version == second.name
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)
    shown = set[str]()
    watching = threading.Event()
    for _ in range(20):
        watching.wait(0.5)
        shown.add(world.context.label_studio.projects.get(project).model_version)
    assert shown == {second.name}
    serving = world.context.store.serving(project)
    assert serving is not None
    assert serving.number == second.number
