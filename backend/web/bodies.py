"""The bodies of requests: how much the server accepts at once, and how it reads them without blocking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError

from backend.errors import OverloadedError, RequestError, TooLargeError
from backend.labelstudio.client import json_parts
from backend.web.protocol import MAX_TASKS

MAX_BODY_BYTES = 64 * 1024 * 1024  # LS sends 2,000 tasks in about 4 MB
MAX_HELD_BYTES = 4 * MAX_BODY_BYTES  # of all requests together
LARGE_BYTES = 256 * 1024
MAX_PART_BYTES = 1024 * 1024  # of a label config, or of the data of one task
MAX_DATA_BYTES = 32 * 1024 * 1024  # of the data of all tasks of a request
MAX_BRACKETS = 1_000_000  # each costs one step; 64 MB of Label Studio's regions have fewer
LARGE_AT_ONCE = 4  # large requests in work at the same time
_TASK_FIELDS = ("id", "data")  # we do not read annotations, predictions and other fields

Body = TypeVar("Body", bound=BaseModel)


class Bodies:
    """The request bodies that a server holds in memory, and their limits."""

    def __init__(self) -> None:
        self._held = 0  # bytes
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._parsing = asyncio.Semaphore(1)

    @asynccontextmanager
    async def read(self, request: Request, model: type[Body]) -> AsyncIterator[Body]:
        """Give the body as `model`. At most LARGE_AT_ONCE large bodies are in work, each until its request is answered.

        Raises RequestError naming what is missing or wrong, TooLargeError, and OverloadedError when all requests
        together hold more than MAX_HELD_BYTES.
        """
        where, content = request.url.path, bytearray()
        try:
            async for chunk in request.stream():
                self._held += len(chunk)
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise too_large(where)
                if self._held > MAX_HELD_BYTES:
                    problem = "too many large requests at once"
                    raise OverloadedError(
                        problem, where=where, fix="try again in a minute, or send fewer tasks at once"
                    )
            async with AsyncExitStack() as stack:
                if len(content) > LARGE_BYTES:
                    await stack.enter_async_context(self._large)
                    async with self._parsing:
                        body = await run_in_threadpool(parse, bytes(content), model, where)
                else:
                    body = await run_in_threadpool(parse, bytes(content), model, where)
                yield body
        finally:
            self._held -= len(content)


def too_large(where: str) -> TooLargeError:
    """Return the error for a body above the limit."""
    return TooLargeError(f"the body is larger than {MAX_BODY_BYTES} bytes", where=where, fix="send fewer tasks at once")


def parse(content: bytes, model: type[Body], where: str) -> Body:
    """Return a JSON body as `model`; raises RequestError or TooLargeError."""
    try:
        if len(content) <= LARGE_BYTES:
            return model.model_validate_json(content)
        return model.model_validate(_wanted(content, model))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise RequestError(f"the body is not JSON: {first['msg']}", where=where, fix="send a JSON object") from None
        if first["type"] == "too_long":
            raise too_many(where) from None
        field = ".".join(map(str, first["loc"])) or "the body"
        fix = "send what Label Studio 1.23 sends to an ML backend"
        raise RequestError(f"{field}: {first['msg']}", where=where, fix=fix) from None
    except RequestError as error:
        error.where = where
        raise


def too_many(where: str) -> TooLargeError:
    """Return the error for a request with more tasks than we answer at once."""
    return TooLargeError(f"more than {MAX_TASKS:,} tasks", where=where, fix=f"send {MAX_TASKS:,} tasks at once")


def _wanted(content: bytes, model: type[BaseModel]) -> dict[str, object]:
    """Return those fields of a large body that `model` has."""
    if content.count(b"{") + content.count(b"[") > MAX_BRACKETS:
        raise TooLargeError(f"more than {MAX_BRACKETS:,} objects and lists", fix="send fewer tasks at once")
    names = {field.alias or name for name, field in model.model_fields.items()}
    values: dict[str, object] = {}
    for name, text in json_parts.members(content):
        if name == "tasks" and name in names and text[:1] == b"[":
            values[name] = _tasks(text)
        elif name in names:
            values[name] = json_parts.built(_bounded(name, text))
    return values


def _tasks(text: bytes) -> list[object]:
    tasks: list[object] = []
    size = 0
    for element in json_parts.elements(text):
        if len(tasks) == MAX_TASKS:
            raise too_many("")
        if element[:1] != b"{":
            tasks.append(json_parts.built(_bounded("a task", element)))
            continue
        task = {name: value for name, value in json_parts.members(element) if name in _TASK_FIELDS}
        size += sum(map(len, task.values()))
        if size > MAX_DATA_BYTES:
            fix = "send fewer tasks at once"
            raise TooLargeError(f"the data of the tasks is larger than {MAX_DATA_BYTES} bytes", fix=fix)
        place = len(tasks)
        tasks.append({name: json_parts.built(_bounded(f"tasks.{place}.{name}", task[name])) for name in task})
    return tasks


def _bounded(name: str, text: bytes) -> bytes:
    if len(text) > MAX_PART_BYTES:
        raise TooLargeError(f"{name} is larger than {MAX_PART_BYTES} bytes", fix="put large content behind a URL")
    return text
