"""`yolo-backend run` as a process: a child is killed, a port is in use, or it is started twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from backend.settings import Settings
from backend.subprocesses import free_port
from tests.site import Site
from tests.support import ROOT

pytestmark = pytest.mark.processes

PATIENCE_S = 120.0


@pytest.fixture
def studio() -> Iterator[Site]:
    """Answers the requests that a start sends to Label Studio."""
    site = Site()
    site.put("/api/current-user/whoami", b'{"email": "admin@example.com"}')
    yield site
    site.close()


@pytest.fixture
def environ(studio: Site, tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields},
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "a-legacy-token",
        "MODEL_DIR": str(tmp_path / "models"),
        "PYTHONPATH": str(ROOT),
    }


@dataclass
class Run:
    """A running `yolo-backend run`; its output goes to `log`."""

    process: psutil.Popen
    url: str
    log: Path
    model_dir: Path

    def child(self, name: str) -> psutil.Process:
        """Return the child whose command line names `name`."""
        children = {" ".join(child.cmdline()): child for child in self.process.children()}
        (command,) = (command for command in children if name in command)
        return children[command]

    def await_other(self, name: str, pid: int) -> psutil.Process:
        """Return the child that replaces a killed one."""

        def other() -> bool:
            try:
                return self.child(name).pid != pid
            except (ValueError, psutil.NoSuchProcess):
                return False

        await_true(other, f"another {name}")
        return self.child(name)


def await_true(condition: Callable[[], bool], event: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"no {event}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


@contextmanager
def running(environ: dict[str, str], folder: Path, cwd: Path | None = None) -> Iterator[Run]:
    port, log = free_port(), folder / "run.log"
    command = [sys.executable, "-m", "backend.cli", "run", "--port", str(port)]
    with log.open("wb") as sink, psutil.Popen(command, env=environ, cwd=cwd, stdout=sink, stderr=sink) as process:
        try:
            await_true(lambda: "backend: " in log.read_text() or process.poll() is not None, "start")
            assert process.poll() is None, log.read_text()
            yield Run(process, f"http://127.0.0.1:{port}", log, Path(environ["MODEL_DIR"]))
        finally:
            with suppress(psutil.NoSuchProcess):
                process.terminate()


def ended(environ: dict[str, str], *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *arguments],
        env=environ,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_killed_children_come_back_and_redis_keeps_its_address_and_data(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with running(environ, tmp_path) as run:
        await_true(lambda: httpx.get(f"{run.url}/ready", timeout=30).is_success, "readiness")
        with redis.Redis.from_url((run.model_dir / "redis.url").read_text()) as client:
            client.set("key", "value")
            time.sleep(1.1)  # redis writes its file every second
            killed = run.child("redis-server")
            killed.kill()
            run.await_other("redis-server", killed.pid)
            await_true(lambda: redis_answers(client), "redis")
            assert client.get("key") == b"value"
        for name in ("cli worker", "cli serve"):
            killed = run.child(name)
            killed.kill()
            run.await_other(name, killed.pid)
        await_true(lambda: answers(run.url), "server")
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(PATIENCE_S) == 0
    assert "it is started again (1 of 3)" in run.log.read_text()


def redis_answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_child_that_keeps_dying_ends_the_run(environ: dict[str, str], tmp_path: Path) -> None:
    with running(environ, tmp_path) as run:
        pid = 0
        for _ in range(4):
            child = run.await_other("cli worker", pid)
            pid = child.pid
            child.kill()
        assert run.process.wait(PATIENCE_S) == 1
    text = run.log.read_text()
    assert "error: the worker ended 4 times within 10 minutes, at last with status -9" in text
    assert "Traceback" not in text
    assert not answers(run.url)
    assert not (run.model_dir / "redis.url").exists()


def test_a_taken_port_is_said_before_anything_starts(environ: dict[str, str], studio: Site) -> None:
    studio.put("/health", b'{"status": "UP"}')  # it belongs to another process
    done = ended(environ, "run", "--port", str(studio.port))
    assert done.returncode == 1
    assert f"error: port {studio.port} is in use" in done.stderr
    assert "backend: " not in done.stdout
    assert not Path(environ["MODEL_DIR"]).exists()
    serve = ended(environ | {"REDIS_URL": "redis://127.0.0.1:1"}, "serve", "--port", str(studio.port))
    assert serve.returncode == 1
    assert "Traceback" not in serve.stderr


def test_a_second_run_on_one_model_dir_is_refused_until_the_first_is_gone(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with running(environ, tmp_path) as run:
        second = ended(environ, "run", "--port", "0")
        assert second.returncode == 1
        assert "error: another `yolo-backend run` is at work on this MODEL_DIR" in second.stderr
        assert str(run.model_dir) in second.stderr
        assert sum("redis-server" in " ".join(child.cmdline()) for child in run.process.children()) == 1
        assert ended(environ, "status", "99").stderr.count("never set up") == 1  # the first run goes on
        run.process.kill()
        run.process.wait()
    assert (run.model_dir / "redis.url").exists()
    stale = ended(environ, "status", "99")
    assert stale.returncode == 1
    assert f"no `yolo-backend run` is at work here [{run.model_dir}]" in stale.stderr
    (tmp_path / "again").mkdir()
    with running(environ, tmp_path / "again"):  # a killed run leaves no lock behind
        assert ended(environ, "status", "99").stderr.count("never set up") == 1


def test_a_second_run_on_one_object_store_is_refused_and_told_who_is_at_work(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """A file lock of one machine does not protect an object store; here two folders stand for two machines."""
    environ["MODEL_DIR"] = f"dir::file://{tmp_path}/store"  # fsspec takes a chained address for a remote one
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with running(environ, tmp_path, here) as run:
        second = ended(environ, "run", "--port", "0", cwd=there)
        assert second.returncode == 1
        assert f"MODEL_DIR: process {run.process.pid} on {socket.gethostname()}, since 20" in second.stderr
        assert f"{tmp_path}/store/runs]. Fix: end it, or give this one a MODEL_DIR of its own" in second.stderr
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(PATIENCE_S) == 0
    with running(environ, there, there) as run:  # a run that ended leaves no record behind
        run.process.kill()
        run.process.wait()
    killed = ended(environ, "run", "--port", "0", cwd=here)
    assert killed.returncode == 1
    assert "if it was killed, wait " in killed.stderr


@pytest.mark.parametrize("kind", ["refuses", "hangs", "no scheme", "elsewhere"])
def test_a_wrong_address_of_label_studio_ends_the_run_with_one_message(
    environ: dict[str, str], studio: Site, kind: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address, message = {
            "refuses": (f"http://127.0.0.1:{free_port()}", "Label Studio cannot be reached"),
            "hangs": (f"http://127.0.0.1:{silent.getsockname()[1]}", "Label Studio answers too slowly"),
            "no scheme": ("localhost:8080", "LABEL_STUDIO_URL='localhost:8080' is not a web address"),
            "elsewhere": (f"{studio.url}/other", "no Label Studio answers there"),
        }[kind]
        done = ended(environ | {"LABEL_STUDIO_URL": address}, "run", "--port", "0")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("Fix: ") == 1
    assert len(done.stderr.splitlines()) == 1
    assert not Path(environ["MODEL_DIR"]).exists()


@pytest.mark.parametrize("kind", ["a file is in the way", "the disk is full", "an S3 address"])
def test_a_model_dir_that_cannot_be_used_ends_the_run_with_its_cure(
    environ: dict[str, str], tmp_path: Path, kind: str
) -> None:
    models = tmp_path / "models"
    if kind == "a file is in the way":
        models.touch()
        cure = "move the file away: a folder belongs there"
    elif kind == "the disk is full":
        models.mkdir()
        (models / "redis.url").symlink_to("/dev/full")  # there is no room for the file with redis's address
        cure = "make room on this disk"
    else:
        environ = environ | {"MODEL_DIR": "s3://bucket/models"}
        cure = "pip install 'yolo-backend[s3]'"
    done = ended(environ, "run", "--port", "0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(f"Fix: {cure}")
    assert str(models) in last or kind != "a file is in the way"  # the system does not name the file


@pytest.mark.parametrize("url", ["banana", "localhost:9090", "http://", "ftp://x", "http://host:port"])
def test_connect_takes_web_addresses_only(environ: dict[str, str], url: str) -> None:
    done = ended(environ, "connect", "1", "--url", url)
    assert done.returncode == 1
    assert done.stderr == f"error: --url={url!r} is not a web address. Fix: write it like http://localhost:9090\n"
