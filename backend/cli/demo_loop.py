"""The demo's project, and the scripted annotator who labels in it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

import httpx

from backend.cli.demo_display import Display
from backend.cli.embedded import Backend
from backend.datasets import reader, writer
from backend.errors import BackendError
from backend.evaluation import basis
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient
from backend.model_versions import Metrics, ModelVersion
from backend.settings import Settings
from backend.simulate.annotator import Oracle
from backend.storage import local_folder
from backend.store.store import Store
from backend.types import ControlTag
from backend.web.status_schemas import ProjectOut
from backend.yolo import evaluate

POLL_S = 0.5
PATIENCE_S = 3600.0
_SEE_LOGS = "see the logs in the demo's folder"


@dataclass(frozen=True, slots=True)
class DemoRound:
    """The result of one round of annotating and retraining."""

    labels: int
    version: str  # the serving version; "": none is published yet
    metrics: Metrics | None  # of that version on the test set
    reason: str  # why the new version was published or rejected
    seconds: float
    ascending: bool  # Label Studio handed the tasks out by ascending priority score

    def line(self) -> str:
        """Return the round as a line for people."""
        shown = f"labels {self.labels:4d}   {self.version or 'no version yet'}"
        if self.metrics:
            shown += f"   {_tested(self.metrics)}"
        return f"{shown}   {self.seconds:.0f} s   {self.reason}"


def summary(rounds: Sequence[DemoRound]) -> str:
    """Return the line that scripts read.

    >>> last = DemoRound(30, "", None, "not published", 9.0, True)
    >>> summary([last])
    'labels=30 version=none map50=none first_map50=none map50_low=none map50_high=none test_images=0 queue=ascending'
    """
    first, last = rounds[0], rounds[-1]
    order = "ascending" if all(played.ascending for played in rounds) else "NOT ascending"
    return (
        f"labels={last.labels} version={last.version or 'none'} map50={_quality(last)} "
        f"first_map50={_quality(first)} {_basis(last)} queue={order}"
    )


def _tested(metrics: Metrics) -> str:
    """Return the figures of the test set for people."""
    if metrics.images < basis.MIN_JUDGED_IMAGES:
        return f"mAP50 {basis.on_test(metrics)}"
    return (
        f"mAP50 {basis.figure(metrics)}   mAP50-95 {basis.figure_50_95(metrics)} "
        f"on {metrics.images} test images, {metrics.boxes} labels"
    )


def _basis(played: DemoRound) -> str:
    """Return the interval of a quality, and how many images it was measured on."""
    metrics = played.metrics
    ends = metrics.interval if metrics and metrics.images >= basis.MIN_JUDGED_IMAGES else None
    low, high = (f"{end:.3f}" for end in ends) if ends else ("none", "none")
    return f"map50_low={low} map50_high={high} test_images={metrics.images if metrics else 0}"


def _quality(played: DemoRound) -> str:
    metrics = played.metrics
    return f"{metrics.map50:.3f}" if metrics and metrics.images >= basis.MIN_JUDGED_IMAGES else "none"


class Loop:
    """One demo project and its scripted annotator."""

    def __init__(
        self,
        display: Display,
        client: LabelStudioClient,
        settings: Settings,
        backend: Backend,
        data: reader.YoloData,
        project_id: int,
    ) -> None:
        self._display = display
        self._client = client
        self._settings = settings
        self._backend = backend
        self._data = data
        self._test_set = writer.write_test_set(data.val, data.classes, local_folder(settings.model_dir) / "test-set")
        self._oracle = Oracle(data.train)
        self._store = Store(settings.model_dir)
        self._tag: ControlTag = label_config.parse(config_of(data.classes))[0]
        self._labels = client.projects.labeled_count(project_id)
        self.project_id = project_id

    def attach(self) -> None:
        """Upload the pool, attach the backend as Label Studio's UI does, and wait until the queue shows its scores."""
        self._display.line(f"Uploading {len(self._data.train)} images into Label Studio ...")
        self._client.tasks.upload_images(self.project_id, [file.path for file in self._data.train])
        self._client.projects.attach_backend(self.project_id, self._backend.url, "yolo-backend")
        with self._display.progress("scoring the pool") as report:
            deadline = time.monotonic() + PATIENCE_S
            while not self._client.projects.get(self.project_id).model_version.endswith("-v0"):
                scoring = self._status().scoring
                report(scoring.done, scoring.total)
                self._pause(deadline, "the backend did not set the project up")

    def round(self) -> DemoRound | None:
        """Annotate RETRAIN_EVERY tasks from LS's queue, wait for the new version, and measure the serving version.

        Returns None if fewer tasks than that are left.
        """
        tasks = self._settings.retrain_every
        if len(self._data.train) - self._labels < tasks:
            return None
        started = time.monotonic()
        trained = len(self._store.versions(self.project_id))
        ascending = self._annotate(tasks)
        version = self._await_training(trained)
        self._await_queue()
        served = self._store.serving(self.project_id)
        played = DemoRound(
            self._labels,
            served.name if served else "",
            self._measure(served) if served else None,
            version.reason,
            time.monotonic() - started,
            ascending,
        )
        self._display.line(played.line())
        return played

    def _annotate(self, tasks: int) -> bool:
        """Annotate `tasks` tasks from the queue; return whether they came in ascending order of their scores."""
        scores = []
        with self._display.progress("annotating") as report:
            for done in range(tasks):
                task = self._client.tasks.next(self.project_id)
                if task is None:
                    raise BackendError("Label Studio's queue is empty", fix="see whether somebody else labels there")
                scores.append(self._score(task.id))
                self._client.annotations.create(task.id, self._oracle.answer(self._tag, task))
                self._labels += 1
                report(done + 1, tasks)
        return scores == sorted(scores)

    def _score(self, task_id: int) -> float:
        version = self._client.projects.get(self.project_id).model_version
        stored = [
            prediction.score
            for prediction in self._client.predictions.of_task(task_id)
            if prediction.version == version
        ]
        return min((score for score in stored if score is not None), default=1.0)

    def _await_training(self, trained: int) -> ModelVersion:
        with self._display.progress("training") as report:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                # In this order: the store has a version a moment before it is accepted, while the training still runs.
                versions, state = self._store.versions(self.project_id), self._status().training
                if len(versions) > trained and state.state != "running":
                    return versions[-1]
                if state.state == "failed":
                    raise BackendError(f"the training failed: {state.error}", fix=_SEE_LOGS)
                report(round(100 * state.progress), 100)
                self._pause(deadline, "no training within the hour")

    def _await_queue(self) -> None:
        """Wait until Label Studio's queue shows the accepted version."""
        with self._display.progress("re-ranking the queue") as report:
            deadline = time.monotonic() + PATIENCE_S
            while (accepted := self._store.current(self.project_id)) and (
                self._client.projects.get(self.project_id).model_version != accepted.name
            ):
                scoring = self._status().scoring
                report(scoring.done, scoring.total)
                self._pause(deadline, "the queue did not flip")

    def _pause(self, deadline: float, complaint: str) -> None:
        """Wait a moment. Raises BackendError with `complaint` after the deadline, or when a process ends too often."""
        if time.monotonic() > deadline:
            raise BackendError(complaint, fix=_SEE_LOGS)
        self._backend.look()
        time.sleep(POLL_S)

    def _measure(self, version: ModelVersion) -> Metrics:
        weights = self._store.weights(version, version.models[0].from_name)
        return evaluate.evaluate(weights, self._test_set, self._settings.imgsz, self._settings.device)

    def _status(self) -> ProjectOut:
        url = self._backend.url
        try:
            response = httpx.get(f"{url}/api/projects/{self.project_id}", timeout=30).raise_for_status()
        except httpx.HTTPError as error:
            raise BackendError(f"the backend does not answer: {error}", where=url, fix=_SEE_LOGS) from None
        return ProjectOut.model_validate_json(response.text)


def config_of(classes: Sequence[str]) -> str:
    """Return a label config with a RectangleLabels tag of these labels."""
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">{labels}'
        "</RectangleLabels></View>"
    )


def environ_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for the backend's processes, with every setting that differs from its default."""
    default = Settings()
    changed = {
        name.upper(): str(value)
        for name, value in settings.model_dump().items()
        if value != getattr(default, name) and name != "port"
    }
    return {**environ, **changed, "LOG_LEVEL": environ.get("LOG_LEVEL", "WARNING")}
