"""Children that end are started again a few times; then the error shows their last lines."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.errors import BackendError
from backend.worker import supervision
from backend.worker.supervision import RESTARTS, Part, watch


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE_S", 0.01)
    monkeypatch.setattr(supervision, "LOOK_S", 0.01)


def shell(code: str, log_file: Path | None = None, may_start: Callable[[], bool] = lambda: True) -> Part:
    return Part("the child", ["sh", "-c", code], os.environ, log_file, may_start=may_start)


@pytest.mark.parametrize("to_file", [True, False])
def test_a_child_that_keeps_dying_ends_the_watch_with_its_last_lines(tmp_path: Path, to_file: bool) -> None:
    starts = tmp_path / "starts"
    part = shell(f"echo x >> {starts}; echo the disk is full >&2; exit 3", tmp_path / "log" if to_file else None)
    with pytest.raises(BackendError, match=r"the child ended 4 times .* status 3.*\nthe disk is full"):
        watch([part], threading.Event())
    assert starts.read_text().count("x") == 1 + RESTARTS
    part.stop()


def test_a_child_that_dies_once_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    part = shell(f"[ -e {mark} ] && exec sleep 60; touch {mark}; exit 1")
    while not part.alive or not mark.exists():
        part.look()
        time.sleep(0.01)
    first = part.process.pid
    time.sleep(0.1)
    part.look()
    assert part.process.pid == first
    part.stop()
    assert not part.alive


def test_a_child_is_not_restarted_before_it_may_start(tmp_path: Path) -> None:
    calls = []

    def may_start() -> bool:
        calls.append(True)
        return len(calls) > 50

    starts = tmp_path / "starts"
    part = shell(f"echo x >> {starts}; exit 1", may_start=may_start)
    while len(calls) <= 50:
        part.look()
        time.sleep(0.001)
    part.process.wait()
    assert starts.read_text().count("x") == 2


def test_the_watch_ends_when_its_event_is_set() -> None:
    part, stop = shell("exec sleep 60"), threading.Event()
    threading.Timer(0.05, stop.set).start()
    watch([part], stop)
    part.stop()


def test_the_output_of_a_child_is_shown_while_it_runs(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('ready', flush=True); print('caf\\u00e9'.encode(), flush=True); sys.stdin.read()"
    part = Part("the child", [sys.executable, "-c", code], os.environ)
    while part.last_lines().count("\n") < 1:
        time.sleep(0.01)
    part.stop()
    assert "ready" in capfd.readouterr().err


def test_the_log_names_a_child_that_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    part = shell("exit 7")
    part.process.wait()
    with caplog.at_level(logging.ERROR):
        part.look()
    assert "the child ended with status 7; it is started again (1 of 3)" in caplog.text
