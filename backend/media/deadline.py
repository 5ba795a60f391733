"""One time limit over a whole download: name look-up, connection, TLS, headers, redirects and body.

The time limits of a socket start anew with every byte, so a server that sends very slowly could hold a download for
hours.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from socket import SOCK_STREAM, getaddrinfo
from threading import Thread
from typing import Any

import httpcore

HEAD_BYTES = 256 * 1024  # of an answer before its body begins; a server could send "100 Continue" without end


@dataclass(slots=True)
class Clock:
    """The time limits of a download on the monotonic clock, in seconds."""

    end: float  # of the whole download
    answer: float  # until the headers of the answer have come
    head: int = 0  # bytes of headers so far
    begun: bool = False  # whether the headers have come

    def left(self, timeout: float | None) -> float:
        """Return how long one step may take, in seconds, at most `timeout`; raises ReadTimeout if no time is left."""
        left = min(self.end, self.end if self.begun else self.answer) - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("its time is over")
        return left if timeout is None else min(timeout, left)

    def next_answer(self, seconds: float) -> None:
        """Expect the headers of the next answer within so many seconds."""
        self.answer, self.head, self.begun = time.monotonic() + seconds, 0, False

    def received(self, count: int) -> None:
        """Count received bytes; raises RemoteProtocolError for more than HEAD_BYTES of headers."""
        self.head += 0 if self.begun else count
        if self.head > HEAD_BYTES:
            raise httpcore.RemoteProtocolError(f"more than {HEAD_BYTES} bytes of headers")


_CLOCK: ContextVar[Clock] = ContextVar("clock of the download of this thread")


@contextmanager
def within(seconds: float) -> Iterator[Clock]:
    """Limit the time that this thread spends on timed streams in this block."""
    end = time.monotonic() + seconds
    token = _CLOCK.set(Clock(end, end))
    try:
        yield _CLOCK.get()
    finally:
        _CLOCK.reset(token)


class TimedStream(httpcore.NetworkStream):
    """A connection whose steps obey the clock of the download that uses it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read at most `max_bytes`, within the time that the clock leaves."""
        clock = _CLOCK.get()
        data = self._stream.read(max_bytes, clock.left(timeout))
        clock.received(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of a buffer, within the time that the clock leaves."""
        self._stream.write(buffer, _CLOCK.get().left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Return the connection in TLS, within the time that the clock leaves for the handshake."""
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, _CLOCK.get().left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks of the socket, for example its addresses."""
        return self._stream.get_extra_info(info)


def connect(
    backend: httpcore.NetworkBackend, addresses: list[str], port: int, timeout: float | None, *options: Any
) -> TimedStream:
    """Connect to the first of several addresses that answers; `options` are further arguments of `connect_tcp`."""
    for address in addresses[:-1]:
        try:
            return TimedStream(backend.connect_tcp(address, port, _CLOCK.get().left(timeout), *options))
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            continue  # e.g. an IPv6 address where the backend has no IPv6
    return TimedStream(backend.connect_tcp(addresses[-1], port, _CLOCK.get().left(timeout), *options))


def addresses(host: str, port: int, timeout: float | None) -> list[str]:
    """Return the addresses of a host name, without duplicates.

    The system's look-up has no time limit, so a thread of its own waits for it. Raises ConnectTimeout if it takes too
    long, and OSError or UnicodeError if the name has no address.
    """
    answers: SimpleQueue[Iterable[Any] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(getaddrinfo(host, port, type=SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    Thread(target=look_up, name="name look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=_CLOCK.get().left(timeout))
    except Empty:
        raise httpcore.ConnectTimeout(f"no answer about the name {host}") from None
    if isinstance(answer, Exception):
        raise answer
    return list({str(entry[4][0]): None for entry in answer})
