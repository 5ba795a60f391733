from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.loop.context import Context
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.queue.rq_queue import QUEUES
from backend.queue.run_state import LabelCounts
from backend.types import Json
from backend.web import app
from tests.support import CONFIG, ImageSite, publish, serve

SETUP: Json = {
    "project": "7.1700000000",
    "schema": CONFIG,
    "hostname": "http://studio.example",
    "access_token": "dead",
    "extra_params": None,
}


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    with serve(context) as client:
        yield client


@pytest.fixture
def queued(redis: Redis) -> Any:
    """Return the waiting jobs, as "name(arguments)"."""

    def jobs() -> list[str]:
        waiting = [job for name in QUEUES for job in Queue(name, connection=redis, serializer=JSONSerializer).jobs]
        return sorted(f"{job.func_name.removeprefix('backend.worker.jobs.')}{tuple(job.args)}" for job in waiting)

    return jobs


def predict(client: httpx.Client, *tasks: Any, **fields: Any) -> list[Json]:
    body = {"tasks": list(tasks), "project": "7.1700000000", "label_config": CONFIG, "params": {"context": None}}
    answer = client.post("/predict", json=body | fields)
    assert answer.status_code == 200, answer.text
    results: list[Json] = answer.json()["results"]
    return results


def webhook(client: httpx.Client, context: Context, action: str, **fields: Any) -> Any:
    headers = {WEBHOOK_HEADER: context.store.secret()}
    return client.post("/webhook", json={"action": action, "project": {"id": 7}} | fields, headers=headers)


# ── up, metrics, versions ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/health"])
def test_up(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "UP")


def test_metrics_can_be_parsed_and_count(client: httpx.Client, context: Context) -> None:
    def value(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = [s for family in families for s in family.samples if s.name == name and s.labels == labels]
        return samples[0].value if samples else 0.0

    before = {
        "health": value("yolo_backend_request_seconds_count", path="/health", status="200"),
        "bad": value("yolo_backend_request_seconds_count", path="/setup", status="400"),
        "other": value("yolo_backend_request_seconds_count", path="other", status="404"),
        "hook": value("yolo_backend_webhooks_total", action="unknown"),
    }
    client.get("/health")
    client.post("/setup", json={})
    client.get("/some/path/of/a/stranger")
    webhook(client, context, "A_STRANGERS_ACTION")
    webhook(client, context, "TASKS_CREATED")
    assert value("yolo_backend_request_seconds_count", path="/health", status="200") == before["health"] + 1
    assert value("yolo_backend_request_seconds_count", path="/setup", status="400") == before["bad"] + 1
    assert value("yolo_backend_request_seconds_count", path="other", status="404") == before["other"] + 1
    assert value("yolo_backend_webhooks_total", action="unknown") == before["hook"] + 1
    assert value("yolo_backend_queue_depth") == 2


def test_versions_are_those_that_were_published(client: httpx.Client, context: Context, tiny_weights: Path) -> None:
    assert client.get("/versions").json() == {"versions": []}
    client.post("/setup", json=SETUP)
    client.post("/setup", json=SETUP | {"project": "8"})
    for project, promoted in ((7, True), (7, False), (7, True), (8, True)):
        publish(context.store, project, tiny_weights, promoted=promoted)
    assert client.get("/versions").json() == {"versions": ["yolo11n-v1", "yolo11n-v3"]}
    assert client.get("/versions", params={"project": "8.17"}).json() == {"versions": ["yolo11n-v1"]}
    assert client.get("/versions", params={"project": "²"}).status_code == 200
    assert client.get("/versions", params={"project": "9" * 30}).json() == {"versions": []}
    assert [client.get("/versions", params={"project": "9" * count}).status_code for count in (300, 5000)] == [422, 422]


# ── setup ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("change", [{"schema": CONFIG.replace("dog", "bird")}, {"extra_params": '{"IMGSZ": 96}'}])
def test_a_setup_that_brings_something_else_has_the_stored_predictions_looked_at(
    client: httpx.Client, queued: Any, change: Json
) -> None:
    for body in (SETUP, SETUP):
        client.post("/setup", json=body)
        assert queued() == ["configure(7,)"]
    for _ in range(2):
        client.post("/setup", json=SETUP | change)
        assert queued() == ["configure(7,)", "reconcile()"]


def test_setup_answers_the_version_that_predicts(
    client: httpx.Client, context: Context, tiny_weights: Path, images: ImageSite, queued: Any
) -> None:
    assert client.post("/setup", json=SETUP).json() == {"model_version": "yolo11n-v0"}
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    assert client.post("/setup", json=SETUP).json() == {"model_version": "yolo11n-v1"}
    (result,) = predict(client, {"id": 1, "data": {"image": images.add("a.png")}})
    assert result["model_version"] == "yolo11n-v1"
    assert queued() == ["configure(7,)"]
    record = context.store.project(7)
    assert record is not None
    assert (record.backend_url, record.hostname) == (str(client.base_url).rstrip("/"), "http://studio.example")


@pytest.mark.parametrize("extra", ['{"RETRAIN_EVERY": 5}', {"retrain_every": 5}])
def test_extra_params_may_be_text_or_an_object(client: httpx.Client, extra: object) -> None:
    assert client.post("/setup", json=SETUP | {"extra_params": extra}).status_code == 200
    assert client.get("/api/projects/7").json()["retrain_every"] == 5


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"extra_params": '{"RETRAIN": 5}'}, 400, "RETRAIN"),
        ({"extra_params": {"STRATEGY": "hardest"}}, 400, "hardest"),
        ({"extra_params": "{"}, 400, "not JSON"),
        ({"schema": "<View><Text name='t' value='$t'/></View>"}, 400, "no control tag"),
        ({"schema": "<View>"}, 400, "not XML"),
        ({"schema": CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="a.pt"')}, 409, "a.pt"),
        ({"schema": None}, 400, "schema"),
        ({"project": "seven"}, 400, "project"),
        ({"project": ""}, 400, "project"),
    ],
)
def test_a_refused_setup_says_why_and_changes_nothing(
    client: httpx.Client, context: Context, change: Json, status: int, named: str
) -> None:
    client.post("/setup", json=SETUP)
    before = context.store.project(7)
    answer = client.post("/setup", json=SETUP | change)
    assert answer.status_code == status
    body = answer.json()
    assert named in body["error"]
    assert body["fix"]
    assert named in answer.headers["x-error"]  # becomes the reason phrase
    assert context.store.project(7) == before


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/train"])
@pytest.mark.parametrize("content", [b"", b"not json", b"[1, 2]", b"null", b"\xff\xfe", b'{"tasks": '])
def test_a_body_that_is_no_json_object(client: httpx.Client, path: str, content: bytes) -> None:
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "where", "fix"}
    assert answer.json()["where"] == path


