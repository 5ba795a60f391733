"""Faults of the machine: a full disk, no memory, a killed child. The training is tried again with the same labels."""

from __future__ import annotations

import errno
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import LabelStudioError, MachineError, MediaError, TrainingError, machine_fault
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import demands
from backend.loop.context import Context
from backend.loop.scoring import scoring
from backend.loop.training import retraining
from backend.queue.rq_queue import CONTROL, TRAIN
from backend.queue.run_state import Fault, Progress, TrainingProgress
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests.support import CONFIG, ImageSite, cycle_of, open_context, publish, tiny_yolo

BOX = {"x": 20, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (OSError(errno.EROFS, "Read-only file system"), "the disk can only be read"),
        (MemoryError(), "the machine has no memory left"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "no memory left"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "the GPU has no memory left"),
        (RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"), "the disk is full"),
        (MachineError("no sockets"), "no sockets"),
    ],
)
def test_faults_of_the_machine_are_recognised(error: Exception, message: str) -> None:
    fault = machine_fault(error)
    assert fault is not None
    assert message in fault.what
    wrapped = TrainingError("the training failed")
    wrapped.__cause__ = error
    assert str(machine_fault(wrapped)) == str(fault)


@pytest.mark.parametrize(
    "error", [OSError("image file is truncated"), FileNotFoundError(2, "gone"), RuntimeError("shape"), MediaError("x")]
)
def test_other_errors_are_no_fault_of_the_machine(error: Exception) -> None:
    assert machine_fault(error) is None


def test_pauses_grow_up_to_an_hour() -> None:
    assert [Fault("full", attempts).pause_s for attempts in (1, 2, 3, 4, 8, 99)] == [30, 60, 120, 240, 3600, 3600]


@contextmanager
def limited(folder: Path) -> Iterator[Path]:
    """Yield a folder on a disk of 128 MB; without the right to mount one, `full` limits files to 100 kB."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", folder], check=False).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no space for weights in a folder of `limited`."""
    if folder.is_mount():
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                file.truncate(file.tell() - (1 << 20))  # space for small files, so that the training fails late
        yield
        filler.unlink()
        return
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess,
    settings: Settings,
    images: ImageSite,
    tmp_path: Path,
) -> Iterator[tuple[Context, int]]:
    """A project of six images, four of them labeled, whose models are on a small disk."""
    with limited(tmp_path / "small") as disk:
        tiny_yolo(disk / "yolo11n.pt")
        chosen = {
            "label_studio_url": label_studio.url,
            "label_studio_api_key": label_studio.api_key,
            "model_dir": str(disk),
            "retrain_every": 2,
            "train_steps": 1,
            "min_epochs": 1,
            "max_epochs": 1,
            "tolerance": 1.0,
        }
        with open_context(settings.model_copy(update=chosen)) as context:
            client = context.label_studio
            project = client.projects.create("full", CONFIG)
            rows = [{"image": images.add(f"{n}.png", n)} for n in range(6)]
            client.http.send("POST", f"/api/projects/{project}/import", rows)
            context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
            annotate(client, project, 4)
            yield context, project


