"""The actions and the download of the view Versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.loop.context import Context
from backend.settings import Settings
from backend.store.paths import answers_file, weights_file
from backend.store.store import ProjectRecord
from backend.web.page import forms
from tests.evaluated import evaluation, judged, publish_evaluated
from tests.support import CONFIG, open_context, publish, serve

HTML = {"accept": "text/html"}
ODD_NAME = CONFIG.replace('name="label"', 'name="a/../../b 🐈"')


@pytest.fixture
def project(context: Context, tiny_weights: Path) -> Context:
    """Two accepted versions and a rejected one."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    for place, promoted in enumerate((True, True, False)):
        stored, metrics = evaluation(judged(range(100, 120), 0.5, seed=place))
        publish_evaluated(context, 7, tiny_weights, stored, metrics, promoted=promoted)
    return context


@pytest.fixture
def client(project: Context) -> Iterator[httpx.Client]:
    with serve(project) as client:
        yield client


def accept(client: httpx.Client, context: Context, number: str) -> httpx.Response:
    form = {"token": forms.token(context.store.secret()), "number": number}
    return client.post("/projects/7/versions/accept", data=form, headers=HTML)


def test_weights_are_sent_as_a_file_with_their_sha256(client: httpx.Client, tiny_weights: Path) -> None:
    answer = client.get("/projects/7/versions/2/weights")
    assert answer.headers["content-disposition"] == 'attachment; filename="yolo11n-v2-label.pt"'
    assert answer.headers["x-weights-sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert answer.content == tiny_weights.read_bytes()
    assert answer.headers["cache-control"] == "no-store"


def test_the_name_of_a_file_is_safe(client: httpx.Client, context: Context, tiny_weights: Path) -> None:
    context.store.save_project(ProjectRecord(8, ODD_NAME, "", "", "", ""))
    publish(context.store, 8, tiny_weights, from_name="a/../../b 🐈")
    answer = client.get("/projects/8/versions/1/weights")
    assert answer.headers["content-disposition"] == 'attachment; filename="yolo11n-v1-a_.._.._b_.pt"'


@pytest.mark.parametrize(("number", "status"), [("3", 409), ("9", 404), ("0", 422), ("x", 422)])
def test_weights_that_are_not_there(client: httpx.Client, number: str, status: int) -> None:
    answer = client.get(f"/projects/7/versions/{number}/weights", headers=HTML)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


def test_damaged_weights_are_not_sent(client: httpx.Client, context: Context) -> None:
    Path(context.store.files.where(weights_file(7, 2, "label"))).write_bytes(b"other")
    answer = client.get("/projects/7/versions/2/weights", headers=HTML)
    assert answer.status_code == 409
    assert "wrong sha256" in answer.text


def test_weights_need_the_password(project: Context, settings: Settings) -> None:
    locked = settings.model_copy(update={"basic_auth_user": "lead", "basic_auth_pass": "secret"})
    with open_context(locked) as context, serve(context) as client:
        assert client.get("/projects/7/versions/2/weights").status_code == 401
        assert client.get("/projects/7/versions/2/weights", auth=("lead", "secret")).status_code == 200


def test_an_earlier_version_becomes_the_accepted_one_and_is_scored(client: httpx.Client, project: Context) -> None:
    answer = accept(client, project, "1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/projects/7/versions")
    current = project.store.current(7)
    assert current is not None
    assert current.number == 1
    assert project.store.journal.entries(7)[0].action == "rollback"
    assert "Promote 2" in client.get("/projects/7/versions", headers=HTML).text


@pytest.mark.parametrize("number", ["3", "9", "x"])
def test_a_version_that_cannot_serve_is_refused_with_the_cure(
    client: httpx.Client, project: Context, number: str
) -> None:
    answer = accept(client, project, number)
    assert answer.status_code in (404, 409)
    assert "What to do:" in answer.text
    current = project.store.current(7)
    assert current is not None
    assert current.number == 2


def test_no_form_of_another_site_changes_the_version(client: httpx.Client, project: Context) -> None:
    assert client.post("/projects/7/versions/accept", data={"number": "1"}).status_code == 403
    current = project.store.current(7)
    assert current is not None
    assert current.number == 2


@pytest.mark.parametrize("query", ["?first=9", "?first=1&second=99"])
def test_versions_to_compare_must_be_there(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/projects/7/versions{query}", headers=HTML)
    assert answer.status_code == 404
    assert "What to do:" in answer.text


def test_a_damaged_file_of_answers_is_named(client: httpx.Client, context: Context) -> None:
    context.store.files.write(answers_file(7, 1, "label"), b"")
    answer = client.get("/projects/7/versions?first=1&second=2", headers=HTML)
    assert "damaged file" in answer.text
    assert "delete the file" in answer.text
    assert "Table of versions" in answer.text
