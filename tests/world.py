"""Servers and helpers for tests of the whole loop: Label Studio, redis, worker, backend and an oracle annotator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
from redis import Redis

from backend.cli.embedded import backend_processes, running_redis
from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import reader, writer
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient, StoredPrediction
from backend.model_versions import Metrics, ModelVersion
from backend.settings import Settings, from_env
from backend.simulate.annotator import Oracle
from backend.store.store import Store
from backend.types import ControlTag, Json, Task
from backend.web.status_schemas import ProjectOut
from backend.yolo import evaluate
from tests.forked import run_command

PATIENCE_S = 1800


@dataclass(frozen=True)
class Servers:
    """Label Studio and a running backend."""

    studio: LabelStudioProcess
    client: LabelStudioClient
    url: str  # of the backend
    settings: Settings
    environ: Mapping[str, str]  # of the backend
    store: Store
    redis: Redis

    def status(self, project_id: int) -> ProjectOut:
        answer = httpx.get(f"{self.url}/api/projects/{project_id}", timeout=30).raise_for_status()
        return ProjectOut.model_validate_json(answer.text)

    def shown_version(self, project_id: int) -> str:
        return self.client.projects.get(project_id).model_version

    def predictions(self, project_id: int) -> dict[int, list[StoredPrediction]]:
        """Return the shown version's predictions of each unlabeled task, by task id."""
        version = self.shown_version(project_id)
        held = queue_predictions(self.client, project_id)
        return {task_id: [pred for pred in preds if pred.version == version] for task_id, preds in held.items()}

    def scores(self, project_id: int) -> dict[int, list[float | None]]:
        return {task_id: [pred.score for pred in preds] for task_id, preds in self.predictions(project_id).items()}

    def command(self, *words: str | int) -> str:
        """Run `yolo-backend` with these arguments as an admin does; return its output."""
        environ = {**os.environ, **self.environ}
        done = run_command(environ, [str(word) for word in words])
        done.check_returncode()
        return done.stdout


@dataclass(frozen=True)
class World(Servers):
    """The servers of a test about boxes, with a data set and an oracle that annotates its true boxes."""

    data: reader.YoloData
    config: str
    tag: ControlTag
    oracle: Oracle

    def annotate(self, task: Task, result: list[Json] | None = None) -> int:
        return self.client.annotations.create(task.id, self.oracle.answer(self.tag, task) if result is None else result)


@contextmanager
def open_servers(studio: LabelStudioProcess, folder: Path, settings: Mapping[str, str]) -> Iterator[Servers]:
    """Run a backend for `studio` with `settings` beside those that every test needs."""
    environ = {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": studio.api_key,
        "MODEL_DIR": str(folder / "models"),
        "PORT": "0",
        "RECONCILE_S": "5",
        "LOG_LEVEL": "INFO",
        **settings,
    }
    chosen = from_env(environ)
    with (
        LabelStudioClient(studio.url, studio.api_key) as client,
        backend_processes(chosen, {**os.environ, **environ}) as backend,
        Redis.from_url(running_redis(chosen)) as redis,
    ):
        yield Servers(studio, client, backend.url, chosen, environ, Store(chosen.model_dir), redis)


@contextmanager
def open_world(
    studio: LabelStudioProcess, folder: Path, data_yaml: Path, settings: Mapping[str, str]
) -> Iterator[World]:
    """Run a backend for `studio`, with a data set of boxes."""
    data = reader.read(data_yaml)
    labels = "".join(f'<Label value="{name}"/>' for name in data.classes)
    config = (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{labels}</RectangleLabels></View>'
    )
    with open_servers(studio, folder, settings) as servers:
        parts = {field.name: getattr(servers, field.name) for field in fields(servers)}
        yield World(**parts, data=data, config=config, tag=label_config.parse(config)[0], oracle=Oracle(data.train))


def queue_predictions(client: LabelStudioClient, project_id: int) -> dict[int, list[StoredPrediction]]:
    """Return the predictions of each unlabeled task, of all versions, by task id; Label Studio is asked twice."""
    held: dict[int, list[StoredPrediction]] = {task.id: [] for task in client.tasks.unlabeled(project_id)}
    for prediction in client.predictions.of_tasks(project_id, list(held)):
        held[prediction.task_id].append(prediction)
    return held


def label(world: World, project_id: int, count: int) -> None:
    for _ in range(count):
        task = world.client.tasks.next(project_id)
        assert task is not None
        world.annotate(task)


def measure(world: World, version: ModelVersion) -> Metrics:
    folder = Path(world.settings.model_dir) / "test-set"
    data_yaml = writer.write_test_set(world.data.val, world.data.classes, folder)
    return evaluate.evaluate(
        world.store.weights(version, version.models[0].from_name), data_yaml, world.settings.imgsz, "cpu"
    )


def await_shown(world: Servers, project_id: int, version: str) -> None:
    """Wait until Label Studio shows a version's predictions."""

    def shown() -> bool:
        answer = httpx.get(f"{world.url}/api/projects/{project_id}", timeout=30)
        if answer.is_error:
            return False  # a project has no status page before its first /setup
        status = ProjectOut.model_validate_json(answer.text)
        assert status.training.state != "failed", status.training.error
        assert all(version.promoted for version in status.versions), status.versions[-1].reason
        # Label Studio is asked last, because each answer costs it much processor time.
        return status.version == version and world.shown_version(project_id) == version

    await_true(shown, f"{version} in project {project_id}")


def await_true(
    condition: Callable[[], bool],
    goal: str,
    patience_s: float = PATIENCE_S,
    tell: Callable[[], str] = lambda: "nothing more is known",
) -> None:
    """Wait until `condition` holds; after `patience_s` fail with the text that `tell` returns.

    `goal` names in the message what was waited for.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {goal}: {tell()}"
        time.sleep(0.5)
