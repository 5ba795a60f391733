"""The demo as a new user runs it: started twice, interrupted, opened again, with and without a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backend.cli import demo_display, demo_folder
from backend.cli.demo import EMAIL, INTERRUPTED, PASSWORD
from backend.cli.demo_display import Display
from backend.cli.demo_folder import DemoRecord
from backend.cli.label_studio_process import NO_VARIABLES
from backend.datasets import synthetic
from backend.errors import BackendError, BusyError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.subprocesses import free_port
from tests.support import ROOT

pytestmark = pytest.mark.processes

# A training of one step: its version detects nothing, so it is not published.
TINY = {"RETRAIN_EVERY": "4", "TRAIN_STEPS": "1", "MIN_EPOCHS": "1", "IMGSZ": "64", "BASE_MODEL": "yolo11n.pt"}
PATIENCE_S = 900.0


# The folder


def test_a_second_demo_in_a_folder_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    with demo_folder.locked(tmp_path):
        record = demo_folder.renew(tmp_path)
        (tmp_path / "models").mkdir()
        refusal = rf"a demo is running in this folder.*{record.label_studio_url}"
        with pytest.raises(BusyError, match=refusal), demo_folder.locked(tmp_path):
            pass
        assert (tmp_path / "models").is_dir()
    with demo_folder.locked(tmp_path):
        pass


def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path: Path) -> None:
    """Even a folder that contains a folder with one of our names is left alone."""
    (tmp_path / "label-studio").mkdir()
    own_file = tmp_path / "thesis.tex"
    own_file.write_text("mine")
    for folder in (tmp_path, own_file):
        with pytest.raises(BackendError, match="not a demo's folder"), demo_folder.locked(folder):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label-studio", "thesis.tex"]
    with demo_folder.locked(tmp_path / "new" / "folder"):
        pass


def test_a_new_demo_has_the_ports_of_the_last_one_and_nothing_else_of_it(tmp_path: Path) -> None:
    with demo_folder.locked(tmp_path):
        first = demo_folder.renew(tmp_path)
        demo_folder.write(tmp_path, first.model_copy(update={"project_id": 3, "data": "data.yaml"}))
        (tmp_path / "models").mkdir()
        (tmp_path / "server.log").write_text("old")
        (tmp_path / "my notes.txt").write_text("mine")
        assert demo_folder.renew(tmp_path) == first
        assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json", "demo.lock", "my notes.txt"]


def test_a_port_that_is_taken_is_not_used(tmp_path: Path) -> None:
    with demo_folder.locked(tmp_path), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        record = DemoRecord(label_studio_port=port, backend_port=free_port(), project_id=1)
        demo_folder.write(tmp_path, record)
        with pytest.raises(BackendError, match=f"port {port} of the demo is in use"):
            demo_folder.reopen(tmp_path)
        fresh = demo_folder.renew(tmp_path)
    assert fresh.label_studio_port != port
    assert fresh.backend_port == record.backend_port


@pytest.mark.parametrize("content", [None, "", "{}", '{"label_studio_port": 1, "backend_port": 2}'])
def test_there_must_be_a_demo_to_open_again(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "demo.json").write_text(content)
    with pytest.raises(BackendError, match="no demo to open again"):
        demo_folder.reopen(tmp_path)


# What is shown


def test_without_a_terminal_progress_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_display, "LINE_S", 0.0)
    output = io.StringIO()
    with Display(Console(file=output)).progress("training") as report:
        for done, total in ((0, 0), (1, 4), (1, 4), (4, 4)):
            report(done, total)
    assert output.getvalue().splitlines() == ["training ...", "training: 1 of 4", "training: 4 of 4"]


def test_plain_lines_are_few() -> None:
    output = io.StringIO()
    with Display(Console(file=output)).progress("training") as report:
        for done in range(1000):
            report(done, 1000)
    assert output.getvalue().splitlines() == ["training ..."]


# The whole demo


@dataclass(frozen=True, slots=True)
class Running:
    """A running demo; `terminal` is the file descriptor of its terminal, None: it has none."""

    process: subprocess.Popen[bytes]
    output: Path
    terminal: int | None

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")

    def await_text(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE_S
        while not (shown := re.search(pattern, self.text())):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text()}"
            assert self.process.poll() is None, f"ended without {pattern!r}:\n{self.text()}"
            time.sleep(0.1)
        return shown

    def await_end(self) -> int:
        status = self.process.wait(PATIENCE_S)
        assert "Traceback" not in self.text()
        return status

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        if self.terminal is None:
            self.process.send_signal(signal.SIGINT)
        else:
            os.write(self.terminal, b"\x03")


@contextmanager
def demo(folder: Path, *arguments: str, environ: Mapping[str, str] = NO_VARIABLES) -> Iterator[Running]:
    """Run the demo without a terminal."""
    output = folder.with_suffix(".txt")
    with output.open("wb") as sink:
        process = _start(folder, arguments, environ, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        yield from _ended(Running(process, output, None))


@contextmanager
def demo_on_a_terminal(folder: Path, *arguments: str) -> Iterator[Running]:
    """Run the demo as the foreground process of a terminal."""
    output = folder.with_suffix(".txt")
    keyboard, screen = pty.openpty()

    def copy() -> None:
        with output.open("wb", buffering=0) as sink, suppress(OSError):  # the end of a terminal's output raises OSError
            while text := os.read(keyboard, 4096):
                sink.write(text)

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(screen, termios.TIOCSCTTY, 0)

    output.touch()
    process = _start(folder, arguments, {}, stdin=screen, stdout=screen, stderr=screen, preexec_fn=take_terminal)
    os.close(screen)
    reader = threading.Thread(target=copy)
    reader.start()
    yield from _ended(Running(process, output, keyboard))
    reader.join()
    os.close(keyboard)


def _start(folder: Path, arguments: Sequence[str], environ: Mapping[str, str], **how: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "backend.cli", "demo", "--folder", str(folder), *arguments]
    return subprocess.Popen(command, env={**os.environ, **environ}, cwd=ROOT, **how)


def _ended(running: Running) -> Iterator[Running]:
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(PATIENCE_S)


def client_of(folder: Path, record: DemoRecord) -> LabelStudioClient:
    return LabelStudioClient(record.label_studio_url, (folder / "label-studio" / "api-key").read_text())


@pytest.mark.label_studio
def test_a_demo_without_a_published_version_ends_well_and_opens_again_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    data_yaml = synthetic.generate(tmp_path / "scenes", pool=10, test=4, seed=0)
    with demo(folder, "--exit", "--rounds", "1", "--data", str(data_yaml), environ=TINY) as first:
        assert first.await_end() == 0
        output = first.text()
    lines = output.splitlines()
    assert all(line.strip() for line in lines)
    assert [word in lines[0] for word in (EMAIL, PASSWORD)] == [True, True]
    assert "not published" in output
    assert "labels=4 version=none map50=none first_map50=none" in output
    record = demo_folder.read(folder)
    assert record is not None
    assert record.label_studio_url in lines[0]

    with demo(folder, "--keep", environ=TINY) as again:
        again.await_text("Everything stays up")
        assert demo_folder.read(folder) == record
        with demo(tmp_path / "beside", "--exit", "--folder", str(folder)) as second:
            assert second.await_end() == 1
            assert (
                f"a demo is running in this folder; its Label Studio is at {record.label_studio_url}" in second.text()
            )
        with client_of(folder, record) as client:
            assert client.projects.labeled_count(record.project_id) == 4
            (backend,) = client.projects.backends(record.project_id)
        assert (backend.state, backend.url) == ("Connected", f"http://127.0.0.1:{record.backend_port}")
        again.interrupt()
        assert again.await_end() == 0
        assert "Stopping Label Studio" in again.text()
    for port in (record.label_studio_port, record.backend_port):
        assert demo_folder.is_free(port)


@pytest.mark.label_studio
def test_ctrl_c_on_a_terminal_is_answered_before_anything_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo_on_a_terminal(folder) as running:
        running.await_text("Starting Label Studio")
        running.interrupt()
        running.await_text("Stopping Label Studio")
        assert running.await_end() == INTERRUPTED
        assert "Stopped." in running.text()
    record = demo_folder.read(folder)
    assert record is not None
    assert demo_folder.is_free(record.label_studio_port)
    with demo(folder, "--keep") as again:
        assert again.await_end() == 1
        assert "no demo to open again" in again.text()
