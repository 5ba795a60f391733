"""`make demo`: the whole loop on a real Label Studio, with a scripted annotator in the place of people."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backend import dataset, evaluation, label_config, scenes, yolo_data
from backend.embedded import backend_processes
from backend.errors import BackendError
from backend.label_studio import LabelStudioClient
from backend.oracle import Oracle
from backend.processes import LabelStudioProcess, label_studio_binary, start_label_studio
from backend.protocol import ProjectOut, ScoringOut
from backend.settings import Settings, from_env
from backend.store import Store
from backend.types import ControlTag
from backend.versions import Metrics, ModelVersion

EMAIL, PASSWORD = "demo@example.com", "active-learning"
POOL, TEST = 400, 100  # generated scenes
SCENE_PX, PHOTO_PX = 160, 320
POLL_S = 0.5
PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of annotating and retraining gave; metrics are of the served version on the test set."""

    labels: int
    version: str
    promoted: bool
    metrics: Metrics
    seconds: float
    ascending: bool  # Label Studio handed the tasks out by ascending priority score


def run(data: Path | None, rounds: int, *, stay: bool, folder: Path) -> None:
    """Run the demo; with `stay` it keeps everything up until Ctrl-C, without it ends with one summary line."""
    console = Console(soft_wrap=True)
    data_yaml, settings = _prepare(data, folder, console)
    with ExitStack() as stack:
        console.print("Starting Label Studio (its first start takes a minute) ...")
        studio = stack.enter_context(
            start_label_studio(label_studio_binary(), folder / "label-studio", email=EMAIL, password=PASSWORD)
        )
        settings = settings.model_copy(
            update={"label_studio_url": studio.url, "label_studio_api_key": studio.api_key, "port": 0}
        )
        url = stack.enter_context(backend_processes(settings, _environ(settings)))
        loop = _Loop(console, studio, settings, url, yolo_data.read(data_yaml), data_yaml)
        loop.attach()
        history = [loop.round() for _ in range(rounds)]
        console.print(f"\nLabel Studio: {studio.url}/projects/{loop.project_id}/data   login {EMAIL} / {PASSWORD}")
        console.print(f"Backend:      {url}/api/projects/{loop.project_id}")
        if stay:
            console.print("Everything stays up. Ctrl-C ends it.")
            _wait_for_interrupt()
    last = history[-1]
    order = "ascending" if all(each.ascending for each in history) else "NOT ascending"
    print(  # noqa: T201 the line that scripts read
        f"labels={last.labels} version={last.version} map50={last.metrics.map50:.3f} "
        f"first_map50={history[0].metrics.map50:.3f} queue={order}"
    )


def _prepare(data: Path | None, folder: Path, console: Console) -> tuple[Path, Settings]:
    """Empty the demo's folder, generate the scenes unless a data set is given, and choose settings that suit it."""
    if (folder / "label-studio").exists() or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    elif any(folder.iterdir()):
        raise BackendError(f"{folder} is not a demo's folder", where="--folder", fix="name an empty or new folder")
    folder.mkdir(parents=True, exist_ok=True)
    size = PHOTO_PX if data else SCENE_PX
    if data is None:
        console.print(f"Generating {POOL} scenes and a class-balanced test set of {TEST} ...")
        data = scenes.generate(folder / "scenes", pool=POOL, test=TEST, seed=0)
    elif not data.is_file():
        raise BackendError("no such data set", where=str(data), fix="name an ultralytics data.yaml")
    chosen = {"model_dir": str(folder / "models"), "imgsz": size, "retrain_every": 30, "train_steps": 400}
    return data, from_env({name.upper(): str(value) for name, value in chosen.items()} | dict(os.environ))


def _environ(settings: Settings) -> dict[str, str]:
    """Return the environment of the children: every setting that is not its default."""
    default = Settings()
    changed = {
        name.upper(): str(value)
        for name, value in settings.model_dump().items()
        if value != getattr(default, name) and name != "port"
    }
    return {**os.environ, **changed, "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING")}


