"""The routes of the page: who gets HTML, which forms are accepted, and what is served."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from backend.loop.context import Context
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.web.page import forms, live
from tests.support import CONFIG, open_context, serve

HTML = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    with serve(context) as client:
        yield client


def test_label_studio_gets_json_and_a_browser_gets_html(client: httpx.Client) -> None:
    assert client.get("/").json()["status"] == "UP"
    answer = client.get("/", headers=HTML)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["vary"] == "accept"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "Project 7" in answer.text


def test_the_page_loads_nothing_from_another_host(client: httpx.Client) -> None:
    for path in ("/", "/projects/7/now", "/projects/7/settings"):
        text = client.get(path, headers=HTML).text
        assert 'src="http' not in text
        assert 'rel="stylesheet" href="/static/' in text


def test_plotly_comes_from_its_own_wheel(client: httpx.Client) -> None:
    bundle = client.get("/static/plotly.js")
    assert bundle.headers["content-type"].startswith("text/javascript")
    assert "plotly.js v" in bundle.text[:100]


@pytest.mark.parametrize("name", ["style.css", "live.mjs", "plots.mjs", "icon.svg"])
def test_static_files(client: httpx.Client, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 200


@pytest.mark.parametrize("name", ["..%2fsite.py", "%2e%2e", "no.css", "__init__.py"])
def test_only_our_static_files_are_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/projects/7/nothing", "/projects/8/now", "/projects/8", "/projects/8/now/events", "/projects/7/settings/events"],
)
def test_unknown_projects_and_views_are_told(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers=HTML, follow_redirects=True)
    assert answer.status_code == 404
    assert "What to do:" in answer.text


def test_an_id_that_is_no_number(client: httpx.Client) -> None:
    answer = client.get("/projects/cats/now", headers=HTML)
    assert (answer.status_code, "whole numbers" in answer.text) == (422, True)


def test_a_form_needs_the_token_of_our_pages(client: httpx.Client, context: Context) -> None:
    address, good = "/projects/7/now/train", {"token": forms.token(context.store.secret())}
    assert client.post(address, data={"more": "x"}).status_code == 403
    assert client.post(address, data={"token": "x" * 64}).status_code == 403
    assert client.post(address, json=good).status_code == 415
    assert client.post(address, data=good, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post(address, data={**good, "more": "x" * forms.MOST_BYTES}).status_code == 413
    assert context.progress.training(7).state == "idle"
    answer = client.post(address, data=good)
    assert (answer.status_code, answer.headers["location"]) == (303, "/projects/7/now")
    assert context.progress.training(7).state == "queued"
    assert client.post("/projects/7/now/dance", data=good).status_code == 404


def test_the_loop_is_paused_and_resumed_and_the_journal_says_by_whom(client: httpx.Client, context: Context) -> None:
    token = {"token": forms.token(context.store.secret())}
    assert client.post("/projects/7/now/pause", data=token).status_code == 303
    page = client.get("/projects/7/now", headers=HTML).text
    assert "Resume the loop" in page
    assert "Pause the loop" not in page
    paused = client.get("/api/projects/7").json()["paused"]
    assert paused["who"] == "127.0.0.1"
    assert client.post("/projects/7/now/resume", data=token).status_code == 303
    assert client.get("/api/projects/7").json()["paused"] is None
    assert [entry.action for entry in context.store.journal.entries(7)] == ["resume", "pause"]
    context.store.journal.append(7, "<b>ann</b>", "pin", "to the front: task 1")
    page = client.get("/projects/7/now", headers=HTML).text
    assert "<bdi>&lt;b&gt;ann&lt;/b&gt;</bdi>" in page


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"task": "1 x", "place": "front"}, 400),
        ({"task": "", "place": "front"}, 400),
        ({"task": "1", "place": "middle"}, 400),
        ({"task": "1" * 30, "place": "front"}, 400),
        ({"task": "1"}, 400),
    ],
)
def test_a_pin_of_nothing_or_nowhere(
    client: httpx.Client, context: Context, fields: dict[str, str], status: int
) -> None:
    token = {"token": forms.token(context.store.secret())}
    assert client.post("/projects/7/next/pin", data=token | fields).status_code == status


def test_the_page_needs_the_password(settings: Settings) -> None:
    locked = settings.model_copy(update={"basic_auth_user": "lead", "basic_auth_pass": "secret"})
    right = {"authorization": "Basic " + base64.b64encode(b"lead:secret").decode()}
    with open_context(locked) as context, serve(context) as client:
        for path in ("/", "/events", "/static/style.css", "/projects/7/now", "/projects/7/tasks/1/picture"):
            answer = client.get(path, headers=HTML)
            assert (path, answer.status_code) == (path, 401)
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert client.get("/", headers=HTML | right).status_code == 200


def test_the_number_of_open_streams_is_limited(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_STREAMS", 1)
    with client.stream("GET", "/projects/7/now/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: part"
        assert client.get("/projects/7/now/events").status_code == 503


def test_the_server_ends_while_a_page_is_open(context: Context) -> None:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))

    def read(url: str) -> None:
        with httpx.stream("GET", f"{url}/projects/7/now/events", timeout=60) as stream:
            for _ in stream.iter_lines():
                pass

    with ThreadPoolExecutor(1) as pool:
        with serve(context) as client:
            reading = pool.submit(read, str(client.base_url))
            time.sleep(1)
            began = time.monotonic()
        assert time.monotonic() - began < 8  # uvicorn would wait 10 s for the stream
        reading.exception(timeout=5)
