"""How tests run commands: as a shell does, with pipes or in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from tests.forked import PATIENCE_S, run_command

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[;m]")


def cli(environ: Mapping[str, str], *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command with pipes; `answer` is what a person types."""
    done = run_command(environ, arguments, answer)
    assert "Traceback" not in done.stderr
    return done


@dataclass(frozen=True)
class Screen:
    """What a command wrote to a terminal of 80 columns, and its exit status."""

    raw: str
    status: int

    @property
    def lines(self) -> list[str]:
        """The lines that were drawn, without control sequences; a line that was drawn again is there again."""
        return [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", self.raw)) if line.strip()]


def in_terminal(
    environ: Mapping[str, str], *arguments: str, until: Callable[[str], bool] = lambda _: False, keys: bytes = b""
) -> Screen:
    """Run a command in a terminal; once `until` holds for its output, type `keys`."""
    ours, theirs = pty.openpty()
    shape = {"COLUMNS": "80", "LINES": "40", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "backend.cli", *arguments]
    with subprocess.Popen(
        command,
        env={**environ, **shape},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
    ) as child:
        os.close(theirs)
        written, typed = b"", False
        deadline = time.monotonic() + PATIENCE_S
        with suppress(OSError):  # Linux ends the reading so when the last process closes the terminal
            while select.select([ours], [], [], max(deadline - time.monotonic(), 0))[0]:
                piece = os.read(ours, 65536)
                written += piece
                if not typed and until(written.decode(errors="replace")):
                    typed = True
                    os.write(ours, keys)
        if time.monotonic() > deadline:
            child.kill()
        child.wait(PATIENCE_S)
    os.close(ours)
    return Screen(written.decode(), child.returncode)


def _take_terminal() -> None:
    """Make the terminal on stdin the controlling one, so that Ctrl-C becomes a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