class _Loop:
    """One demo project and its scripted annotator."""

    def __init__(
        self,
        console: Console,
        studio: LabelStudioProcess,
        settings: Settings,
        url: str,
        data: yolo_data.YoloData,
        data_yaml: Path,
    ) -> None:
        self._console = console
        self._client = LabelStudioClient(studio.url, studio.api_key)
        self._settings = settings
        self._url = url
        self._data = data
        self._test_set = dataset.write_test_set(data.val, data.classes, Path(settings.model_dir) / "test-set")
        self._oracle = Oracle(data.train)
        self._store = Store(settings.model_dir)
        config = _config(data.classes)
        self._tag: ControlTag = label_config.parse(config)[0]
        self.project_id = self._client.create_project(f"Active learning: {data_yaml.parent.name}", config)
        self._labels = 0

    def attach(self) -> None:
        """Upload the pool, attach the backend as LS's UI does, and wait until it has made the queue its own."""
        self._console.print(f"Uploading {len(self._data.train)} images into Label Studio ...")
        self._client.upload_images(self.project_id, [file.path for file in self._data.train])
        self._client.attach_backend(self.project_id, self._url, "yolo-backend")
        with _bar(self._console, "scoring the pool") as bar:
            deadline = time.monotonic() + PATIENCE_S
            while not self._client.project(self.project_id).model_version.endswith("-v0"):
                bar(self._status().scoring)
                _pause(deadline, "the backend did not set the project up")

    def round(self) -> Round:
        """Annotate RETRAIN_EVERY tasks from LS's own queue, wait for the new version, and measure it."""
        started = time.monotonic()
        trained = len(self._store.versions(self.project_id))
        ascending = self._annotate(self._settings.retrain_every)
        version = self._await_training(trained)
        self._await_queue()
        served = self._store.serving(self.project_id) or version
        metrics = self._measure(served)
        seconds = time.monotonic() - started
        self._console.print(
            f"labels {self._labels:4d}   {served.name}   mAP50 {metrics.map50:.3f}   mAP50-95 {metrics.map50_95:.3f}   "
            f"{seconds:.0f} s   {version.reason}"
        )
        return Round(self._labels, served.name, version.promoted, metrics, seconds, ascending)

    def _annotate(self, tasks: int) -> bool:
        """Answer `tasks` tasks from the queue; return whether their scores came in ascending order."""
        scores = []
        with _bar(self._console, "annotating") as bar:
            for done in range(tasks):
                task = self._client.next_task(self.project_id)
                if task is None:
                    break
                scores.append(self._score(task.id))
                self._client.annotate(task.id, self._oracle.answer(self._tag, task))
                self._labels += 1
                bar(ScoringOut(done=done + 1, total=tasks))
        return scores == sorted(scores)

    def _score(self, task_id: int) -> float:
        shown = self._client.project(self.project_id).model_version
        stored = [one.score for one in self._client.predictions_of(task_id) if one.version == shown]
        return min((score for score in stored if score is not None), default=1.0)

    def _await_training(self, trained: int) -> ModelVersion:
        with _bar(self._console, "training") as bar:
            deadline = time.monotonic() + PATIENCE_S
            while len(versions := self._store.versions(self.project_id)) <= trained:
                state = self._status().training
                if state.state == "failed":
                    raise BackendError(f"the training failed: {state.error}")
                bar(ScoringOut(done=round(100 * state.progress), total=100))
                _pause(deadline, "no training within the hour")
        return versions[-1]

    def _await_queue(self) -> None:
        """Wait until Label Studio's queue shows the accepted version."""
        with _bar(self._console, "re-ranking the queue") as bar:
            deadline = time.monotonic() + PATIENCE_S
            while (accepted := self._store.current(self.project_id)) and (
                self._client.project(self.project_id).model_version != accepted.name
            ):
                bar(self._status().scoring)
                _pause(deadline, "the queue did not flip")

    def _measure(self, version: ModelVersion) -> Metrics:
        weights = self._store.weights(version)
        return evaluation.evaluate(weights, self._test_set, self._settings.imgsz, self._settings.device)

    def _status(self) -> ProjectOut:
        response = httpx.get(f"{self._url}/api/projects/{self.project_id}", timeout=30)
        return ProjectOut.model_validate_json(response.raise_for_status().text)


def _config(classes: tuple[str, ...]) -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in classes)
    return (
        f'<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">{labels}'
        "</RectangleLabels></View>"
    )


@contextmanager
def _bar(console: Console, what: str) -> Iterator[_Report]:
    """Show a progress bar while the block runs; gives a function that takes how much is done of how much."""
    columns = (TextColumn("{task.description:22}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        yield _Report(progress, what)


class _Report:
    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None)

    def __call__(self, count: ScoringOut) -> None:
        self._progress.update(self._task, completed=count.done, total=count.total or None)


def _pause(deadline: float, complaint: str) -> None:
    if time.monotonic() > deadline:
        raise BackendError(complaint, fix="see the backend's log")
    time.sleep(POLL_S)


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