@pytest.mark.parametrize(
    ("path", "body", "missing"),
    [
        ("/setup", {"schema": CONFIG}, "project"),
        ("/setup", {"project": 7}, "schema"),
        ("/predict", {"label_config": CONFIG}, "tasks"),
        ("/predict", {"tasks": []}, "label_config"),
        ("/predict", {"tasks": [{"id": 1}], "label_config": CONFIG}, "tasks.0.data"),
        ("/predict", {"tasks": [{"data": {}}, {"data": "x"}], "label_config": CONFIG}, "tasks.1.data"),
        ("/predict", {"tasks": [{"id": 2**64, "data": {}}], "label_config": CONFIG}, "tasks.0.id"),
        ("/webhook", {"project": {"id": 7}}, "action"),
        ("/webhook", {"action": "TASKS_CREATED"}, "project"),
        ("/train", {}, "project"),
    ],
)
def test_what_is_missing_is_named(client: httpx.Client, path: str, body: Json, missing: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{missing}: ")


# ── predict ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_as_many_results_as_tasks_in_order_whatever_fails(
    client: httpx.Client, context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    client.post("/setup", json=SETUP)
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    (images.folder / "text.jpg").write_text("no image")
    tasks: list[Mapping[str, Any]] = [
        {"id": 1, "data": {"image": images.add("1.png", 1, (41, 50))}, "annotations": [], "meta": {}},
        {"id": 2, "data": {"image": f"{images.url}/404.jpg"}},
        {"id": 3, "data": None},
        {"id": 4, "data": {"image": images.add("4.png", 4, (44, 50))}},
        {"id": 5, "data": {"image": f"{images.url}/text.jpg"}},
        {"id": 6, "data": {}},
        {"data": {"image": images.add("7.png", 7, (47, 50))}},
    ]
    results = predict(client, *tasks)
    widths = [result["result"][0]["original_width"] if result["result"] else None for result in results]
    assert widths == [41, None, None, 44, None, None, 47]
    assert [result["score"] == 1.0 for result in results] == [width is None for width in widths]
    assert all(result["model_version"] == "yolo11n-v1" for result in results)
    failures = client.get("/api/projects/7").json()["failures"]
    assert set(failures) == {"2", "3", "5", "6"}
    assert "404" in failures["2"]
    (alone,) = predict(client, tasks[3], project="7", params={})
    assert [region["id"] for region in alone["result"]] == [region["id"] for region in results[3]["result"]]


@pytest.mark.parametrize("project", [None, "", "12345.1", 12345, {"id": 12345}])
def test_a_project_nobody_set_up(
    client: httpx.Client, context: Context, tiny_weights: Path, images: ImageSite, project: object
) -> None:
    (Path(context.settings.model_dir) / "yolo11n.pt").write_bytes(tiny_weights.read_bytes())
    (result,) = predict(client, {"id": 1, "data": {"image": images.add("a.png")}}, project=project)
    assert result["result"]
    assert result["model_version"] == "yolo11n-v0"


def test_no_tasks_no_results(client: httpx.Client) -> None:
    assert predict(client) == []


def test_a_label_config_we_cannot_predict_is_the_callers_error(client: httpx.Client) -> None:
    answer = client.post("/predict", json={"tasks": [{"data": {}}], "label_config": "<View/>"})
    assert (answer.status_code, answer.json()["error"]) == (400, "no control tag that this backend can predict")


# ── webhooks and training ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("action", "jobs"),
    [
        ("ANNOTATION_CREATED", ["check(7,)"]),
        ("ANNOTATIONS_CREATED", ["check(7,)"]),
        ("ANNOTATION_UPDATED", ["check(7,)"]),
        ("ANNOTATIONS_DELETED", ["check(7,)", "score_new(7,)"]),
        ("TASKS_CREATED", ["check(7,)", "score_new(7,)"]),
        ("TASKS_DELETED", ["check(7,)", "score_new(7,)"]),
        ("PROJECT_UPDATED", []),
    ],
)
def test_a_webhook_becomes_a_job(
    client: httpx.Client, context: Context, queued: Any, action: str, jobs: list[str]
) -> None:
    for _ in range(3):  # several hints give one job
        assert webhook(client, context, action).status_code == 201
    assert queued() == jobs


