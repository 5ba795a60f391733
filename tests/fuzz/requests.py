"""HTTP requests with random changes: each is answered with a status under 500, or its connection is closed.

They go as bytes over a socket to a real server of this process, so they may be requests that no client would send. No
name is looked up, and no other host is asked.
"""

from __future__ import annotations

import json
import random
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from backend.cli.redis_process import start_redis
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.media import deadline
from backend.settings import Settings
from backend.yolo import base_weights
from tests.fuzz import MEGABYTE, Report, measure
from tests.site import Site
from tests.support import CONFIG, IMGSZ, TWO_TAGS, open_context, serve

PATHS = (
    *("/health", "/", "/metrics", "/versions", "/versions?project=7", "/api/projects/7", "/api/projects/8"),
    *("/api/projects/7/label-errors", "/api/projects/7/frames/3", "/setup", "/predict", "/webhook", "/train"),
)
BODIES: tuple[tuple[str, Any], ...] = (
    ("/setup", {"project": "7.17", "schema": CONFIG, "hostname": "http://studio", "extra_params": {"IMGSZ": 64}}),
    ("/setup", {"project": 8, "schema": TWO_TAGS, "extra_params": '{"STRATEGY": "entropy", "RATE": "10/hour"}'}),
    ("/predict", {"tasks": [{"id": 1, "data": {"image": "data:,x"}}], "project": "7.17", "label_config": CONFIG}),
    ("/predict", {"tasks": [{"data": {"image": "http://127.0.0.1/a.png"}}, {"data": None}], "label_config": CONFIG}),
    ("/webhook", {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "annotation": {"id": 1}}),
    ("/webhook", {"action": "START_TRAINING", "project": {"id": 7, "title": "a"}}),
    ("/train", {"project": "7.17", "annotations": []}),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, [], {}, "", " ", "7"),
    *("9" * 300, "9" * 5000, "\x00", "\n", "\ud800", "../../etc/passwd", "<View/>", "a" * 5000, "𝟕", "٣", "7.x", "NaN"),
    *([[[[[]]]]], {"id": {"id": 7}}, [None], {"": ""}, {"a" * 300: 1}, "s3://bucket/a.png", "http://xn--a/"),
)
PIECES = (
    *(
        "9" * 300,
        "9" * 5000,
        "%00",
        "%2e%2e/",
        "../",
        "//",
        "?",
        "#",
        "%",
        "%zz",
        "\x00",
        "\r\n",
        "\n",
        " ",
        "\xff",
        "-1",
    ),
    *("7.5", "1e3", "٣", "²", "\ud800", "&project=", "=", ";", "{}", "<a>", "'", '"', "a" * 3000, "+1", "0x7", "_"),
)
HEADERS = (
    *("Content-Type: text/plain", "Content-Type: application/json; charset=utf-16", "Origin: http://evil.example"),
    *(
        "Host: evil.example",
        "Host: ",
        "Content-Length: -1",
        "Content-Length: 99999999999",
        "Content-Length: " + "9" * 30,
    ),
    *("Content-Length: x", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Expect: 100-continue"),
    *("Authorization: Basic ***", "Connection: Upgrade", "Upgrade: websocket", "X: " + "y" * 3000, "Cookie: \xff"),
    *(f"{WEBHOOK_HEADER}: \xff", "Range: bytes=0-", "Accept-Encoding: br", ": empty", "no colon"),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "get", "G\xffT", "")
PATIENCE_S = 900.0  # the first prediction loads the model, which takes minutes on a busy machine
_LENGTHS = {"content-length", "transfer-encoding", "expect", "upgrade"}


def run(cases: int, seed: int) -> Report:
    """Send mutated requests; an answer of 500 or more is an escape.

    The peak memory is counted from that of the server after one prediction.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Site()) as studio,  # has no files: it answers 404 for an unknown task, like Label Studio
        start_redis(Path(folder) / "redis") as redis,
        mock.patch.object(base_weights, "_download", return_value=False),
        mock.patch.object(deadline, "getaddrinfo", _resolved),
    ):
        settings = Settings(
            model_dir=f"{folder}/models", redis_url=redis.url, imgsz=IMGSZ, device="cpu", log_level="ERROR"
        )
        settings = settings.model_copy(update={"label_studio_url": studio.url, "label_studio_api_key": "a token"})
        with open_context(settings) as context, serve(context) as client:
            client.post("/setup", json=BODIES[0][1]).raise_for_status()
            address = urlsplit(str(client.base_url))
            secret = context.store.secret()
            client.post("/predict", json=BODIES[2][1], timeout=PATIENCE_S).raise_for_status()  # loads the model
            idle_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
            report = measure(
                mutated(cases, secret, random.Random(seed)),
                lambda sent: _ask(address.hostname or "", address.port or 0, sent),
            )
            report.peak_mb -= idle_mb
            return report


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes to send; if not `whole`, they state a wrong length, and the sender hangs up after them."""

    content: bytes
    whole: bool


def mutated(cases: int, secret: str, draw: random.Random) -> Iterator[Request]:
    """Yield requests with one to four changes each."""
    for _ in range(cases):
        path, body = draw.choice(BODIES) if draw.random() < 0.7 else (draw.choice(PATHS), None)
        method, headers = "POST" if body is not None else "GET", []
        for _ in range(draw.randint(1, 4)):
            match draw.randrange(6):
                case 0:
                    path = _spoiled(path, draw)
                case 1 | 2 if body is not None:
                    body = _changed(body, draw)
                case 3:
                    headers.append(draw.choice(HEADERS))
                case 4 if draw.random() < 0.3:
                    method = draw.choice(METHODS)
                case _ if draw.random() < 0.3:
                    path = draw.choice(PATHS)
        yield _request(method, path, headers, body, secret, draw)


def _request(method: str, path: str, headers: list[str], body: Any, secret: str, draw: random.Random) -> Request:
    content = b"" if body is None else json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "replace")
    if content and draw.random() < 0.1:
        at = draw.randrange(len(content))
        content = content[:at] + bytes([draw.randrange(256)]) * draw.randint(1, 30) + content[at + draw.randint(0, 9) :]
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", *headers]
    names = {line.partition(":")[0].lower() for line in headers}
    usual = {
        "host": "127.0.0.1",
        "content-type": "application/json",
        "content-length": str(len(content)),
        WEBHOOK_HEADER.lower(): secret,
    }
    lines += [f"{name}: {value}" for name, value in usual.items() if name not in names]
    whole = names.isdisjoint(_LENGTHS) and method != "HEAD" and not any("\n" in line for line in lines)
    return Request("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + content, whole)


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one part replaced, removed, added or repeated."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        name = draw.choice(list(value))
        if draw.random() < 0.15:
            return {key: inner for key, inner in value.items() if key != name}
        return value | {name: _changed(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        if draw.random() < 0.2:
            return value * draw.choice((0, 2, 50))
        return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]
    if isinstance(value, str) and draw.random() < 0.5:
        return _spoiled(value, draw)
    return draw.choice(VALUES)


def _spoiled(text: str, draw: random.Random) -> str:
    at, end = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
    piece = draw.choice((*PIECES, chr(draw.randrange(0x110000))))
    return draw.choice((text[:at] + piece + text[at:], text[:at] + piece + text[end:], text[:at] + text[end:]))


def _ask(host: str, port: int, sent: object) -> str:
    """Send a request and read the answer to its end; return its status, "closed" for no answer."""
    assert isinstance(sent, Request)
    with socket.create_connection((host, port), PATIENCE_S) as connection:
        connection.sendall(sent.content)
        if not sent.whole:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    if answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    status = answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/") else "closed"
    assert status < "500" or status == "closed", answer[:500]
    assert tempfile.gettempdir().encode() not in answer, answer[:500]
    return status


def _resolved(host: str, port: int, *args: object, **options: object) -> list[tuple[object, ...]]:
    """Stand in for the name service: like the real one it encodes the name, but it only resolves IP addresses."""
    host.encode("idna")
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
