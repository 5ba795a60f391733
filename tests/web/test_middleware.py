from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.loop.context import Context
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.subprocesses import free_port
from backend.web import bodies, middleware
from tests.support import CONFIG, open_context, publish, serve
from tests.world import await_true

JSON = {"content-type": "application/json"}
USER, PASSWORD = "studio", "pässword:with colon"
PATHS = [
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/versions"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/train"),
    ("GET", "/api/projects/7"),
    ("GET", "/no/such/path"),
    ("GET", "/health/"),
]


@pytest.fixture
def locked(settings: Settings) -> Iterator[Context]:
    with open_context(settings.model_copy(update={"basic_auth_user": USER, "basic_auth_pass": PASSWORD})) as context:
        yield context


@pytest.fixture
def client(locked: Context) -> Iterator[httpx.Client]:
    with serve(locked) as client:
        yield client


def basic(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


WRONG = {
    "none": {},
    "user": basic(user="other"),
    "password": basic(password="other"),
    "empty": basic("", ""),
    "bearer": {"authorization": "Bearer abc"},
    "not base64": {"authorization": "Basic ***"},
    "bare": {"authorization": "Basic"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_all_but_health_needs_the_password(client: httpx.Client, headers: dict[str, str]) -> None:
    for method, path in PATHS:
        answer = client.request(method, path, headers=headers | JSON)
        assert (path, answer.status_code) == (path, 401)
        assert "BASIC_AUTH_USER" in answer.json()["fix"]
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert PASSWORD not in answer.text


def test_the_right_password_opens(client: httpx.Client) -> None:
    answers = {path: client.request(method, path, headers=basic() | JSON).status_code for method, path in PATHS}
    assert answers == {
        **dict.fromkeys(["/", "/metrics", "/versions"], 200),
        **dict.fromkeys(["/setup", "/predict", "/train"], 400),
        **dict.fromkeys(["/api/projects/7", "/no/such/path"], 404),
        "/health/": 307,
    }


def test_health_is_open(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200


def test_no_user_no_password_asked(context: Context) -> None:
    with serve(context) as client:
        assert client.get("/versions").status_code == 200


@pytest.mark.parametrize(
    ("action", "headers", "status"),
    [
        ("TASKS_CREATED", {}, 401),
        ("TASKS_CREATED", {WEBHOOK_HEADER: "wrong"}, 401),
        ("TASKS_CREATED", basic(password="wrong"), 401),
        ("TASKS_CREATED", basic(), 201),
        ("TASKS_CREATED", {WEBHOOK_HEADER: "right"}, 201),
        ("START_TRAINING", {}, 401),
        ("START_TRAINING", {WEBHOOK_HEADER: "right"}, 401),
        ("START_TRAINING", basic(), 404),  # past the middleware; nobody set this project up
    ],
)
def test_webhooks_bring_the_secret_or_the_password(
    client: httpx.Client, locked: Context, action: str, headers: dict[str, str], status: int
) -> None:
    sent = {name: locked.store.secret() if value == "right" else value for name, value in headers.items()}
    answer = client.post("/webhook", json={"action": action, "project": {"id": 7}}, headers=sent)
    assert answer.status_code == status


def body_of(size: int) -> Iterator[bytes]:
    for start in range(0, size, 1000):
        yield b"x" * min(1000, size - start)


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/train"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_is_limited(context: Context, monkeypatch: pytest.MonkeyPatch, path: str, chunked: bool) -> None:
    monkeypatch.setattr(middleware, "MAX_BODY_BYTES", 5000)
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 5000)
    with serve(context) as client:

        def status(size: int) -> int:
            content = body_of(size) if chunked else b"x" * size
            answer = client.post(path, content=content, headers={"content-type": "application/json"})
            return answer.status_code

        assert status(5000) == 400  # past the middleware; not JSON
        assert status(5001) == 413
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/setup", 405)])
def test_unknown_paths_and_methods(context: Context, method: str, path: str, status: int) -> None:
    with serve(context) as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "where", "fix"}
    assert "docs/api.md" in answer.json()["fix"]


def test_a_bug_of_ours_is_logged_and_not_shown(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr("backend.loop.project_status.status", bug)
    with serve(context) as client:
        answer = client.get("/api/projects/7")
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal error"
    assert "secret detail" not in answer.text
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/train"])
@pytest.mark.parametrize("sent", [b"", b'{"tasks": [', b"x" * 300_000])
def test_a_client_that_hangs_up_is_no_bug(
    context: Context, caplog: pytest.LogCaptureFixture, path: str, sent: bytes
) -> None:
    """Before, the log had "POST /predict broke" at ERROR, with 80 lines of traceback."""
    caplog.set_level(logging.INFO)
    with serve(context) as client:
        address = (str(client.base_url.host), client.base_url.port or 0)
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 500000"]
        with socket.create_connection(address, 10) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
        client.get("/health").raise_for_status()
        await_true(lambda: any("hung up" in record.message for record in caplog.records), "the line of the log", 30)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert not any(record.exc_info for record in caplog.records)


def test_clients_do_not_see_where_things_lie(context: Context, tiny_weights: Path) -> None:
    """Before, answer and reason phrase had the absolute path of a damaged file."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    version = publish(context.store, 7, tiny_weights)
    for manifest in Path(context.settings.model_dir).rglob("manifest.json"):
        manifest.write_text("{")
    with open_context(context.settings) as fresh, serve(fresh) as client:
        answer = client.get("/api/projects/7")
    assert answer.status_code == 409
    assert "damaged" in answer.json()["error"]
    assert answer.json()["where"].startswith("MODEL_DIR/")
    assert context.settings.model_dir not in answer.text + answer.headers["x-error"]
    assert version.number == 1


def test_without_redis_predictions_go_on_and_hints_say_what_is_missing(settings: Settings) -> None:
    gone = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    with open_context(gone) as context, serve(context) as client:
        hint = {"action": "ANNOTATION_CREATED", "project": {"id": 7}}
        refused = client.post("/webhook", json=hint, headers={WEBHOOK_HEADER: context.store.secret()})
        task = {"id": 1, "data": {"image": "no such thing"}}
        body = {"tasks": [task], "project": "7.1", "label_config": CONFIG}
        context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
        (result,) = client.post("/predict", json=body).raise_for_status().json()["results"]
    assert refused.status_code == 503
    assert "redis does not answer" in refused.json()["error"]
    assert (result["result"], result["score"]) == ([], 1.0)
