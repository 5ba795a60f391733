"""Refused: pages of other sites, unknown host names, and requests from other machines without a password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli import startup
from backend.errors import SettingError
from backend.loop.context import Context
from backend.queue.rq_queue import QUEUES
from backend.settings import Settings, from_env
from backend.types import Json
from tests.browser import chromium_page
from tests.support import CONFIG, ImageSite, open_context, serve

SETUP: Json = {"project": "7.17", "schema": CONFIG, "hostname": "", "extra_params": None}
SENT: list[tuple[str, Json]] = [
    ("/setup", SETUP),
    ("/train", {"project": "7.17"}),
    ("/webhook", {"action": "START_TRAINING", "project": {"id": 7}}),
    ("/predict", {"tasks": [], "label_config": "<View/>"}),
]
OURS = ["localhost:9090", "127.0.0.1:9090", "[::1]:9090", "backend:9090", "host.docker.internal:9090", "LOCALHOST"]
STRANGE = ["evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example:9090", "rebind.network"]


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    with serve(context) as client:
        yield client


def jobs(redis: Redis) -> int:
    return sum(Queue(name, connection=redis, serializer=JSONSerializer).count for name in QUEUES)


@pytest.mark.parametrize(("path", "body"), SENT)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_what_a_form_can_send_is_refused(
    client: httpx.Client, context: Context, redis: Redis, path: str, body: Json, kind: str | None
) -> None:
    """A browser sends these to any site without a preflight; before, the server accepted all four with 200 and 201."""
    content = httpx.Request("POST", "http://x", json=body).content
    answer = client.post(path, content=content, headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["fix"]
    assert context.store.project(7) is None
    assert jobs(redis) == 0


@pytest.mark.parametrize(("path", "body"), SENT)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8080", "https://127.0.0.1"])
def test_a_page_of_another_site_is_refused(client: httpx.Client, path: str, body: Json, origin: str) -> None:
    assert client.post(path, json=body, headers={"origin": origin}).status_code == 403
    own = str(client.base_url).rstrip("/")
    assert client.post(path, json=body, headers={"origin": own}).status_code != 403


@pytest.mark.parametrize("host", STRANGE)
def test_a_name_that_may_be_a_strangers_is_refused(client: httpx.Client, host: str) -> None:
    for method, path in (("GET", "/versions"), ("GET", "/api/projects/7"), ("POST", "/setup")):
        answer = client.request(method, path, json=SETUP if method == "POST" else None, headers={"host": host})
        assert answer.status_code == 403
        assert "BACKEND_URL" in answer.json()["fix"]
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", OURS)
def test_our_own_names_are_let_in(client: httpx.Client, host: str) -> None:
    assert client.get("/versions", headers={"host": host}).status_code == 200
    assert client.post("/setup", json=SETUP, headers={"host": host}).status_code == 200


def test_the_name_in_backend_url_is_ours_and_where_the_webhook_is(settings: Settings) -> None:
    named = settings.model_copy(update={"backend_url": "https://yolo.example/"})
    with open_context(named) as context, serve(context) as client:
        assert client.get("/versions", headers={"host": "yolo.example"}).status_code == 200
        assert client.get("/versions", headers={"host": "evil.example"}).status_code == 403
        assert client.post("/setup", json=SETUP).status_code == 200
        record = context.store.project(7)
        assert record is not None
        assert record.backend_url == "https://yolo.example"


def test_with_a_password_any_name_will_do(settings: Settings) -> None:
    locked = settings.model_copy(update={"basic_auth_user": "us", "basic_auth_pass": "word"})
    with open_context(locked) as context, serve(context) as client:
        answer = client.get("/versions", headers={"host": "yolo.example"}, auth=("us", "word"))
        assert answer.status_code == 200


def test_a_page_of_another_site_in_a_browser_reaches_nothing(
    client: httpx.Client, context: Context, redis: Redis, images: ImageSite
) -> None:
    """The page tries a form's content types, JSON, and a beacon that is sent while the user leaves it."""
    (images.folder / "page.html").write_text("<!doctype html><title>a page of somebody else</title>")
    client.post("/setup", json=SETUP)
    redis.flushdb()
    script = """async ([url, sent]) => {
        for (const [path, body] of sent) {
            for (const kind of ["text/plain", "application/x-www-form-urlencoded", "application/json"]) {
                const options = {method: "POST", body: JSON.stringify(body), headers: {"content-type": kind}};
                await fetch(url + path, {...options, mode: "no-cors"}).catch(() => null);
                await fetch(url + path, options).catch(() => null);
            }
            navigator.sendBeacon(url + path, JSON.stringify(body));
        }
    }"""
    with chromium_page() as page:
        page.goto(f"{images.url}/page.html")
        sent: list[Any] = [str(client.base_url).rstrip("/"), [list(request) for request in SENT]]
        page.evaluate(script, sent)
        page.wait_for_timeout(500)
    assert jobs(redis) == 0


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HOST": "0.0.0.0"}, "HOST=0.0.0.0"),
        ({"HOST": "::"}, "HOST=::"),
        ({"HOST": "192.168.1.5"}, "HOST=192.168.1.5"),
        ({"BASIC_AUTH_PASS": "word"}, "BASIC_AUTH_USER is missing"),
        ({"BASIC_AUTH_USER": "us"}, "BASIC_AUTH_PASS is missing"),
        ({"BASIC_AUTH_USER": "us", "BASIC_AUTH_PASS": "", "HOST": "0.0.0.0"}, "BASIC_AUTH_PASS is missing"),
    ],
)
def test_a_server_that_is_open_to_anybody_does_not_start(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        startup.check_access(from_env(environ))


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOST": "localhost"},
        {"HOST": "127.0.0.2"},
        {"HOST": "::1"},
        {"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "true"},
        {"HOST": "0.0.0.0", "BASIC_AUTH_USER": "us", "BASIC_AUTH_PASS": "word"},
    ],
)
def test_a_server_that_is_not_open_to_anybody_starts(environ: dict[str, str]) -> None:
    startup.check_access(from_env(environ))


@pytest.mark.processes
@pytest.mark.parametrize("command", ["serve", "run"])
def test_the_command_says_why_it_does_not_start(command: str) -> None:
    environ = os.environ | {"HOST": "0.0.0.0", "LABEL_STUDIO_URL": "", "REDIS_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", command],
        capture_output=True,
        text=True,
        timeout=600,
        env=environ,
        check=False,
    )
    assert done.returncode == 1
    assert "ALLOW_ANONYMOUS" in done.stderr
    assert "Traceback" not in done.stderr
