"""The whole backend in one command: redis (unless REDIS_URL is set), workers and server, as child processes."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from backend.cli.redis_process import await_redis, redis_command
from backend.errors import BackendError
from backend.loop.context import is_remote, local_dir
from backend.settings import Settings
from backend.store.guarded_files import open_store_files
from backend.store.run_record import recorded
from backend.subprocesses import free_port, require_free_port, wait_ready
from backend.worker.supervision import Part, Supervised, watch

START_S = 60.0
_PATIENCE_S = 0.5  # commands that read the address hold the lock for a moment
_ADDRESS_FILE = "redis.url"  # how `yolo-backend status` and the like find the embedded redis
_LOCK_FILE = "run.lock"  # locked while a `yolo-backend run` has its redis in MODEL_DIR

_NAMES = {"worker": "the worker", "serve": "the server"}


@dataclass(frozen=True, slots=True)
class Backend:
    """A running backend: the address of its server, and its parts: child processes, and its record in the store."""

    url: str
    parts: tuple[Supervised, ...]

    def look(self) -> None:
        """Start parts again that have ended. Raises BackendError if a part ends too often."""
        for part in self.parts:
            part.look()

    def watch(self, stop: threading.Event) -> None:
        """Keep all parts alive until `stop` is set. Raises BackendError if a part ends too often."""
        watch(self.parts, stop)


@contextmanager
def backend_processes(settings: Settings, environ: Mapping[str, str], logs: Path | None = None) -> Iterator[Backend]:
    """Run all parts until the block ends. Raises BackendError if a part does not start.

    `logs` is a folder for the output of worker and server; without it they write to ours.
    """
    if settings.port:
        require_free_port(settings.host, settings.port)
    port = settings.port or free_port()
    with ExitStack() as stack:
        parts: list[Supervised] = []
        redis_url = settings.redis_url
        if not redis_url:
            if is_remote(settings):
                parts.append(stack.enter_context(recorded(open_store_files(settings.model_dir, local_dir(settings)))))
            redis, redis_url = stack.enter_context(_embedded_redis(settings))
            parts.append(redis)
        child_environ = {**environ, "REDIS_URL": redis_url, "PORT": str(port), "HOST": settings.host}
        for name, description in _NAMES.items():
            command = [sys.executable, "-m", "backend.cli", name]
            part = Part(
                description, command, child_environ, logs / f"{description.removeprefix('the ')}.log" if logs else None
            )
            stack.callback(part.stop)
            parts.append(part)
        url = f"http://{'127.0.0.1' if settings.host == '0.0.0.0' else settings.host}:{port}"  # noqa: S104 compared only
        wait_ready(part, lambda: httpx.get(f"{url}/health", timeout=1).is_success, _NAMES["serve"], START_S)
        yield Backend(url, tuple(parts))


def running_redis(settings: Settings) -> str:
    """Return the address of a running `yolo-backend run`'s redis, from MODEL_DIR; raises BackendError for none."""
    folder = local_dir(settings).resolve()
    try:
        with _lock(folder):
            pass
    except BlockingIOError:
        return (folder / _ADDRESS_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    raise BackendError(
        "no `yolo-backend run` is at work here",
        where=str(folder),
        fix="start `yolo-backend run`, or set MODEL_DIR to the folder of the one at work; with a redis of your own set "
        "REDIS_URL",
    )


@contextmanager
def _embedded_redis(settings: Settings) -> Iterator[tuple[Part, str]]:
    """Run a redis with its data in MODEL_DIR; yield it and its address. Raises BackendError if another one runs."""
    folder = local_dir(settings).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _LOCK_FILE).touch()
    with ExitStack() as stack:
        try:
            stack.enter_context(_lock(folder, _PATIENCE_S))
        except BlockingIOError:
            raise BackendError(
                "another `yolo-backend run` is at work on this MODEL_DIR",
                where=str(folder),
                fix="end it, or give this one a MODEL_DIR of its own; to share one, set REDIS_URL to the same redis "
                "for both",
            ) from None
        port = free_port()  # a restart keeps it, because the other child processes have it
        address, url = folder / _ADDRESS_FILE, f"redis://127.0.0.1:{port}/0"
        redis = Part("redis", redis_command(folder / "redis", port), os.environ, folder / "redis" / "redis.log")
        stack.callback(redis.stop)
        await_redis(redis, url)
        address.write_text(url, encoding="utf-8")
        stack.callback(address.unlink, missing_ok=True)
        yield redis, url


@contextmanager
def _lock(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock. Raises BlockingIOError if a running process holds it; a killed process releases it."""
    deadline = time.monotonic() + patience_s
    with (folder / _LOCK_FILE).open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.05)
        yield
