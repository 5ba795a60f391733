"""Child processes that are started again when they end, up to RESTARTS times; the error shows the child's last lines.

If a child writes to our output, its lines go through a pipe, so that the last ones are known when it has ended.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, TimeoutExpired
from typing import IO, Protocol

from backend.errors import BackendError
from backend.subprocesses import LOG_LINES, STOP_S, last_lines, spawn

log = logging.getLogger(__name__)

RESTARTS = 3  # per child within WINDOW_S
WINDOW_S = 600.0
PAUSE_S = 1.0  # before the first restart, and twice as long before each further one
LOOK_S = 0.5  # between two looks at the children


class Part:
    """One child that should run all the time."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        log_file: Path | None = None,
        *,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start the child. Its output goes to `log_file`, or to our stderr.

        `may_start` returns whether the child can be restarted now, for example whether redis answers.
        """
        self._name = name
        self._command = command
        self._environ = environ
        self.log = log_file
        self._may_start = may_start
        self._ends: deque[float] = deque()
        self._start()

    def _start(self) -> None:
        self._start_at: float | None = None
        if self.log is not None:
            with self.log.open("ab" if self._ends else "wb") as sink:
                self.process = spawn(self._command, self._environ, sink)
            return
        self.process = spawn(self._command, self._environ, PIPE)
        self._lines: deque[bytes] = deque(maxlen=LOG_LINES)
        assert self.process.stdout is not None
        self._echo = threading.Thread(target=_echo, args=(self.process.stdout, self._lines), daemon=True)
        self._echo.start()

    @property
    def alive(self) -> bool:
        """Whether the child runs now."""
        return self.process.poll() is None

    def last_lines(self) -> str:
        """Return the last lines that the child wrote."""
        if self.log is not None:
            return last_lines(self.log)
        if not self.alive:
            self._echo.join(1)  # the thread ends when all is read, unless a grandchild keeps the pipe open
        return b"".join(self._lines).decode(errors="replace").rstrip()

    def look(self) -> None:
        """Start the child again if it has ended. Raises BackendError if it has ended too often."""
        if self.alive:
            return
        now = time.monotonic()
        if self._start_at is None:
            self._note_end(now)
        elif now >= self._start_at and self._may_start():
            self._start()

    def _note_end(self, now: float) -> None:
        self._ends.append(now)
        while now - self._ends[0] > WINDOW_S:
            self._ends.popleft()
        status, count = self.process.returncode, len(self._ends)
        if count > RESTARTS:
            raise BackendError(
                f"{self._name} ended {count} times within {WINDOW_S / 60:g} minutes, at last with status {status}. "
                f"Its last lines:\n{self.last_lines()}",
                fix="correct what the last lines name, then start again",
            )
        log.error("%s ended with status %s; it is started again (%d of %d)", self._name, status, count, RESTARTS)
        self._start_at = now + PAUSE_S * 2 ** (count - 1)

    def stop(self) -> None:
        """Tell the child to end, and kill it if it does not."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Supervised(Protocol):
    """A part of a running backend that `watch` checks at regular intervals."""

    def look(self) -> None:
        """Check the part and do what is due. Raises BackendError if the backend must end."""


def watch(parts: Sequence[Supervised], stop: threading.Event) -> None:
    """Check all parts every LOOK_S seconds until `stop` is set. Raises BackendError if a part ends too often."""
    while not stop.wait(LOOK_S):
        for part in parts:
            part.look()


def _echo(output: IO[bytes], lines: deque[bytes]) -> None:
    with output:
        for line in output:
            lines.append(line)
            try:
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
            except (OSError, ValueError):  # our stderr is closed; go on reading, or the child would block
                continue
