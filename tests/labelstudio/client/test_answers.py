"""Servers in Label Studio's place: JSON of another shape, proxies, and unknown certificates."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backend.cli.label_studio_process import label_studio_binary
from backend.errors import BackendError, LabelStudioError, NotFoundError, SettingError
from backend.evaluation.label_quality import LabelIssue, Review
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests.support import CONFIG, open_context, require, serve

MOST_REQUESTS = 20  # requests of one call: after a wrong answer it must not go on


class Answers(ThreadingHTTPServer):
    """A server that gives every request the same answer, and counts them."""

    status = 200
    body = b"{}"
    content_type = "application/json"
    count = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.count += 1
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def answering(certificate: Path | None = None) -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), _Handler) as server:
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Answers]:
    with answering() as server:
        yield server


# ── JSON of another shape ───────────────────────────────────────────────────────────────────────────────────────

TASK = {"id": 1, "data": {}, "is_labeled": False, "annotations": [], "predictions": []}
_SHAPES: dict[str, Any] = {
    "null": None,
    "an empty list": [],
    "an empty object": {},
    "a text": "text",
    "a number": 5,
    "true": True,
    "a list of null": [None],
    "a list of lists": [[]],
    "a list of empty objects": [{}],
    "a list of texts": ["text"],
    "an object of null": {"id": None, "tasks": None, "created": None, "total": None, "email": None},
    "an object of texts": {"id": "x", "tasks": "x", "created": "x", "total": "x", "email": "x", "v1": "x"},
    "an object of lists": {"id": [], "tasks": [None], "created": [], "total": [], "email": [], "v1": []},
    "an object of objects": {"id": {}, "tasks": {}, "created": {}, "total": {}, "email": {}, "v1": {}},
    "negative numbers": {"id": -1, "tasks": [{"id": -1}], "created": -1, "total": -1, "v1": -1},
    "a number as a text": {"created": "5", "id": "5", "total": "5"},
    "numbers too large": b'{"id": 1e400, "created": 1e400, "total": 1e400, "v1": 1e400}',
    "NaN": b'{"id": NaN, "created": NaN, "total": NaN, "v1": NaN}',
    "tasks without end": {"tasks": [TASK] * 1000},
    "tasks that lack fields": {"tasks": [{"id": 1}]},
    "tasks of null": {"tasks": [dict.fromkeys(TASK)]},
    "nested too deep": b"[" * 100_000 + b"]" * 100_000,
    "cut off": b'{"tasks": [',
    "a page": b"<html><body>Welcome</body></html>",
    "nothing": b"",
    "a false count": {"created": 5, "tasks": []},
}
SHAPES = {name: shape if isinstance(shape, bytes) else json.dumps(shape).encode() for name, shape in _SHAPES.items()}
ROWS = [PredictionRow(task, 0.5) for task in range(1, 13)]
CALLS: dict[str, Callable[[LabelStudioClient], object]] = {
    "check": lambda client: client.check(),
    "project": lambda client: client.projects.get(1),
    "create_project": lambda client: client.projects.create("a", "b"),
    "set_sampling": lambda client: client.projects.set_sampling(1),
    "ensure_queue_tab": lambda client: client.tabs.ensure_queue(1),
    "ensure_label_issues_tab": lambda client: client.tabs.ensure_label_issues(1, 0.75),
    "set_label_issues": lambda client: client.tabs.set_label_issues(1, [1]),
    "ensure_webhook_header": lambda client: client.projects.ensure_webhook_header(1, "http://a.example", "X", "y"),
    "backends": lambda client: client.projects.backends(1),
    "attach_backend": lambda client: client.projects.attach_backend(1, "http://a.example", "a"),
    "task": lambda client: client.tasks.get(1),
    "tasks": lambda client: client.tasks.get_many(1, [1, 2]),
    "unlabeled_tasks": lambda client: list(client.tasks.unlabeled(1)),
    "annotated_tasks": lambda client: list(client.annotations.annotated_tasks(1)),
    "label_stamps": lambda client: client.annotations.stamps(1),
    "newest_activity": lambda client: client.annotations.newest_activity(1),
    "next_task": lambda client: client.tasks.next(1),
    "annotate": lambda client: client.annotations.create(1, []),
    "import_predictions": lambda client: client.prediction_import.run(1, "v1", ROWS, lambda task, reason: None),
    "prediction_versions": lambda client: client.predictions.versions(1),
    "predictions_of": lambda client: client.predictions.of_task(1),
    "predicted_tasks": lambda client: list(client.predictions.task_ids(1, "v1")),
    "prediction_ids": lambda client: client.predictions.ids(1, "v1", 20),
    "prediction_stamps": lambda client: list(client.predictions.stamps(1, "v1")),
    "create_prediction": lambda client: client.predictions.create("v1", ROWS[0]),
}


def error_of(call: str, client: LabelStudioClient) -> BackendError | None:
    """Return the error of a call; an exception that is not ours fails the test."""
    try:
        CALLS[call](client)
    except (LabelStudioError, NotFoundError) as error:
        return error
    return None


@pytest.mark.parametrize("call", CALLS)
def test_json_of_another_shape_is_one_error_that_says_what_was_expected(server: Answers, call: str) -> None:
    """It may also give a result, where the shape happens to fit."""
    with LabelStudioClient(f"http://{server.address}", "legacy") as client:
        for name, body in SHAPES.items():
            server.body, server.count = body, 0
            error = error_of(call, client)
            assert error is None or error.fix, f"{name}: {error}"
            assert server.count <= MOST_REQUESTS, name


def test_a_false_count_never_makes_predictions_bare(server: Answers) -> None:
    """Label Studio reports that it wrote 5 of 12, but it has none of them."""
    refused: dict[int, str] = {}
    server.body = SHAPES["a false count"]
    with (
        LabelStudioClient(f"http://{server.address}", "legacy") as client,
        pytest.raises(LabelStudioError, match="says that it wrote 5 of 12"),
    ):
        client.prediction_import.run(1, "v1", ROWS, refused.__setitem__)
    assert refused == {}
    assert server.count == 2, "the import, and one look at what is there"


# ── a proxy ─────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = b"<html>\n<head><title>502 Bad Gateway</title></head>\n<body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
PERSONAL_TOKEN = (  # a refresh token that nobody signed; it ends in the year 2100
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6NDEwMjQ0NDgwMH0."
    "c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl"
)


@pytest.mark.parametrize("key", ["legacy", PERSONAL_TOKEN])
@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_without_label_studio_is_named(server: Answers, key: str, status: int) -> None:
    server.status, server.body, server.content_type = status, PAGE, "text/html"
    with (
        LabelStudioClient(f"http://{server.address}", key) as client,
        pytest.raises(LabelStudioError, match=f"a proxy answers {status} in Label Studio's place") as caught,
    ):
        client.check()
    assert "502 Bad Gateway" in str(caught.value)
    assert "<" not in str(caught.value)
    assert "behind the proxy" in caught.value.fix


def test_a_request_that_a_proxy_finds_too_large(server: Answers) -> None:
    server.status, server.body, server.content_type = 413, PAGE.replace(b"502 Bad Gateway", b"413"), "text/html"
    with (
        LabelStudioClient(f"http://{server.address}", "legacy") as client,
        pytest.raises(LabelStudioError, match=r"too large.*client_max_body_size"),
    ):
        client.prediction_import.run(1, "v1", ROWS)


def test_who_asks_us_sees_the_reason(server: Answers, settings: Settings) -> None:
    """A request that needs Label Studio ends with a reason and a cure, not with a bare 500."""
    server.status, server.body, server.content_type = 502, PAGE, "text/html"
    keys = {"label_studio_url": f"http://{server.address}", "label_studio_api_key": "legacy"}
    with open_context(settings.model_copy(update=keys)) as context, serve(context) as backend:
        context.store.save_project(ProjectRecord(1, CONFIG, "", "", "", ""))
        issue = LabelIssue(1, 1, "then", 0.2, "swapped", "cat", None, learned=True)
        context.store.state.save_review(1, 0, Review((issue,)))
        answer = backend.get("/api/projects/1/label-errors")
    assert answer.status_code == 502
    assert "a proxy answers 502" in answer.json()["error"]
    assert "behind the proxy" in answer.json()["fix"]


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


CERTIFICATE = """
import datetime, ipaddress, sys
from pathlib import Path
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
hour = datetime.timedelta(hours=1)
certificate = (
    x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - hour, now + 24 * hour)
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .add_extension(x509.SubjectAlternativeName([address]), critical=False)
    .sign(key, hashes.SHA256())
)
pem, pkcs8, bare = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
Path(sys.argv[1]).write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, pkcs8, bare))
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a self-signed certificate for 127.0.0.1 and its key, made with Label Studio's Python packages."""
    python = label_studio_binary().with_name("python")
    require(python.exists(), f"there is no Label Studio at {python}: make installs it, or set LABEL_STUDIO_BIN")
    path = tmp_path_factory.mktemp("authority") / "localhost.pem"
    subprocess.run([python, "-c", CERTIFICATE, path], check=True, timeout=60)
    return path


def test_an_authority_of_our_own_is_trusted_on_this_machine_too(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with answering(authority) as server, LabelStudioClient(f"https://{server.address}", "legacy") as client:
        server.body = b'{"email": "a@example.com"}'
        assert client.check() == "a@example.com"


def test_an_unknown_authority_has_its_cure(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with (
        answering(authority) as server,
        LabelStudioClient(f"https://{server.address}", "legacy") as client,
        pytest.raises(LabelStudioError, match=r"certificate that is not trusted.*set SSL_CERT_FILE"),
    ):
        client.check()


def test_https_where_http_is_spoken(server: Answers) -> None:
    with (
        LabelStudioClient(f"https://{server.address}", "legacy") as client,
        pytest.raises(LabelStudioError, match="write http:// in LABEL_STUDIO_URL"),
    ):
        client.check()


def test_a_certificate_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for path in (empty, tmp_path / "none.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(SettingError, match="SSL_CERT_FILE cannot be read") as caught:
            LabelStudioClient("https://labels.example", "legacy")
        assert isinstance(caught.value, BackendError)
        assert str(path) in str(caught.value)
