"""Servers on loopback that never finish: one clock ends every stage of a download."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpcore
import pytest

from backend.errors import LabelStudioError, MediaError
from backend.media import deadline, safe_http
from backend.media.safe_http import SafeHttp
from backend.settings import Settings

pytestmark = pytest.mark.processes

Answer = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """Yield the port of a server that answers each connection with `answer`, until the test ends."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                answer(connection, over)

        def accept() -> None:
            with suppress(OSError):
                while not over.is_set():
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        over.set()


def drip(content: bytes, endless: bytes) -> Answer:
    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(content)
        while not over.wait(0.02):
            connection.sendall(endless)

    return answer


def flood(connection: socket.socket, over: threading.Event) -> None:
    connection.recv(65536)
    while not over.is_set():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def around(connection: socket.socket, over: threading.Event) -> None:
    """Redirect to the same server, slowly."""
    connection.recv(65536)
    over.wait(0.4)
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")


def silent(connection: socket.socket, over: threading.Event) -> None:
    over.wait(60)


ENDLESS: dict[str, tuple[Answer, str]] = {
    "a status line, byte by byte": (drip(b"HTTP/1.1 200 O", b"K"), "http"),
    "headers, one by one": (drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), "http"),
    "100 Continue, again and again": (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "http"),
    "a flood of 100 Continue": (flood, "http"),
    "a body, byte by byte": (drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"), "http"),
    "chunks of one byte": (drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), "http"),
    "redirects that take their time": (around, "http"),
    "no answer": (silent, "http"),
    "no TLS handshake": (silent, "https"),
    "a TLS handshake, byte by byte": (drip(b"\x16\x03\x03\x40\x00", b"\x02"), "https"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_no_server_holds_a_download(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_http, "TOTAL_S", 1.0)
    monkeypatch.setattr(safe_http, "CONNECT_S", 20.0)  # the limits of single steps do not help here
    answer, scheme = ENDLESS[kind]
    with server(answer) as port:
        http = SafeHttp(Settings(allowed_hosts="127.0.0.1"), lambda url: {})
        started = time.monotonic()
        with pytest.raises(MediaError) as caught:
            http.download(f"{scheme}://127.0.0.1:{port}/a", io.BytesIO(), 10**6)
        assert time.monotonic() - started < 15  # 1 s on an idle machine; without the clock some downloads never end
        assert caught.value.fix


def test_headers_have_a_shorter_time_than_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_http, "READ_S", 0.5)
    with server(ENDLESS["headers, one by one"][0]) as port:
        http = SafeHttp(Settings(allowed_hosts="127.0.0.1"), lambda url: {})
        with pytest.raises(MediaError, match="in time"):
            http.download(f"http://127.0.0.1:{port}/a", io.BytesIO(), 10**6)


def test_a_flood_of_headers_ends_by_its_size() -> None:
    with server(flood) as port:
        http = SafeHttp(Settings(allowed_hosts="127.0.0.1"), lambda url: {})
        with pytest.raises(MediaError, match="bytes of headers"):
            http.download(f"http://127.0.0.1:{port}/a", io.BytesIO(), 10**6)


@pytest.mark.parametrize(("url", "error"), [("http://slow.example/a", MediaError), ("/data/a", LabelStudioError)])
def test_a_name_service_that_does_not_answer(url: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(deadline, "getaddrinfo", lambda *args, **options: over.wait(60))
    monkeypatch.setattr(safe_http, "TOTAL_S", 0.5)
    http = SafeHttp(Settings(label_studio_url="http://studio.example"), lambda url: {})
    with pytest.raises(error, match="no answer about the name"):
        http.download(url, io.BytesIO(), 10**6)
    over.set()


def test_a_clock_that_has_run_out() -> None:
    with deadline.within(-1) as clock, pytest.raises(httpcore.ReadTimeout):
        clock.left(5)
