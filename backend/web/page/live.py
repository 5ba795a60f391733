"""Server-sent events: the parts of a page that change while one looks at it.

An event carries the id of an element and its new HTML, so the server's templates are the only ones. All browsers that
look at the same part share one reading of it per second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import uvicorn
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError
from sse_starlette.sse import EventSourceResponse

from backend.errors import BackendError, OverloadedError
from backend.web.page import rendering
from backend.web.page.view import Parts

log = logging.getLogger(__name__)

PERIOD_S = 1.0
MOST_STREAMS = 100  # each holds a socket and reads once a second; a browser keeps one per open page


class LiveParts:
    """The live parts of all open pages, each read at most once per PERIOD_S."""

    def __init__(self) -> None:
        self._streams = Counter[str]()  # open streams by key
        self._last: dict[str, tuple[float, Parts]] = {}

    def stream(self, request: Request, key: str, read: Callable[[], Parts]) -> EventSourceResponse:
        """Return the events of the parts that `read` returns. Raises OverloadedError beyond MOST_STREAMS."""
        if self._streams.total() >= MOST_STREAMS:
            fix = "close pages that nobody looks at; the page still works, and a reload shows what is new"
            raise OverloadedError(f"{MOST_STREAMS} pages are open", where=request.url.path, fix=fix)
        return EventSourceResponse(self._events(request, key, read), headers=_HEADERS)

    async def _events(self, request: Request, key: str, read: Callable[[], Parts]) -> AsyncIterator[dict[str, str]]:
        self._streams[key] += 1
        sent: Parts = {}
        try:
            while not (_is_ending(request) or await request.is_disconnected()):
                parts = await self._current(key, read)
                for element, html in parts.items():
                    if sent.get(element) != html:
                        yield {"event": "part", "data": json.dumps({"id": element, "html": html})}
                sent = parts or sent
                await asyncio.sleep(PERIOD_S)
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]
                self._last.pop(key, None)

    async def _current(self, key: str, read: Callable[[], Parts]) -> Parts:
        """Return the parts, read at most PERIOD_S ago; none while redis, the store or Label Studio fails."""
        now = time.monotonic()
        at, parts = self._last.get(key, (0.0, Parts()))
        if now - at >= PERIOD_S:
            self._last[key] = now, parts  # others take the last parts meanwhile
            try:
                parts = await run_in_threadpool(read)
            except (BackendError, RedisError, OSError) as error:
                log.info("live parts of %s: %s", key, error)
                parts = {}
            self._last[key] = time.monotonic(), parts
        return parts


def _is_ending(request: Request) -> bool:
    """Return whether the server wants to end; uvicorn would wait for an open stream."""
    server: uvicorn.Server | None = getattr(request.app.state, "server", None)
    return server is not None and server.should_exit


_HEADERS = {name: value for name, value in rendering.HEADERS.items() if name != "vary"}