def test_an_unknown_action_is_ignored(client: httpx.Client, context: Context, queued: Any) -> None:
    answer = webhook(client, context, "SOMETHING_NEW")
    assert answer.status_code == 200
    assert "SOMETHING_NEW" in answer.json()["detail"]
    assert queued() == []


@pytest.mark.parametrize("headers", [{}, {WEBHOOK_HEADER: "wrong"}, {WEBHOOK_HEADER: "wröng".encode("latin-1")}])
def test_a_webhook_without_the_secret(client: httpx.Client, queued: Any, headers: dict[str, Any]) -> None:
    answer = client.post("/webhook", json={"action": "TASKS_CREATED", "project": {"id": 7}}, headers=headers)
    assert answer.status_code == 401
    assert WEBHOOK_HEADER in answer.json()["error"]
    assert queued() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [("/webhook", {"action": "START_TRAINING", "project": {"id": 7}}), ("/train", {"project": "7.17"})],
)
def test_start_training(client: httpx.Client, queued: Any, path: str, body: Json) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 404
    assert "never set up" in answer.json()["error"]
    client.post("/setup", json=SETUP)
    for _ in range(2):
        assert client.post(path, json=body).status_code == 201
    assert [job for job in queued() if job.startswith("retrain(7,")] == ["retrain(7, 1)"]
    assert client.get("/api/projects/7").json()["training"]["state"] == "queued"


# ── the status ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_status_of_a_project(client: httpx.Client, context: Context, tiny_weights: Path) -> None:
    client.post("/setup", json=SETUP)
    publish(context.store, 7, tiny_weights)
    publish(context.store, 7, tiny_weights, promoted=False)
    context.progress.set_counts(7, LabelCounts(100, 30, 10, 4))
    run = context.progress.start_scoring(7, 1, 2, 70)
    context.progress.shard_done(7, run, 0, 50)
    status = client.get("/api/projects/7").json()
    assert status["project"] == 7
    assert status["version"] == "yolo11n-v0"  # version 1 serves once its scores are in Label Studio
    assert status["counts"] == {"tasks": 100, "labeled": 30, "new": 10, "waiting": 4}
    assert status["retrain_every"] == 20
    assert {"state", "stage", "progress", "eta_s", "error"} <= set(status["training"])
    assert status["scoring"] == {"done": 50, "total": 70}
    assert [(v["version"], v["map50"], v["promoted"]) for v in status["versions"]] == [
        ("yolo11n-v1", 0.5, True),
        ("yolo11n-v2", 0.5, False),
    ]
    assert {"map50_95", "images", "boxes", "created", "reason"} <= set(status["versions"][0])
    assert (status["versions"][0]["labels"], status["versions"][0]["judged_on"]) == (
        1,
        {
            "images": 12,
            "boxes": 20,
            "interval": [0.4, 0.6],
            "interval_50_95": None,
            "quality": "0.500 [0.400, 0.600] on 12 held-out images, 20 labels",
        },
    )
    (tag_status,) = status["versions"][0]["tags"]
    assert (tag_status["task"], tag_status["map50"], tag_status["carried"]) == ("detect", 0.5, False)
    json.dumps(status, allow_nan=False)


@pytest.mark.parametrize(
    ("project", "status"), [("9", 404), ("abc", 422), ("-1", 422), ("9" * 300, 422), ("9" * 5000, 422)]
)
def test_the_status_of_an_unknown_project(client: httpx.Client, project: str, status: int) -> None:
    answer = client.get(f"/api/projects/{project}")
    assert answer.status_code == status
    assert answer.json()["fix"]


def test_every_known_action_has_a_meaning() -> None:
    assert app.KNOWN_ACTIONS >= app.LABEL_ACTIONS | app.TASK_ACTIONS | app.IDLE_ACTIONS
    assert not app.IDLE_ACTIONS & (app.LABEL_ACTIONS | app.TASK_ACTIONS)
