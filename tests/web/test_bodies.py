"""Large bodies: the server still answers Label Studio, and needs little memory."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from backend.errors import RequestError, TooLargeError
from backend.loop.context import Context
from backend.settings import Settings
from backend.subprocesses import free_port, running, wait_ready
from backend.web import bodies
from backend.web.bodies import parse
from backend.web.protocol import MAX_TASKS, PredictRequest, WebhookRequest
from tests.support import CONFIG, ROOT, serve

SIZE = 15_000_000
SERVE = """
import sys
from backend import settings
from backend.loop import context
from backend.web import listener
listener.listen(context.build(settings.Settings.model_validate_json(sys.argv[1])))
"""
JSON = {"content-type": "application/json"}
LABELED: Mapping[str, Any] = {
    "id": 1,
    "data": {"image": "/data/upload/1/abc.jpg", "note": "x" * 200},
    "annotations": [{"id": 1, "result": [{"id": "a", "type": "brushlabels", "value": {"rle": [7] * 350}}]}],
}


def body(tasks: str) -> bytes:
    """Return a request for predictions that fails as soon as it is read, because its label config has no tags."""
    return ('{"label_config": "<View/>", "project": "7.1", "tasks": [' + tasks + "]}").encode()


def tiny() -> bytes:
    return body(",".join(f'{{"id":{number},"data":{{}}}}' for number in range(1, SIZE // 24)))


def labeled() -> bytes:
    return body(",".join([json.dumps(LABELED)] * MAX_TASKS))


def body_of_one(value: str) -> bytes:
    return body('{"id": 1, "data": {"image": [' + ",".join([value] * (SIZE // (len(value) + 1))) + "]}}")


KINDS: Mapping[str, tuple[bytes, int]] = {
    "10,000 labeled tasks": (labeled(), 400),
    "650,000 tasks": (tiny(), 413),
    "one task of numbers": (body_of_one("0"), 413),
    "one task of lists": (body_of_one("[]"), 413),
    "one task of objects": (body_of_one('{"a":1}'), 413),
    "no end": (labeled()[:-2], 400),
}


@pytest.fixture
def server(redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Return the address and the process id of a new server."""
    settings = Settings(model_dir=str(tmp_path), redis_url=redis_url, port=free_port())
    with running(
        [sys.executable, "-c", SERVE, settings.model_dump_json()], os.environ | {"PYTHONPATH": str(ROOT)}
    ) as child:
        url = f"http://127.0.0.1:{settings.port}"
        wait_ready(child, lambda: httpx.get(f"{url}/health", timeout=1).is_success, "the server", 120)
        yield url, child.process.pid


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def slowest(url: str, until: threading.Event) -> float:
    """Send GET /health again and again; return the longest wait in seconds."""
    waits = [0.0]
    while not until.is_set():
        started = time.monotonic()
        httpx.get(f"{url}/health", timeout=120).raise_for_status()
        waits.append(time.monotonic() - started)
    return max(waits)


@pytest.mark.parametrize("kind", KINDS)
def test_four_large_bodies_at_once_leave_the_health_alone(server: tuple[str, int], kind: str) -> None:
    """Before, /health took 34 s, as long as all four bodies, and the server 4.7 GB. Now: a small share, and 500 MB."""
    (url, pid), (content, status) = server, KINDS[kind]
    before, done = peak_mb(pid), threading.Event()
    with ThreadPoolExecutor(5) as threads:
        health = threads.submit(slowest, url, done)
        started = time.monotonic()
        futures = [
            threads.submit(httpx.post, f"{url}/predict", content=content, headers=JSON, timeout=300) for _ in range(4)
        ]
        answers = {future.result().status_code for future in futures}
        spent = time.monotonic() - started
        done.set()
        waited = health.result()
    grown = peak_mb(pid) - before
    print(f"{kind}: {spent:.1f} s for four, the health took {waited:.2f} s at most, {grown:.0f} MB more")
    assert answers == {status}
    assert waited < max(spent / 2, 5.0)  # before: 34 s, as long as all four bodies
    assert grown < 500


@pytest.mark.parametrize("filler", [0, 300_000])
def test_a_large_body_reads_as_a_small_one(filler: int) -> None:
    """Below and above LARGE_BYTES the result is the same."""
    tasks: list[dict[str, Any]] = [
        {"id": 3, "data": {"image": "ä.png", "deep": [{"a": [1, None]}]}, "meta": "x" * filler},
        {"data": None},
    ]
    text = json.dumps(
        {"tasks": tasks, "label_config": CONFIG, "project": {"id": 7, "title": "]"}, "other": {"tasks": []}}
    )
    parsed = parse(text.encode(), PredictRequest, "/predict")
    assert [(task.id, task.data) for task in parsed.tasks] == [(3, tasks[0]["data"]), (None, None)]
    assert (parsed.project, parsed.label_config) == (7, CONFIG)
    hook = {"action": "TASKS_CREATED", "project": {"id": 8}, "tasks": tasks}
    assert parse(json.dumps(hook).encode(), WebhookRequest, "/webhook").project == 8


@pytest.mark.parametrize("filler", [0, 300_000])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tasks": [1]}, "tasks.0: "),
        ({"tasks": [{"id": "x", "data": {}}]}, "tasks.0.id: "),
        ({"tasks": [{"id": 1}]}, "tasks.0.data: "),
        ({"tasks": {}}, "tasks: "),
        ({"label_config": 3}, "label_config: "),
        ({"tasks": [{"id": 1, "data": [1]}]}, "tasks.0.data: "),
    ],
)
def test_the_same_things_are_wrong_with_a_large_body(change: dict[str, object], named: str, filler: int) -> None:
    text = json.dumps({"tasks": [], "label_config": CONFIG, "filler": "x" * filler} | change)
    with pytest.raises(RequestError) as caught:
        parse(text.encode(), PredictRequest, "/predict")
    assert caught.value.what.startswith(named)
    assert caught.value.where == "/predict"


@pytest.mark.parametrize("filler", [0, 300_000])
def test_so_many_tasks_and_no_more(monkeypatch: pytest.MonkeyPatch, filler: int) -> None:
    def content(count: int) -> bytes:
        task: dict[str, object] = {"data": {}}
        return json.dumps({"tasks": [task] * count, "label_config": "", "filler": "x" * filler}).encode()

    assert len(parse(content(MAX_TASKS), PredictRequest, "/predict").tasks) == MAX_TASKS == 10_000
    with pytest.raises(TooLargeError, match="10,000"):
        parse(content(MAX_TASKS + 1), PredictRequest, "/predict")


def test_what_all_requests_hold_together_is_bounded(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server releases the memory of every body, whether it answers or refuses it."""
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 1000)
    with serve(context) as client:
        for _ in range(3):
            assert client.post("/setup", content=b" " * 900, headers=JSON).status_code == 400
            assert client.post("/setup", content=b" " * 1100, headers=JSON).status_code == 503
    assert MAX_TASKS == 10_000
