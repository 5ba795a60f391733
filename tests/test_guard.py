from __future__ import annotations

import base64
import logging
from collections.abc import Iterator

import httpx
import pytest

from backend import guard
from backend.context import Context
from backend.processes import free_port
from backend.projects import WEBHOOK_HEADER
from backend.settings import Settings
from backend.store import ProjectRecord
from tests.support import CONFIG, open_context, serve

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
        answer = client.request(method, path, headers=headers)
        assert (path, answer.status_code) == (path, 401)
        assert "BASIC_AUTH_USER" in answer.json()["fix"]
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert PASSWORD not in answer.text


def test_the_right_password_opens(client: httpx.Client) -> None:
    answers = {path: client.request(method, path, headers=basic()).status_code for method, path in PATHS}
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
        ("START_TRAINING", basic(), 404),  # let in; nobody set this project up
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
    monkeypatch.setattr(guard, "MAX_BODY_BYTES", 5000)
    with serve(context) as client:

        def status(size: int) -> int:
            answer = client.post(path, content=body_of(size) if chunked else b"x" * size)
            return answer.status_code

        assert status(5000) == 400  # not JSON, but let in
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

    monkeypatch.setattr("backend.projects.status", bug)
    with serve(context) as client:
        answer = client.get("/api/projects/7")
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal error"
    assert "secret detail" not in answer.text
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


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
