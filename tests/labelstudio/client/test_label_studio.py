"""Every call against a real Label Studio. A small local server gives only the answers that a real one does not give."""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from PIL import Image

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.errors import LabelStudioAuthError, LabelStudioBlockedError, LabelStudioError, MediaError, NotFoundError
from backend.evaluation.label_quality import SUSPECT
from backend.labelstudio import label_config
from backend.labelstudio.client import http, prediction_import
from backend.labelstudio.client.annotations import AnnotationAnswer, pick
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.labelstudio.client.filters import QUEUED, UNLABELED, filters
from backend.labelstudio.client.http import LabelStudioHTTP, parse
from backend.labelstudio.client.tabs import LABEL_ISSUES_TAB, QUEUE_TAB
from backend.subprocesses import free_port
from backend.types import AnnotatedTask, Json, Region
from tests.support import ROOT, sign_up

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
)
GONE = 10**6  # an id that does not exist

pytestmark = pytest.mark.label_studio


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def client(label_studio: LabelStudioProcess) -> Iterator[LabelStudioClient]:
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def colleague(label_studio: LabelStudioProcess, client: LabelStudioClient) -> Iterator[LabelStudioClient]:
    """A second user of the same Label Studio."""
    login = {"email": "colleague@example.com", "password": "another-password"}
    sign_up(client, **login)
    with LabelStudioClient(label_studio.url, personal_access_token(label_studio.url, **login)) as colleague:
        yield colleague


@pytest.fixture
def refuses_unknown_labels(client: LabelStudioClient) -> None:
    """Skip on an older Label Studio, which stores predictions of any label."""
    release = client.http.get("/api/version")["release"]
    if tuple(map(int, release.split(".")[:2])) < (1, 21):
        pytest.skip(f"Label Studio {release} stores predictions of any label")


@pytest.fixture
def project(client: LabelStudioClient, request: pytest.FixtureRequest) -> int:
    return client.projects.create(request.node.name[:50], CONFIG)


def add_tasks(client: LabelStudioClient, project: int, tasks: int | Sequence[Json]) -> list[int]:
    """Import tasks (a number: that many without annotations) and return their ids in order."""
    body = (
        [{"data": {"image": f"http://images.example/{i}.jpg"}} for i in range(tasks)]
        if isinstance(tasks, int)
        else tasks
    )
    client.http.send("POST", f"/api/projects/{project}/import", body)
    return [task["id"] for page in client.tasks.pages(project, include="id") for task in page]


def region(label: str = "cat", score: float = 0.5) -> Region:
    value = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rotation": 0, "rectanglelabels": [label]}
    return Region("r1", "rectanglelabels", "label", "image", value, score, 160, 120)


def box(label: str = "cat") -> Json:
    return region(label).as_json()


def labels(client: LabelStudioClient, project: int) -> dict[int, AnnotatedTask]:
    labeled_tasks = {labeled.task.id: labeled for labeled in client.annotations.annotated_tasks(project)}
    assert client.annotations.stamps(project) == {
        label.annotation_id: label.updated_at for label in labeled_tasks.values()
    }
    return labeled_tasks


Answer = tuple[int, bytes]


