from __future__ import annotations

import os
import signal
import subprocess
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


def test_a_ctrl_c_during_a_fork_is_not_lost() -> None:
    """Before: Python dropped the exception of a handler that ran in a hook of fork, and the demo went on."""
    script = """
import os, signal, sys
from backend.subprocesses import spawn
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    spawn([sys.executable, "-c", ""], os.environ)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_process_that_ignores_terminate_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "STOP_S", 0.2)
    with running(COMMAND, os.environ) as child:
        os.kill(child.process.pid, signal.SIGSTOP)
    assert not psutil.pid_exists(child.process.pid)
