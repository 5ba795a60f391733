"""The latency of the server's answers to Label Studio while the same machine trains, and lost webhooks."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from backend.cli.embedded import backend_processes
from backend.cli.label_studio_process import label_studio_binary, start_label_studio
from backend.datasets import reader, synthetic
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.settings import Settings
from backend.simulate.annotator import Oracle
from backend.store.store import Store
from backend.web.status_schemas import ProjectOut
from tests.benchmarks import parts
from tests.benchmarks.report import Result
from tests.benchmarks.timing import percentile

TASKS, LABELED, LATE = 60, 30, 3  # LATE are labeled while the load runs
RATE, SECONDS = 20.0, 30.0  # requests per second to each of the paths
LIMITS_MS = {"/health": 100.0, "/setup": 300.0, "/webhook": 100.0}
NEVER = 86_400.0
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request as Label Studio sends it."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call; seconds count from when it was due, so that a stalled server is seen in full."""

    path: str
    seconds: float
    status: int  # 0: no answer


def run(folder: Path) -> list[Result]:
    """Send the same load to an idle backend and to one that trains."""
    with _backend(folder / "latency") as bench:
        idle = bench.load()
        bench.train()
        training = bench.load(during=bench.label_more)
        assert bench.status().training.state == "running", "the training ended before the load did: raise TRAIN_STEPS"
        lost = bench.lost([*idle, *training])
    return [*_results(idle, training), lost]


def _results(idle: Sequence[Answer], training: Sequence[Answer]) -> Iterator[Result]:
    for path, limit in LIMITS_MS.items():
        before, meanwhile = (
            [answer.seconds * 1000 for answer in answers if answer.path == path] for answers in (idle, training)
        )
        details = {
            "p50 ms": percentile(meanwhile, 50),
            "idle p50 ms": percentile(before, 50),
            "idle p99 ms": percentile(before, 99),
            "requests": float(len(meanwhile)),
        }
        title = f"p99 of {path} at {RATE:g} requests/s during a training"
        yield Result("latency", title, percentile(meanwhile, 99), limit, "ms", at_most=True, details=details)