def annotate(client: LabelStudioClient, project: int, count: int) -> None:
    region = {"id": "b", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": BOX}
    for task in list(client.tasks.unlabeled(project))[:count]:
        client.annotations.create(task.id, [region])


def delayed(redis: Redis, name: str) -> list[tuple[str, list[int]]]:
    """Return the delayed jobs, and delete them."""
    queue = Queue(name, connection=redis, serializer=JSONSerializer)
    ids = queue.scheduled_job_registry.get_job_ids()
    jobs = [Job.fetch(job_id, connection=redis, serializer=JSONSerializer) for job_id in ids]
    for job in jobs:
        queue.scheduled_job_registry.remove(job)
        job.delete()
    return [(job.func_name.rpartition(".")[2], list(job.args)) for job in jobs]


def next_training(context: Context, project: int) -> list[int]:
    """Return the arguments of the training that a check enqueues once the pause is over, and delete it."""
    queue = Queue(TRAIN, connection=context.redis, serializer=JSONSerializer)
    assert context.progress.is_paused(project, "training")
    cycle_of(context).check(project)
    assert queue.job_ids == [], "it is paused"
    context.redis.delete(f"rests:training:{project}")  # as after its expiry
    cycle_of(context).check(project)
    (job,) = queue.jobs
    assert job.retries_left is None, "rq's own retry would not wait for the pause"
    queue.empty()
    return list(job.args)


@pytest.mark.label_studio
@pytest.mark.parametrize("forced", [0, 1])
def test_the_status_shows_a_full_disk_until_a_training_succeeds(studio: tuple[Context, int], forced: int) -> None:
    context, project = studio
    with full(Path(context.settings.model_dir)):
        for attempt in (1, 2):
            cycle_of(context).retrain(project, forced)
            fault = context.progress.fault(project, "training")
            assert fault is not None
            assert fault.attempts == attempt
            shown = context.progress.training(project)
            assert shown.state == "failed"
            assert any(part in shown.error for part in ("disk is full", "No space left", "too large", "grew past"))
            assert next_training(context, project) == [project, forced]
        cycle_of(context).reconcile()
        assert context.progress.training(project).error == shown.error, "the reconcile removed the error"
        assert context.progress.recall(project, "failed_labels") == "", "the labels are not to blame"
        assert context.store.versions(project) == ()
    cycle_of(context).retrain(project, forced)
    assert [version.number for version in context.store.versions(project)] == [1]
    assert context.progress.training(project) == TrainingProgress("idle", progress=1.0)
    assert context.progress.fault(project, "training") is None


@pytest.mark.label_studio
@pytest.mark.parametrize("forced", [0, 1])
def test_after_a_killed_training_there_is_a_pause_before_the_next(studio: tuple[Context, int], forced: int) -> None:
    context, project = studio
    for attempt in (1, 2):
        context.progress.remember(project, "forced", str(forced))
        context.progress.set_training(project, TrainingProgress("running", "train", 0.5))
        cycle_of(context).check(project)
        shown = context.progress.training(project)
        assert (shown.state, "the training was killed" in shown.error) == ("failed", True)
        fault = context.progress.fault(project, "training")
        assert fault is not None
        assert fault.attempts == attempt
        assert next_training(context, project) == [project, forced]
    cycle_of(context).retrain(project, forced)
    assert context.progress.training(project).error == ""
    assert len(context.store.versions(project)) == 1


@pytest.mark.label_studio
def test_a_scoring_on_a_full_disk_begins_again_after_a_pause(
    studio: tuple[Context, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, project = studio
    publish(context.store, project, Path(context.settings.model_dir) / "yolo11n.pt")

    def no_room(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    cycle_of(context).start_scoring(project)
    run = context.progress.scoring(project)
    assert run is not None
    tasks = [task.id for task in context.label_studio.tasks.unlabeled(project)]
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "save_shards", no_room)
        cycle_of(context).score_shard(project, run.run, 0, 0, tasks)
    assert context.progress.scoring(project) is None
    assert "the disk is full" in context.progress.recall(project, "ranking_error")
    assert ("start_scoring", [project]) in delayed(context.redis, CONTROL)
    cycle_of(context).start_scoring(project)
    run = context.progress.scoring(project)
    assert run is not None
    cycle_of(context).score_shard(project, run.run, 0, 0, tasks)
    labeled = list(context.label_studio.annotations.task_ids(project))
    cycle_of(context).score_shard(project, run.run, 1, 1, labeled)
    cycle_of(context).rank_and_push(project, run.run)
    assert context.progress.recall(project, "ranking_error") == ""
    assert context.progress.fault(project, "scoring") is None


def test_a_label_studio_that_fails_to_list_the_tasks_is_asked_again_after_a_pause(
    context: Context, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))

    def fail(*_: object, **__: object) -> None:
        raise LabelStudioError("Label Studio answers 500: Expression tree is too large")

    monkeypatch.setattr(scoring, "start", fail)
    cycle_of(context).start_scoring(7)  # it must not raise: the log would have a traceback per try
    assert "Expression tree is too large" in context.progress.recall(7, "ranking_error")
    assert delayed(redis, CONTROL) == [("start_scoring", [7])]


def test_the_status_shows_the_reason_beside_the_next_try(redis: Redis) -> None:
    progress = Progress(redis)
    progress.note_fault(7, "training", "the disk is full")
    for state in ("idle", "queued", "failed"):
        progress.set_training(7, TrainingProgress(state))
        shown = progress.training(7)
        assert shown.state == ("failed" if state == "idle" else state)
        assert shown.error == "the disk is full (failed once; tried again after 30 s)"
    progress.forget_fault(7, "training")
    assert progress.training(7) == TrainingProgress("failed")


def test_labels_that_allow_no_training_are_not_the_machines_fault(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demands, "labels_fingerprint", lambda *_: "labels")

    def refuse(*_: object, **__: object) -> None:
        raise TrainingError("a training needs 2 labeled images")

    monkeypatch.setattr(retraining, "retrain", refuse)
    context.progress.note_fault(7, "training", "the disk is full", forced=True)
    cycle_of(context).retrain(7, 1)
    assert context.progress.recall(7, "failed_labels") == "labels"
    assert context.progress.fault(7, "training") is None, "every check would enqueue a training"
