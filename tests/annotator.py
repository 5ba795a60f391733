"""Scripted annotators. They label through the same requests that Label Studio's editor sends from a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from backend.simulate.annotator import Oracle
from backend.types import ControlTag, Json, Task

PATIENCE_S = 60.0  # a browser would wait longer, but its user would not


@dataclass(slots=True)
class Diary:
    """The results of an annotator's requests."""

    labels: int = 0
    requests: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Annotator:
    """A signed-in user who knows the true labels; it sends no request twice."""

    browser: httpx.Client
    project_id: int
    tag: ControlTag
    oracle: Oracle
    pause_s: float  # between two tasks
    diary: Diary

    def work(self, end: threading.Event) -> None:
        """Label task after task until `end` is set, or the queue is empty."""
        while not end.wait(self.pause_s):
            payload = self._send("GET", f"/api/projects/{self.project_id}/next/")
            if payload is None:
                continue
            task = Task(payload["id"], payload["data"])
            regions: list[Json] = self.oracle.answer(self.tag, task)
            seconds = {"lead_time": 3.0}
            # The editor saves a draft on the way.
            self._send("POST", f"/api/tasks/{task.id}/drafts", {"result": regions[:1], **seconds})
            query = f"?project={self.project_id}"
            if self._send("POST", f"/api/tasks/{task.id}/annotations/{query}", {"result": regions, **seconds}):
                self.diary.labels += 1
            self._send("GET", f"/api/tasks/{task.id}/{query}")

    def _send(self, method: str, path: str, body: Json | None = None) -> Any:
        """Return the answer, None for a request that fails; the diary records it."""
        diary, started = self.diary, time.monotonic()
        diary.requests += 1
        try:
            response = self.browser.request(method, path, json=body)
        except httpx.HTTPError as error:
            diary.failures.append(f"{method} {path}: {type(error).__name__} {error}")
            return None
        diary.slowest_s = max(diary.slowest_s, time.monotonic() - started)
        if not response.is_success:
            diary.failures.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
            return None
        return response.json()


@contextmanager
def browser_of(url: str, email: str, password: str) -> Iterator[httpx.Client]:
    """Yield a client that is logged in with a cookie."""
    with httpx.Client(base_url=url, timeout=PATIENCE_S, headers={"Referer": url}) as browser:
        browser.get("/user/login/").raise_for_status()
        form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post("/user/login/", data=form).status_code == 302
        browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]  # a login changes it
        yield browser