class _Bench:
    """A project of a real Label Studio with the whole backend attached; only our load brings it webhooks."""

    def __init__(
        self, client: LabelStudioClient, url: str, project_id: int, store: Store, data: reader.YoloData
    ) -> None:
        self._client, self._url, self._project_id, self._store = client, url, project_id, store
        self._oracle = Oracle(data.train)
        self._tag = label_config.parse(parts.CONFIG)[0]
        self._labels = 0

    def load(self, during: Callable[[], None] = lambda: None) -> list[Answer]:
        """Send RATE requests per second to each path for SECONDS; run `during` in the middle of it."""
        calls = self._calls()
        due = [place / (RATE * len(calls)) for place in range(int(RATE * len(calls) * SECONDS))]
        host = urlsplit(self._url).netloc
        start = time.perf_counter()
        middle = threading.Timer(SECONDS / 2, during)
        middle.start()
        with ThreadPoolExecutor(64) as pool:
            waiting = []
            for place, offset in enumerate(due):
                time.sleep(max(start + offset - time.perf_counter(), 0))
                waiting.append(pool.submit(_send, host, calls[place % len(calls)], start + offset))
            answers = [request.result() for request in waiting]
        middle.join()
        return answers

    def train(self) -> None:
        """Start a training and wait until its epochs run."""
        forced = json.dumps({"action": "START_TRAINING", "project": {"id": self._project_id}})
        httpx.post(f"{self._url}/webhook", content=forced, headers=self._secret(), timeout=30).raise_for_status()
        self._await(lambda status: status.training.epoch > 0, "no training began")

    def label(self, count: int) -> None:
        """Label tasks as an annotator does."""
        for task in list(self._client.tasks.unlabeled(self._project_id))[:count]:
            self._client.annotations.create(task.id, self._oracle.answer(self._tag, task))
            self._labels += 1

    def label_more(self) -> None:
        """Label a few more tasks; nothing but the webhooks of the load tells the backend of them."""
        self.label(LATE)

    def lost(self, answers: Sequence[Answer]) -> Result:
        """Count requests without a good answer, and require that the hints made the backend see every label."""
        self._await(lambda status: status.counts is not None and status.counts.labeled == self._labels, "labels unseen")
        lines = httpx.get(f"{self._url}/metrics", timeout=30).text.splitlines()
        counted = sum(float(line.split()[-1]) for line in lines if _HINTS in line)
        sent = Counter(answer.path for answer in answers)["/webhook"]
        failed = sum(not 200 <= answer.status < 300 for answer in answers)
        details = {"requests": float(len(answers)), "failed": float(failed), "webhooks": sent, "counted": counted}
        value = failed + abs(counted - sent)
        return Result("latency", "requests or webhooks lost", value, 0, "", at_most=True, details=details)

    def status(self) -> ProjectOut:
        answer = httpx.get(f"{self._url}/api/projects/{self._project_id}", timeout=30)
        return ProjectOut.model_validate_json(answer.raise_for_status().text)

    def configured(self) -> None:
        """Wait until the queue is ours, then silence Label Studio's own webhook: hints come from the load alone."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._client.projects.get(self._project_id).model_version.endswith("-v0"):
            assert time.monotonic() < deadline, "the backend did not set the project up"
            time.sleep(0.5)
        for hook in self._client.http.get("/api/webhooks/", project=self._project_id):
            self._client.http.send("DELETE", f"/api/webhooks/{hook['id']}/")

    def _await(self, done: Callable[[ProjectOut], bool], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done(self.status()):
            assert time.monotonic() < deadline, complaint
            time.sleep(0.5)

    def _calls(self) -> list[Call]:
        record = self._store.project(self._project_id)
        assert record is not None
        setup = {
            "project": f"{self._project_id}.1700000000",
            "schema": record.label_config,
            "hostname": record.hostname,
            "extra_params": record.extra_params,
        }
        task = next(self._client.annotations.annotated_tasks(self._project_id))
        hint = {
            "action": "ANNOTATION_CREATED",
            "project": self._client.http.get(f"/api/projects/{self._project_id}/"),
            "task": {"id": task.task.id, "data": task.task.data},
            "annotation": {"id": task.annotation_id, "result": task.result, "was_cancelled": False},
        }
        return [
            Call("GET", "/health", b"", {}),
            Call("POST", "/setup", json.dumps(setup).encode(), {"Content-Type": "application/json"}),
            Call("POST", "/webhook", json.dumps(hint).encode(), self._secret()),
        ]

    def _secret(self) -> dict[str, str]:
        return {WEBHOOK_HEADER: self._store.secret(), "Content-Type": "application/json"}


_HINTS = 'yolo_backend_webhooks_total{action="ANNOTATION_CREATED"}'


@contextmanager
def _backend(folder: Path) -> Iterator[_Bench]:
    data_yaml = synthetic.generate(folder / "data", pool=TASKS, test=1, seed=2)
    data = reader.read(data_yaml)
    with ExitStack() as stack:
        studio = stack.enter_context(
            start_label_studio(
                label_studio_binary(),
                folder / "label-studio",
                email="bench@example.com",
                password="a-bench-password",
            )
        )
        client = stack.enter_context(LabelStudioClient(studio.url, studio.api_key))
        settings = Settings(model_dir=str(folder / "models"), host="127.0.0.1", port=0)
        environ = {
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": studio.api_key,
            "MODEL_DIR": settings.model_dir,
            "IMGSZ": "160",
            "RETRAIN_EVERY": "100000",  # only we start a training,
            "TRAIN_STEPS": "100000",
            "MAX_EPOCHS": "100000",  # and it outlasts the load
            "RECONCILE_S": str(NEVER),  # and nothing but a webhook makes a check
            "DEVICE": "cpu",
            "LOG_LEVEL": "WARNING",
        }
        url = stack.enter_context(backend_processes(settings, os.environ | environ)).url
        project_id = client.projects.create("latency", parts.CONFIG)
        client.tasks.upload_images(project_id, [file.path for file in data.train])
        client.projects.attach_backend(project_id, url, "yolo-backend")
        bench = _Bench(client, url, project_id, Store(settings.model_dir), data)
        bench.configured()
        bench.label(LABELED)
        yield bench


def _send(host: str, call: Call, due: float) -> Answer:
    """Send one request over a connection of its own, as Label Studio does."""
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request(call.method, call.path, call.body or None, call.headers)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except OSError:
        status = 0
    finally:
        connection.close()
    return Answer(call.path, time.perf_counter() - due, status)