@contextmanager
def http_server(answer: Callable[[str, str, int], Answer | None]) -> Iterator[tuple[str, list[str]]]:
    """Serve `answer(method, path, number of the request)`; None drops the connection. Yield address and requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append(f"{self.command} {self.path.partition('?')[0]}")
            response = answer(self.command, self.path, len(requests))
            if response is None:
                self.close_connection = True
                return
            # Label Studio shows the reason phrase of a refused /setup, never the body.
            self.send_response(response[0], response[1].decode() if response[0] == 422 else None)
            self.send_header("Content-Length", str(len(response[1])))
            if response[0] in (301, 302):
                self.send_header("Location", "https://labels.example/")
            self.end_headers()
            self.wfile.write(response[1])

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def ml_backend(setup: Answer = (200, b'{"model_version": "v1"}')) -> Callable[[str, str, int], Answer]:
    """Answer as an ML backend does: UP on /health, `setup` on /setup."""
    return lambda method, path, number: setup if path == "/setup" else (200, b'{"status": "UP"}')


# ── the connection ──────────────────────────────────────────────────────────────────────────────────────────────


def test_check_returns_the_user(client: LabelStudioClient) -> None:
    assert client.check() == "admin@example.com"


def test_a_legacy_token_works_once_the_organization_allows_it(client: LabelStudioClient) -> None:
    legacy = client.http.get("/api/current-user/token")["token"]
    with LabelStudioClient(client.url, legacy) as old:
        with pytest.raises(LabelStudioAuthError, match=r"legacy token.*disabled.*Personal Access Token"):
            old.check()
        client.http.send("POST", "/api/jwt/settings", {"legacy_api_tokens_enabled": True})
        try:
            assert old.check() == "admin@example.com"
        finally:
            client.http.send("POST", "/api/jwt/settings", {"legacy_api_tokens_enabled": False})


def test_wrong_tokens_are_named_as_such_and_never_shown(
    client: LabelStudioClient, label_studio: LabelStudioProcess
) -> None:
    key = label_studio.api_key
    access = client.authorize(f"{client.url}/x")["Authorization"].removeprefix("Bearer ")
    expired = jwt.encode({"token_type": "refresh", "exp": datetime(2020, 1, 1, tzinfo=UTC)}, "k" * 32)
    forged = jwt.encode({"token_type": "refresh", "exp": datetime(2100, 1, 1, tzinfo=UTC)}, "k" * 32)
    wrong = ["", " ", "nonsense", key[:-5], key.rpartition(".")[0], access, expired, forged]
    for token in wrong:
        with LabelStudioClient(client.url, token) as wrong_client:
            with pytest.raises(LabelStudioAuthError, match="set LABEL_STUDIO_API_KEY") as caught:
                wrong_client.check()
            assert len(token) < 5 or token not in f"{caught.value} {wrong_client!r} {wrong_client.http!r}"


@pytest.mark.parametrize(("url", "fix"), [("", "set LABEL_STUDIO_URL"), ("not a url", "correct LABEL_STUDIO_URL")])
def test_a_url_that_is_none(url: str, fix: str) -> None:
    with LabelStudioClient(url, "legacy") as client, pytest.raises(LabelStudioError, match=fix):
        client.check()


def test_an_unreachable_label_studio_is_named_with_its_address(label_studio: LabelStudioProcess) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for key in (label_studio.api_key, "legacy"):
        with LabelStudioClient(url, key) as client:
            with pytest.raises(LabelStudioError, match="cannot be reached") as caught:
                client.check()
            assert url in str(caught.value)
            assert "correct LABEL_STUDIO_URL" in str(caught.value)


def test_spaces_and_slashes_around_the_settings_do_no_harm(label_studio: LabelStudioProcess) -> None:
    with LabelStudioClient(f" {label_studio.url}/ ", f"{label_studio.api_key}\n") as client:
        assert client.check() == "admin@example.com"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    label_studio: LabelStudioProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        assert client.check() == "admin@example.com"


@pytest.mark.parametrize(
    ("answers", "requests", "expected"),
    [
        ([(503, b""), (502, b""), (200, b'{"email": "a@example.com"}')], 3, "a@example.com"),
        ([None, (200, b'{"email": "a@example.com"}')], 2, "a@example.com"),
        ([(401, b""), (200, b'{"email": "a@example.com"}')], 2, "a@example.com"),  # the access token expired on its way
        ([(503, b"busy")] * 3, 3, "answers 503: busy.*Label Studio's log"),
        ([None] * 3, 3, "cannot be reached"),
        ([(401, b'{"detail": "no"}')] * 2, 2, "refuses the token: no"),
        ([(403, b'{"detail": "no permission"}')], 1, "lacks the right: no permission"),
        ([(200, b"<html>")], 1, "not JSON.*correct LABEL_STUDIO_URL"),
        ([(302, b"")], 1, "redirects to https://labels.example/.*final address"),
        ([(200, b"{}")], 1, "unexpected email.*1.23"),
        ([(429, b'["slow down"]')], 1, "429.*slow down"),
    ],
)
def test_reads_are_tried_again_only_where_that_can_help(
    answers: list[Answer | None], requests: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BACKOFF_S", 0.01)
    with (
        http_server(lambda method, path, number: answers[number - 1]) as (url, sent),
        LabelStudioClient(url, "k") as client,
    ):
        if "@" in expected:
            assert client.check() == expected
        else:
            with pytest.raises(LabelStudioError, match=expected):
                client.check()
        assert sent == ["GET /api/current-user/whoami"] * requests


@pytest.mark.parametrize("answer", [(500, b"{}"), None])
def test_writes_are_sent_once(answer: Answer | None) -> None:
    with http_server(lambda method, path, number: answer) as (url, sent), LabelStudioClient(url, "legacy") as client:
        with pytest.raises(LabelStudioError):
            client.prediction_import.run(1, "v1", [PredictionRow(1, 0.5)])
        assert sent == ["POST /api/projects/1/import/predictions"]


def test_a_slow_label_studio_is_given_up() -> None:
    released = threading.Event()

    def stall(method: str, path: str, number: int) -> Answer:
        released.wait(10)
        return 200, b"{}"

    with (
        http_server(stall) as (url, sent),
        LabelStudioClient(url, "legacy", LabelStudioHTTP(url, "legacy", read_s=0.2)) as client,
    ):
        with pytest.raises(LabelStudioError, match=r"too slowly.*overloaded"):
            client.check()
        released.set()
        assert len(sent) == 1


def test_a_refused_refresh_of_the_token(label_studio: LabelStudioProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF_S", 0.01)
    # If the answer is not JSON, the client sends the request again for its status: a proxy's error page has one.
    cases = (((500, b'{"detail": "broken"}'), "HTTP 500 broken", 1), ((200, b"<html>"), "not JSON", 2))
    for answer, expected, requests in cases:
        with (
            http_server(lambda method, path, number: answer) as (url, sent),  # noqa: B023
            LabelStudioClient(f"{url}/under/a/path", label_studio.api_key) as client,
        ):
            with pytest.raises(LabelStudioError, match=expected):
                client.check()
            assert sent == ["POST /under/a/path/api/token/refresh/"] * requests


def test_the_token_goes_to_label_studio_only(client: LabelStudioClient) -> None:
    header = client.authorize(f"{client.url}/data/upload/1/a.jpg")["Authorization"]
    assert httpx.get(f"{client.url}/api/current-user/whoami", headers={"Authorization": header}, timeout=60).is_success
    port = httpx.URL(client.url).port
    others = ["http://images.example/a.jpg", f"https://127.0.0.1:{port}/a", "http://127.0.0.1:1/a", "/data/a.jpg", ""]
    others += [
        f"http://127.0.0.1:{port}@evil.example/a",
        f"http://evil.example/?{client.url}",
        "http://127.0.0.1:99999/a",
    ]
    assert [client.authorize(url) for url in others] == [{}] * len(others)


@pytest.mark.parametrize(
    ("url", "same"),
    [("http://labels.example:80/x", True), ("HTTP://Labels.Example/x", True), ("http://labels.example:81/x", False)],
)
def test_default_ports_and_case_do_not_change_the_origin(url: str, same: bool) -> None:
    with LabelStudioClient("http://labels.example", "legacy") as client:
        assert client.authorize(url) == ({"Authorization": "Token legacy"} if same else {})


def test_cloud_addresses_go_through_label_studio(client: LabelStudioClient, project: int) -> None:
    [task_id] = add_tasks(client, project, 1)
    resolved = client.resolve(task_id, "s3://bucket/a b/ü.jpg")
    prefix, _, encoded = resolved.partition("?fileuri=")
    assert prefix == f"{client.url}/tasks/{task_id}/resolve/"
    assert base64.urlsafe_b64decode(encoded).decode() == "s3://bucket/a b/ü.jpg"
    answer = httpx.get(resolved, headers=client.authorize(resolved), timeout=60)
    assert answer.status_code == 404  # the address is right: LS looked, and no storage holds that bucket
    assert client.resolve(None, "http://images.example/a.jpg") == "http://images.example/a.jpg"
    assert client.resolve(None, "/data/upload/1/a.jpg") == f"{client.url}/data/upload/1/a.jpg"
    with pytest.raises(MediaError, match="needs its task"):
        client.resolve(None, "gs://bucket/a.jpg")


class ProjectTitle(http.Answer):
    """An answer with a title."""

    title: str


def test_an_answer_without_a_field_names_it() -> None:
    with pytest.raises(LabelStudioError, match=r"unexpected title.*ProjectTitle"):
        parse(ProjectTitle, {"id": 1})


# ── the project ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("example", sorted((ROOT / "label_config").glob("*.xml")), ids=lambda path: path.stem)
def test_the_example_configs_are_taken(client: LabelStudioClient, example: Path) -> None:
    config = example.read_text(encoding="utf-8")
    project = client.projects.create(example.stem, config)
    assert label_config.parse(client.projects.get(project).label_config) == label_config.parse(config)


def test_a_fresh_project(client: LabelStudioClient, project: int) -> None:
    info = client.projects.get(project)
    assert (info.id, info.label_config, info.model_version) == (project, CONFIG, "")
    assert (info.sampling, info.task_count) == ("Sequential sampling", 0)
    assert info.show_collab_predictions
    assert list(client.tasks.unlabeled(project)) == []
    assert list(client.annotations.annotated_tasks(project)) == []
    assert client.annotations.stamps(project) == {}
    assert client.predictions.versions(project) == {}
    assert client.predictions.ids(project, "v1", 5) == []
    assert list(client.predictions.task_ids(project, "v1")) == []
    assert client.prediction_import.run(project, "v1", []) == 0
    assert client.tasks.get_many(project, []) == []
    assert client.projects.backends(project) == []
    assert client.tasks.next(project) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.projects.get(GONE),
        lambda client: list(client.tasks.unlabeled(GONE)),
        lambda client: list(client.annotations.annotated_tasks(GONE)),
        lambda client: client.annotations.stamps(GONE),
        lambda client: client.tasks.get(GONE),
        lambda client: client.tasks.get_many(GONE, [1]),
        lambda client: client.prediction_import.run(GONE, "v1", [PredictionRow(1, 0.5)]),
        lambda client: client.predictions.versions(GONE),
        lambda client: client.predictions.ids(GONE, "v1", 1),
        lambda client: client.predictions.delete(GONE),
        lambda client: client.projects.set_model_version(GONE, "v1"),
        lambda client: client.projects.set_sampling(GONE),
        lambda client: client.tabs.ensure_queue(GONE),
        lambda client: client.tabs.ensure_label_issues(GONE, SUSPECT),
        lambda client: client.projects.ensure_webhook_header(GONE, "http://backend.example", "X-Key", "s"),
        lambda client: client.projects.backends(GONE),
        lambda client: client.projects.attach_backend(GONE, "http://backend.example", "yolo"),
        lambda client: client.tasks.next(GONE),
        lambda client: client.annotations.create(GONE, []),
        lambda client: client.annotations.update(GONE, []),
        lambda client: client.annotations.delete(GONE),
        lambda client: client.tasks.upload_images(GONE, [Path(__file__)]),
    ],
)
def test_what_is_not_there_is_not_found(client: LabelStudioClient, call: Callable[[LabelStudioClient], object]) -> None:
    with pytest.raises(NotFoundError, match=r"(?i)\bno\b"):
        call(client)


def test_sampling_is_switched_once(client: LabelStudioClient, project: int) -> None:
    assert client.projects.set_sampling(project)
    assert client.projects.get(project).sampling == "Uncertainty sampling"
    assert not client.projects.set_sampling(project)


def test_the_queue_gives_the_lowest_score_and_the_tab_shows_that_order(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 5)
    scores = dict(zip(ids, (0.8, 0.2, 0.9, 0.0), strict=False))  # the last task has no prediction
    client.prediction_import.run(project, "v1", [PredictionRow(task, 1 - score) for task, score in scores.items()])
    client.prediction_import.run(project, "v2", [PredictionRow(task, score) for task, score in scores.items()])
    client.projects.set_model_version(project, "v2")
    client.projects.set_sampling(project)
    assert client.tabs.ensure_queue(project)
    assert not client.tabs.ensure_queue(project)
    views = client.http.get("/api/dm/views/", project=project)
    assert [view["data"]["title"] for view in views] == ["Default", QUEUE_TAB]
    order = sorted(scores, key=lambda task: scores[task])
    first = client.tasks.next(project)
    assert first is not None
    assert first.id == order[0]
    client.annotations.create(first.id, [box()])
    second = client.tasks.next(project)
    assert second is not None
    assert second.id == order[1]
    shown = client.http.get("/api/tasks", view=views[1]["id"], include="id")["tasks"]
    assert [task["id"] for task in shown] == [*order[1:], ids[-1]]


def test_a_changed_queue_tab_is_left_alone(client: LabelStudioClient, project: int) -> None:
    client.http.send("POST", "/api/dm/views/", {"project": project, "data": {"title": "Mine"}})
    assert client.tabs.ensure_queue(project)
    views = client.http.get("/api/dm/views/", project=project)
    assert [view["data"]["title"] for view in views] == ["Mine", QUEUE_TAB]  # a Default tab only where there was none
    changed = {"data": {"title": QUEUE_TAB, "ordering": ["-tasks:id"]}, "project": project}
    client.http.send("PATCH", f"/api/dm/views/{views[1]['id']}/", changed)
    assert not client.tabs.ensure_queue(project)
    assert client.http.get(f"/api/dm/views/{views[1]['id']}/")["data"]["ordering"] == ["-tasks:id"]


def test_tabs_show_pictures_with_few_columns_and_earlier_tabs_get_their_names(
    client: LabelStudioClient, project: int
) -> None:
    earlier = {"title": "Active learning queue", "ordering": ["tasks:predictions_score"], "filters": filters(QUEUED)}
    client.http.send("POST", "/api/dm/views/", {"project": project, "data": {"type": "list", **earlier}})
    assert not client.tabs.ensure_queue(project), "the tab of an earlier release is taken over"
    assert client.tabs.ensure_label_issues(project, SUSPECT)
    queue, issues = (view["data"] for view in client.http.get("/api/dm/views/", project=project))
    assert [queue["title"], issues["title"]] == [QUEUE_TAB, LABEL_ISSUES_TAB]
    assert queue["filters"]["items"] == [QUEUED]
    assert queue["ordering"] == ["tasks:predictions_score"]
    columns = {f"tasks:{column['id']}" for column in client.http.get("/api/dm/columns", project=project)["columns"]}
    for tab, more in ((queue, set()), (issues, {"tasks:annotators"})):
        assert tab["type"] == "grid"
        shown = columns - set(tab["hiddenColumns"]["explore"])
        assert shown == {"tasks:id", "tasks:image", "tasks:data", "tasks:predictions_score"} | more
    columns_of_mine = {"explore": ["tasks:id"], "labeling": []}
    mine = {"title": "Active learning queue", "type": "list", "hiddenColumns": columns_of_mine}
    view = client.http.get("/api/dm/views/", project=project)[0]
    client.http.send("PATCH", f"/api/dm/views/{view['id']}/", {"project": project, "data": mine})
    client.tabs.ensure_queue(project)
    renamed = client.http.get(f"/api/dm/views/{view['id']}/")["data"]
    assert (renamed["title"], renamed["type"], renamed["hiddenColumns"]) == (QUEUE_TAB, "list", columns_of_mine)


def test_a_version_without_predictions_is_refused(client: LabelStudioClient, project: int) -> None:
    with pytest.raises(LabelStudioError, match=r"refuses model version 'v9'.*import the version's predictions first"):
        client.projects.set_model_version(project, "v9")


def test_attaching_a_backend_and_giving_its_webhook_a_secret(client: LabelStudioClient, project: int) -> None:
    with http_server(ml_backend()) as (url, sent):
        attached = client.projects.attach_backend(project, f"{url}/", "yolo", user="us", password="secret")
        assert (attached.url, attached.title, attached.state) == (f"{url}/", "yolo", "Connected")
        assert "POST /setup" in sent
        assert client.projects.backends(project) == [attached]
        assert client.projects.ensure_webhook_header(project, url, "X-Key", "one")
        assert not client.projects.ensure_webhook_header(project, f"{url}/", "X-Key", "one")
        assert client.projects.ensure_webhook_header(project, url, "X-Key", "two")
        [hook] = client.http.get("/api/webhooks/", project=project)
        assert hook["headers"] == {"X-Key": "two"}
        chosen = {"send_for_all_actions": False, "actions": ["ANNOTATION_CREATED"]}
        client.http.send("PATCH", f"/api/webhooks/{hook['id']}/", chosen)
        assert client.projects.ensure_webhook_header(project, url, "X-Key", "three")
        assert client.http.get(f"/api/webhooks/{hook['id']}/")["actions"] == ["ANNOTATION_CREATED"]
        second_project = client.projects.create("beside", CONFIG)
        with pytest.raises(NotFoundError, match="no webhook to"):
            client.projects.ensure_webhook_header(second_project, url, "X-Key", "one")
    assert client.projects.backends(project)[0].state == "Disconnected"


def test_the_backends_own_refusal_is_shown(client: LabelStudioClient, project: int) -> None:
    refusal = (422, b"unknown strategy 'magic'")
    with (
        http_server(ml_backend(refusal)) as (url, _),
        pytest.raises(LabelStudioError, match="unknown strategy 'magic'"),
    ):
        client.projects.attach_backend(project, url, "yolo")
    assert client.projects.backends(project) == []


def test_a_backend_that_is_down_is_said(client: LabelStudioClient, project: int) -> None:
    with pytest.raises(LabelStudioError, match="Can't connect to ML backend"):
        client.projects.attach_backend(project, f"http://127.0.0.1:{free_port()}", "yolo")


def test_a_blocked_address_is_explained(client: LabelStudioClient, project: int) -> None:
    # For another scheme LS gives the same answer as for a private address while its protection is on.
    with pytest.raises(LabelStudioBlockedError, match=r"ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false"):
        client.projects.attach_backend(project, "ftp://127.0.0.1/", "yolo")


# ── the labels ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pool_is_what_the_queue_still_hands_out(client: LabelStudioClient, project: int) -> None:
    labeled, empty, skipped, drafted, fresh = ids = add_tasks(client, project, 5)
    client.annotations.create(labeled, [box()])
    client.annotations.create(empty, [])
    client.annotations.create(skipped, [], was_cancelled=True)
    client.http.send("POST", f"/api/tasks/{drafted}/drafts", {"result": [box()]})
    assert [task.id for task in client.tasks.unlabeled(project)] == [skipped, drafted, fresh]
    assert list(labels(client, project)) == [labeled, empty]
    assert labels(client, project)[empty].result == ()
    client.http.send("PATCH", f"/api/projects/{project}/", {"skip_queue": "IGNORE_SKIPPED"})
    assert [task.id for task in client.tasks.unlabeled(project)] == [drafted, fresh]
    assert client.projects.get(project).task_count == len(ids)


def test_a_skipped_task_goes_to_a_colleague(
    client: LabelStudioClient, colleague: LabelStudioClient, project: int
) -> None:
    [task_id] = add_tasks(client, project, 1)
    client.annotations.create(task_id, [], was_cancelled=True)
    assert [task.id for task in client.tasks.unlabeled(project)] == [task_id]
    handed = colleague.tasks.next(project)
    assert handed is not None
    assert handed.id == task_id


def test_of_two_annotators_the_newest_counts_and_ground_truth_wins(
    client: LabelStudioClient, colleague: LabelStudioClient, project: int
) -> None:
    [task_id] = add_tasks(client, project, 1)
    own_annotation = client.annotations.create(task_id, [box("cat")])
    theirs = colleague.annotations.create(task_id, [box("dog")])
    chosen = labels(client, project)[task_id]
    assert (chosen.annotation_id, chosen.ground_truth) == (theirs, False)
    assert chosen.result[0]["value"]["rectanglelabels"] == ["dog"]
    assert [result[0]["value"]["rectanglelabels"] for result in chosen.others] == [["cat"]]
    client.annotations.update(own_annotation, [box("cat"), box("cat")])
    assert labels(client, project)[task_id].annotation_id == own_annotation
    assert len(labels(client, project)[task_id].result) == 2
    client.annotations.update(theirs, ground_truth=True)
    client.annotations.update(own_annotation, [box("cat")])
    chosen = labels(client, project)[task_id]
    assert (chosen.annotation_id, chosen.ground_truth, chosen.others) == (theirs, True, ())
    client.annotations.delete(theirs)
    assert labels(client, project)[task_id].annotation_id == own_annotation


def test_a_skip_beside_a_label_does_not_hide_it(
    client: LabelStudioClient, colleague: LabelStudioClient, project: int
) -> None:
    [task_id] = add_tasks(client, project, 1)
    own_annotation = client.annotations.create(task_id, [box()])
    colleague.annotations.create(task_id, [box("dog")], was_cancelled=True)
    assert labels(client, project)[task_id].annotation_id == own_annotation


def test_annotations_imported_with_their_task_count(client: LabelStudioClient, project: int) -> None:
    image = {"image": "http://images.example/a.jpg"}
    first, second = add_tasks(client, project, [{"data": image, "annotations": [{"result": [box()]}]}, {"data": image}])
    assert list(labels(client, project)) == [first]
    assert [task.id for task in client.tasks.unlabeled(project)] == [second]


def test_predictions_are_no_labels_whoever_made_them(client: LabelStudioClient, project: int) -> None:
    [task_id] = add_tasks(client, project, 1)
    for version in ("yolo11n-v1", "another-backend", ""):
        body = {"task": task_id, "result": [box("cat")], "score": 0.5, "model_version": version}
        client.http.send("POST", "/api/predictions/", body)
    assert labels(client, project) == {}
    client.annotations.create(task_id, [box("dog")])
    assert labels(client, project)[task_id].result[0]["value"]["rectanglelabels"] == ["dog"]


def test_stamps_follow_changes_and_deletions(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 2)
    first, second = (client.annotations.create(task_id, [box()]) for task_id in ids)
    before = client.annotations.stamps(project)
    assert set(before) == {first, second}
    assert client.annotations.stamps(project, [ids[1], GONE]) == {second: before[second]}
    client.annotations.update(first, [])
    client.annotations.delete(second)
    after = client.annotations.stamps(project)
    assert set(after) == {first}
    assert after[first] != before[first]


def test_an_imported_result_of_anything_costs_no_other_task(client: LabelStudioClient, project: int) -> None:
    """Label Studio checks such items when an annotator submits them, but not when somebody imports them."""
    results: list[list[Any]] = [[None, "x", 1, [box()]], [box()]]
    tasks = [
        {"data": {"image": "http://images.example/1.jpg"}, "annotations": [{"result": result}]} for result in results
    ]
    ids = add_tasks(client, project, tasks)
    assert {task: list(labeled.result) for task, labeled in labels(client, project).items()} == dict(
        zip(ids, results, strict=True)
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([(1, "2026-01-01T00:00:00Z", True, False)], None),
        ([(1, "2026-01-01T00:00:00.500000Z", False, False), (2, "2026-01-01T00:00:00Z", False, False)], 1),
        ([(1, "2026-01-01T00:00:00Z", False, False), (2, "2026-01-01T00:00:00Z", False, False)], 2),
        ([(1, "2026-01-01T00:00:00Z", False, True), (2, "2027-01-01T00:00:00Z", False, False)], 1),
        ([(1, "2026-01-01T02:00:00+02:00", False, False), (2, "2026-01-01T00:30:00Z", False, False)], 2),
        ([(1, "2026-01-01T00:00:00Z", True, True), (2, "2025-01-01T00:00:00Z", False, False)], 2),
    ],
)
def test_which_annotation_counts(rows: list[tuple[int, str, bool, bool]], expected: int | None) -> None:
    names = ("id", "updated_at", "was_cancelled", "ground_truth")
    chosen = pick(AnnotationAnswer.model_validate(dict(zip(names, row, strict=True))) for row in rows)
    assert (chosen.id if chosen else None) == expected


def test_tasks_keep_the_order_asked_for_and_leave_out_what_is_gone(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 3)
    wanted_ids = [ids[2], GONE, ids[0]]
    assert [task.id for task in client.tasks.get_many(project, wanted_ids)] == [ids[2], ids[0]]
    assert client.tasks.get(ids[1]).data == {"image": "http://images.example/1.jpg"}


def test_pages_miss_nothing_while_annotators_label(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 5)
    read_ids: list[int] = []
    for page in client.tasks.pages(project, UNLABELED, size=2, include="id"):
        read_ids += [task["id"] for task in page]
        for task in page:
            client.annotations.create(task["id"], [])
    assert read_ids == ids


def test_uploaded_images_become_tasks_that_can_be_downloaded(
    client: LabelStudioClient, project: int, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        Image.new("RGB", (8 + index, 6)).save(path)
    client.tasks.upload_images(project, paths)
    tasks = list(client.tasks.unlabeled(project))
    assert len(tasks) == 3
    widths = []
    for task in tasks:
        url = client.resolve(task.id, task.data["image"])
        answer = httpx.get(url, headers=client.authorize(url), timeout=60).raise_for_status()
        widths.append(Image.open(io.BytesIO(answer.content)).width)
    assert sorted(widths) == [8, 9, 10]


def test_a_thousand_uploaded_images_are_listed(client: LabelStudioClient, project: int, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    Image.new("RGB", (2, 2)).save(path)
    client.tasks.upload_images(
        project, [path] * 1001
    )  # in more than one request, and more than SQLite's depth of 1,000
    tasks = list(client.tasks.unlabeled(project))
    assert len({task.data["image"] for task in tasks}) == 1001
    client.annotations.create(tasks[0].id, [])
    assert len(list(client.annotations.annotated_tasks(project))) == 1


# ── the predictions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_are_cut_by_bytes_too(client: LabelStudioClient, project: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_import, "BATCH_BYTES", 1500)
    ids = add_tasks(client, project, 7)
    rows = [PredictionRow(task_id, 0.5, (region(),) * (9 if task_id == ids[5] else 1)) for task_id in ids]
    batches = [[task_id for task_id, _ in batch] for batch in prediction_import.batches_of(rows, "v1")]
    assert batches == [ids[:4], ids[4:5], ids[5:6], ids[6:]]
    assert list(prediction_import.batches_of([], "v1")) == []
    assert client.prediction_import.run(project, "v1", rows) == 7
    assert client.predictions.versions(project) == {"v1": 7}


def test_predictions_of_more_than_one_batch_arrive_whole(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 1001)
    rows = (PredictionRow(task_id, index / 1001, (region(),)) for index, task_id in enumerate(ids))
    assert client.prediction_import.run(project, "yolo-v1", rows) == 1001
    assert client.predictions.versions(project) == {"yolo-v1": 1001}
    [stored] = client.predictions.of_task(ids[1])
    assert (stored.task_id, stored.version) == (ids[1], "yolo-v1")
    assert stored.score == pytest.approx(1 / 1001)
    assert stored.result[0]["value"] == box()["value"]
    assert stored.result[0]["score"] == 0.5
    assert [task.id for task in client.tasks.unlabeled(project)] == ids
    assert list(client.predictions.task_ids(project, "yolo-v1")) == ids


def test_versions_are_told_apart_exactly_and_deleted_one_by_one(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 3)
    for version in ("yolo-v10", "yolo-v1", "yolo-v1"):
        client.prediction_import.run(project, version, [PredictionRow(task_id, 0.5) for task_id in ids[1:]])
    client.prediction_import.run(project, "yolo-v10", [PredictionRow(ids[0], 0.5)])
    assert list(client.predictions.task_ids(project, "yolo-v1")) == ids[1:]
    assert list(client.predictions.task_ids(project, "yolo-v10")) == ids
    assert len(client.predictions.ids(project, "yolo-v1", 3)) == 3
    old = client.predictions.ids(project, "yolo-v1", 100)
    assert sorted(old) == sorted(
        prediction.id
        for task in ids
        for prediction in client.predictions.of_task(task)
        if prediction.version == "yolo-v1"
    )
    assert len(old) == 4
    for prediction_id in old:
        client.predictions.delete(prediction_id)
    assert client.predictions.versions(project) == {"yolo-v10": 3}
    assert client.predictions.ids(project, "yolo-v1", 100) == []


def test_a_task_with_very_many_versions_is_still_found(client: LabelStudioClient, project: int) -> None:
    [task_id] = add_tasks(client, project, 1)
    versions = [f"a-rather-long-name-of-a-model-v{number}" for number in range(20)]  # LS shows 500 characters of them
    for version in versions:
        client.prediction_import.run(project, version, [PredictionRow(task_id, 0.5)])
    assert [list(client.predictions.task_ids(project, version)) for version in versions] == [[task_id]] * 20
    assert list(client.predictions.task_ids(project, "a-rather-long-name-of-a-model-v")) == []


def test_rows_of_tasks_deleted_meanwhile_are_left_out(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 3)
    client.http.send("DELETE", f"/api/tasks/{ids[1]}/")
    assert client.prediction_import.run(project, "v1", [PredictionRow(task_id, 0.5) for task_id in ids]) == 2
    assert list(client.predictions.task_ids(project, "v1")) == [ids[0], ids[2]]
    assert client.prediction_import.run(project, "v2", [PredictionRow(ids[1], 0.5)]) == 0


@pytest.mark.parametrize(
    "row", [PredictionRow(1, math.nan), PredictionRow(1, math.inf), PredictionRow(1, 0.5, (region(score=math.nan),))]
)
def test_numbers_that_are_not_finite_never_reach_label_studio(
    client: LabelStudioClient, project: int, row: PredictionRow
) -> None:
    [task_id] = add_tasks(client, project, 1)
    with pytest.raises(LabelStudioError, match=r"not (finite|in \[0, 1\]).*task 1, version v1"):
        client.prediction_import.run(project, "v1", [PredictionRow(task_id, 0.5), row])
    assert client.predictions.versions(project) == {}


@pytest.mark.usefixtures("refuses_unknown_labels")
def test_predictions_that_label_studio_drops_are_noticed(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 2)
    rows = [PredictionRow(ids[0], 0.5, (region(),)), PredictionRow(ids[1], 0.5, (region("no such label"),))]
    with pytest.raises(LabelStudioError, match=rf"wrote 1 of 2 predictions.*row 0 \(task {ids[0]}\)"):
        client.prediction_import.run(project, "v1", rows)


@pytest.mark.usefixtures("refuses_unknown_labels")
def test_one_prediction_that_is_refused_does_not_stop_the_rest(client: LabelStudioClient, project: int) -> None:
    """Its task keeps its place in the queue, without regions."""
    ids = add_tasks(client, project, 3)
    results = [(region(),), (region("no such label"),), (region(), region())]
    rows = [PredictionRow(ids[place], 0.25 * place, regions) for place, regions in enumerate(results)]
    refused: dict[int, str] = {}
    assert client.prediction_import.run(project, "v1", rows, refused.__setitem__) == 3
    assert set(refused) == {ids[1]}
    assert refused[ids[1]].startswith("Label Studio refuses its prediction: ")
    assert "no such label" in refused[ids[1]]
    stored = [client.predictions.of_task(task) for task in ids]
    assert [[(len(prediction.result), prediction.score) for prediction in of_task] for of_task in stored] == [
        [(1, 0)],
        [(0, 0.25)],
        [(2, 0.5)],
    ]


@pytest.mark.usefixtures("refuses_unknown_labels")
def test_where_all_are_refused_the_config_is_another(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 2)
    rows = [PredictionRow(task, 0.5, (region("no such label"),)) for task in ids]
    refused: dict[int, str] = {}
    with pytest.raises(LabelStudioError, match="wrote 0 of 2 predictions"):
        client.prediction_import.run(project, "v1", rows, refused.__setitem__)
    assert refused == {}
    assert client.prediction_import.run(project, "v1", rows[:1], refused.__setitem__) == 1
    assert set(refused) == {ids[0]}


def test_a_score_outside_of_0_to_1_is_never_sent(client: LabelStudioClient, project: int) -> None:
    (task,) = add_tasks(client, project, 1)
    for score in (1.25, -0.1, math.nan, math.inf):
        with pytest.raises(LabelStudioError, match=r"score .* not in \[0, 1\]"):
            client.predictions.create("yolo-v1", PredictionRow(task, score))
    assert client.predictions.of_task(task) == []


def test_the_queue_tells_its_scores_without_the_results(client: LabelStudioClient, project: int) -> None:
    labeled, unlabeled, without = add_tasks(client, project, 3)
    client.annotations.create(labeled, [box()])
    for task in (labeled, unlabeled):
        client.predictions.create("yolo-v1", PredictionRow(task, 0.25, (region(),)))
    client.predictions.create("yolo-v10", PredictionRow(without, 0.5, (region(),)))
    client.projects.set_model_version(project, "yolo-v1")
    assert client.predictions.queue_scores(project, "yolo-v1") == {unlabeled: 0.25}
    assert client.predictions.highest_number(project) == 10


def test_a_prediction_is_replaced_in_place(client: LabelStudioClient, project: int) -> None:
    (task,) = add_tasks(client, project, 1)
    client.prediction_import.run(project, "yolo-v1", iter([PredictionRow(task, 0.5, (region("cat"),))]))
    (stamp,) = client.predictions.stamps(project, "yolo-v1")
    client.predictions.update(stamp.id, "yolo-v1", PredictionRow(task, 0.25, (region("dog"),)))
    (stored,) = client.predictions.of_task(task)
    assert (stored.id, stored.score, stored.version) == (stamp.id, 0.25, "yolo-v1")
    assert stored.result[0]["value"]["rectanglelabels"] == ["dog"]
