"""The whole backend in one command: redis (unless REDIS_URL is set), workers and server, as children of ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from backend.context import local_dir
from backend.errors import BackendError
from backend.processes import free_port, running, start_redis, wait_ready
from backend.settings import Settings

START_S = 60.0
_ADDRESS_FILE = "redis.url"  # how `yolo-backend status` and the like find the embedded redis


@contextmanager
def backend_processes(settings: Settings, environ: Mapping[str, str], logs: Path | None = None) -> Iterator[str]:
    """Run everything until the block ends; gives the server's URL. Raises BackendError if a part does not come up.

    With `logs`, a folder, the output of worker and server goes to files in it.
    """
    with ExitStack() as stack:
        redis_url = settings.redis_url or stack.enter_context(_embedded_redis(settings))
        port = settings.port or free_port()
        child_environ = {**environ, "REDIS_URL": redis_url, "PORT": str(port), "HOST": settings.host}
        worker_log, server_log = (logs / "worker.log", logs / "server.log") if logs else (None, None)
        stack.enter_context(running(_command("worker"), child_environ, worker_log))
        server = stack.enter_context(running(_command("serve"), child_environ, server_log))
        url = f"http://{'127.0.0.1' if settings.host == '0.0.0.0' else settings.host}:{port}"  # noqa: S104 compared only
        wait_ready(server, lambda: httpx.get(f"{url}/health", timeout=1).is_success, "the server", START_S)
        yield url


def running_redis(settings: Settings) -> str:
    """Return the address of the embedded redis that a running `yolo-backend run` left in MODEL_DIR."""
    path = local_dir(settings) / _ADDRESS_FILE
    if not path.is_file():
        raise BackendError("no redis", where=str(path), fix="start `yolo-backend run` first, or set REDIS_URL")
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def _embedded_redis(settings: Settings) -> Iterator[str]:
    folder = local_dir(settings)
    with start_redis(folder / "redis") as redis:
        address = folder / _ADDRESS_FILE
        address.write_text(redis.url, encoding="utf-8")
        try:
            yield redis.url
        finally:
            address.unlink(missing_ok=True)


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "backend.cli", name]
