"""GET /ready: whether redis, store, Label Studio and workers answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backend.loop.context import Context
from backend.queue import presence
from backend.queue.rq_queue import QUEUES
from backend.settings import Settings
from backend.subprocesses import free_port
from backend.web import readiness
from tests.site import Site
from tests.support import open_context, serve


@pytest.fixture
def studio() -> Iterator[Site]:
    site = Site()
    site.put("/api/current-user/whoami", b'{"email": "admin@example.com"}')
    yield site
    site.close()


@pytest.fixture
def whole(settings: Settings, studio: Site) -> Settings:
    return settings.model_copy(update={"label_studio_url": studio.url, "label_studio_api_key": "a-legacy-token"})


def ask(context: Context) -> tuple[int, dict[str, Any]]:
    with serve(context) as client:
        answer = client.get("/ready")
        assert client.get("/health").status_code == 200  # /health only says that the server runs
    return answer.status_code, answer.json()


def test_all_answers(whole: Settings) -> None:
    with open_context(whole) as context:
        presence.note_workers(context.redis, QUEUES)
        presence.note_reconcile(context.redis)
        status, state = ask(context)
    assert status == 200
    assert (state["ready"], state["redis"], state["store"], state["label_studio"]) == (True, "ok", "ok", "ok")
    assert state["workers"] == dict.fromkeys(QUEUES, 1)
    assert state["reconciled"].endswith("+00:00")
    assert state["models"] == "not loaded"


def test_no_workers_and_no_reconcile(whole: Settings) -> None:
    with open_context(whole) as context:
        presence.note_workers(context.redis, ["control", "score"])
        status, state = ask(context)
    assert (status, state["ready"], state["reconciled"]) == (503, False, "")
    assert state["workers"] == {"control": 1, "score": 1, "train": 0}


def test_the_reason_why_something_does_not_answer(whole: Settings, studio: Site) -> None:
    studio.put("/api/current-user/whoami", b'{"detail": "Invalid token."}', status=401)
    with open_context(whole.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})) as context:
        status, state = ask(context)
    assert status == 503
    assert state["redis"].startswith("redis does not answer: ")
    assert "refuses the token" in state["label_studio"]
    assert state["store"] == "ok"


def test_label_studio_is_not_asked_at_every_probe(
    whole: Settings, studio: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "KEPT_S", 3600.0)
    with open_context(whole) as context, serve(context) as client:
        for _ in range(5):
            client.get("/ready")
    assert len(studio.requests) == 1
