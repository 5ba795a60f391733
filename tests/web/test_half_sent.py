"""Hundreds of incomplete requests on a real server."""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection

import pytest

from backend.loop.context import Context
from backend.web import half_sent
from tests.support import serve

EACH = 100
PATIENCE_S = 30.0
BEGINNINGS = {
    "nothing": b"",
    "half of the headers": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "half of a body": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000\r\n\r\n{"tasks": [',
}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_sent, "HEADERS_S", 1.0)
    monkeypatch.setattr(half_sent, "BODY_S", 1.0)


@pytest.mark.usefixtures("hurried")
def test_half_sent_requests_are_closed_and_others_are_answered_meanwhile(context: Context) -> None:
    with serve(context) as client:
        address = (client.base_url.host, client.base_url.port or 80)
        sockets = [socket.create_connection(address, 60) for _ in range(EACH * len(BEGINNINGS))]
        for place, beginning in enumerate(BEGINNINGS.values()):
            for connection in sockets[place::3]:
                connection.sendall(beginning)
        assert client.get("/health").status_code == 200
        end = time.monotonic() + PATIENCE_S
        assert sum(_is_closed(connection, end) for connection in sockets) == len(sockets)
        assert client.get("/health").status_code == 200


def _is_closed(connection: socket.socket, end: float) -> bool:
    """Return whether the server closes a connection before `end`."""
    with connection:
        try:
            connection.settimeout(max(0.01, end - time.monotonic()))
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
    return True


@pytest.mark.usefixtures("hurried")
def test_a_request_that_goes_on_is_not_cut_off(context: Context) -> None:
    """Several requests on one connection that is open for longer than the time limit for headers."""
    with serve(context) as client:
        connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=60)
        for _ in range(4):
            connection.request("GET", "/health")
            answer = connection.getresponse()
            assert (answer.status, answer.will_close) == (200, False)
            answer.read()
            time.sleep(0.5)
        connection.close()
