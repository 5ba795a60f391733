"""A real redis that a test may kill, stop and start again, with or without its data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from backend.cli.redis_process import redis_binary
from backend.subprocesses import free_port

START_S = 60.0


class Outages:
    """A redis on its own port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self, *, empty: bool = False) -> None:
        """Start it, with the data of its file or empty; return when it answers."""
        if empty:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._folder), "--save", ""]
        command = [str(redis_binary()), *options, "--appendonly", "yes", "--appendfsync", "always"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        with Redis.from_url(self.url) as client:
            while time.monotonic() < deadline:
                try:
                    client.ping()
                except RedisError:
                    time.sleep(0.02)
                else:
                    return
        raise AssertionError(f"redis does not start: {(self._folder / 'log').read_text()}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend it: connections stay open, but it does not answer."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def own_redis(folder: Path) -> Iterator[Outages]:
    """Run a redis that only this test uses."""
    outages = Outages(folder)
    outages.start()
    try:
        yield outages
    finally:
        outages.kill()
