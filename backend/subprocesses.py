"""Child processes: started so that they end when we end, awaited until they are ready, and stopped.

Start them in the main thread, because Linux ends a child together with the thread that started it.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

import httpx
import redis

from backend.errors import BackendError

STOP_S = 10.0
LOG_LINES = 15
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def require_free_port(host: str, port: int) -> None:
    """Raise BackendError if a server could not listen on this port."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
                listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"end what listens there, perhaps another yolo-backend, or choose another port: --port {port + 1}"
            raise BackendError(f"port {port} is in use", where=host, fix=fix) from None
        fix = "correct HOST and PORT; 127.0.0.1 is this machine alone"
        raise BackendError(f"cannot listen on port {port}: {error.strerror}", where=host, fix=fix) from None


@dataclass(frozen=True, slots=True)
class Child:
    """A running child process; `log` holds its output, None if it shares our output."""

    process: subprocess.Popen[bytes]
    log: Path | None

    def last_lines(self) -> str:
        """Return the last lines of its log, "" without a log."""
        return "" if self.log is None else last_lines(self.log)


def last_lines(log: Path) -> str:
    """Return the last LOG_LINES lines of a log file."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-LOG_LINES:])


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str], log: Path | None = None) -> Iterator[Child]:
    """Run a command while the block runs, with its output in `log`; then terminate it, and kill it after STOP_S."""
    with ExitStack() as stack:
        sink = None if log is None else stack.enter_context(log.open("wb"))
        process = spawn(command, environ, sink)
    try:
        yield Child(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spawn(
    command: Sequence[str], environ: Mapping[str, str], sink: IO[bytes] | int | None = None
) -> subprocess.Popen[bytes]:
    """Start a command that the system terminates when the calling thread ends, for whatever reason."""
    libc = ctypes.CDLL(None)  # load it before the fork: few calls are safe between fork and exec

    def end_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    with _signals_held():
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=None if sink is None else subprocess.STDOUT,
            env=environ,
            start_new_session=True,  # only we get a Ctrl-C, and then we stop the child
            preexec_fn=end_with_parent if hasattr(libc, "prctl") else None,
        )


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let a Ctrl-C or a SIGTERM that arrives in the block take effect at its end.

    Python drops an exception that a signal handler raises inside a hook of fork, so a Ctrl-C would be lost there.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread alone
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {int(number): handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, frame: arrived.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    for number, frame in arrived:
        held[number](number, frame)


class Starting(Protocol):
    """A child that is starting: its process, and its log, or None if it writes to our output."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""

    @property
    def log(self) -> Path | None:
        """The file with its output, or None."""

    def last_lines(self) -> str:
        """Return its last lines of output, for the message of an error."""


def wait_ready(child: Starting, ready: Callable[[], bool], name: str, limit_s: float) -> None:
    """Return once `ready()` is true. Raises BackendError with the last log lines if the process ends or is too slow."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if (status := child.process.poll()) is not None:
            raise BackendError(
                f"{name} ended with status {status} while starting:\n{child.last_lines()}", where=str(child.log or name)
            )
        try:
            if ready():
                return
        except (httpx.TransportError, redis.ConnectionError, redis.TimeoutError):
            pass  # not listening yet
        time.sleep(0.1)
    raise BackendError(
        f"{name} is not ready after {limit_s:.0f} s:\n{child.last_lines()}",
        where=str(child.log or name),
        fix="look at the log; a slow disk may need longer",
    )
