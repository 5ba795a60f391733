"""YoloBackend under label-studio-ml's own server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from label_studio_ml.api import init_app
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.errors import NotFoundError, RequestError
from backend.loop.context import Context
from backend.queue.rq_queue import CONTROL, TRAIN
from backend.types import Json
from backend.web.ml_backend_plugin import YoloBackend
from tests.support import CONFIG, ImageSite, publish, serve

SETUP: Json = {"project": "7.1700000000", "schema": CONFIG, "hostname": "http://studio.example", "access_token": "x"}


@pytest.fixture
def theirs(context: Context, tmp_path: Path) -> Iterator[Any]:
    app = init_app(YoloBackend, model_dir=str(tmp_path / "jobs"), context=context)
    with app.test_client() as client:
        yield client


@pytest.fixture
def backend(context: Context) -> YoloBackend:
    return YoloBackend(label_config=CONFIG, context=context)


def waiting(redis: Redis, name: str) -> list[tuple[str, list[Any]]]:
    return [(job.func_name, job.args) for job in Queue(name, connection=redis, serializer=JSONSerializer).jobs]


def test_their_server_and_ours_predict_the_same(
    theirs: Any, context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    tasks = [{"id": n, "project": 7, "data": {"image": images.add(f"{n}.png", n)}} for n in range(1, 5)]
    tasks[1:1] = [{"id": 9, "project": 7, "data": {"image": f"{images.url}/404.png"}}]
    with serve(context) as ours:
        ours.post("/setup", json=SETUP)
        context.store.activate(7, publish(context.store, 7, tiny_weights).number)
        body = {"tasks": tasks, "project": "7.17", "label_config": CONFIG, "params": {"context": None}}
        expected = ours.post("/predict", json=body).json()["results"]
    assert theirs.post("/setup", json=SETUP).status_code == 200
    answer = theirs.post("/predict", json=body)
    assert answer.status_code == 200
    assert answer.json["results"] == expected
    assert [bool(result["result"]) for result in expected] == [True, False, True, True, True]
    assert {result["model_version"] for result in expected} == {"yolo11n-v1"}


def test_their_server_and_ours_answer_a_smart_tool_alike(
    theirs: Any, context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    value = {"x": 5, "y": 5, "width": 90, "height": 90, "rotation": 0, "rectanglelabels": ["dog"]}
    drawn = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    tasks = [{"id": 1, "project": 7, "data": {"image": images.add("a.png")}}]
    with serve(context) as ours:
        ours.post("/setup", json=SETUP)
        context.store.activate(7, publish(context.store, 7, tiny_weights).number)
        params = {"context": {"result": [drawn]}}
        body = {"tasks": tasks, "project": "7.17", "label_config": CONFIG, "params": params}
        (expected,) = ours.post("/predict", json=body).json()["results"]
    theirs.post("/setup", json=SETUP)
    (answer,) = theirs.post("/predict", json=body).json["results"]
    assert answer["result"] == expected["result"]
    assert [region["id"] for region in answer["result"]] == ["r1"]


def test_tasks_without_id_project_or_data(
    backend: YoloBackend, context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    (Path(context.settings.model_dir) / "yolo11n.pt").write_bytes(tiny_weights.read_bytes())
    assert backend.predict([]) == []
    predicted, empty, missing = backend.predict([{"data": {"image": images.add("a.png")}}, {"data": None}, {}])
    assert predicted["result"]
    assert (empty["result"], empty["score"]) == (missing["result"], missing["score"]) == ([], 1.0)


def test_events_are_hints(backend: YoloBackend, redis: Redis) -> None:
    for event in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
        assert backend.fit(event, {"project": {"id": 7}, "annotation": {}}) == {}
    backend.process_event("ANNOTATIONS_DELETED", {"project": {"id": 8}}, "job", {})
    assert waiting(redis, CONTROL) == [("backend.worker.jobs.check", [7]), ("backend.worker.jobs.check", [8])]


def test_start_training(backend: YoloBackend, context: Context, redis: Redis, theirs: Any) -> None:
    with pytest.raises(NotFoundError, match="never set up"):
        backend.fit("START_TRAINING", {"project": {"id": 7}})
    with serve(context) as ours:
        ours.post("/setup", json=SETUP)
    backend.fit("START_TRAINING", {"project": {"id": 7}})
    assert waiting(redis, TRAIN) == [("backend.worker.jobs.retrain", [7, 1])]


@pytest.mark.parametrize("data", [{}, {"project": None}, {"project": {}}, {"project": ""}])
def test_an_event_without_a_project(backend: YoloBackend, data: Json) -> None:
    with pytest.raises(RequestError, match="names no project"):
        backend.fit("ANNOTATION_CREATED", data)


def test_the_context_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert YoloBackend(label_config=CONFIG).context.settings.model_dir == str(tmp_path)
