from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest

from backend import subprocesses
from backend.subprocesses import running

pytestmark = pytest.mark.processes

COMMAND = (sys.executable, "-c", "import time; time.sleep(60)")


def test_a_process_is_stopped_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), running(COMMAND, os.environ) as child:
        _ = 1 / 0
    assert not psutil.pid_exists(child.process.pid)


def test_a_process_that_ignores_terminate_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "STOP_S", 0.2)
    with running(COMMAND, os.environ) as child:
        os.kill(child.process.pid, signal.SIGSTOP)
    assert not psutil.pid_exists(child.process.pid)
