"""Closes connections on which a request stays incomplete, because each keeps a socket open."""

from __future__ import annotations

import asyncio
from typing import Any

import h11

from backend.web.reason import ReasonProtocol

HEADERS_S = 10.0  # from the connection, or from the first byte of a later request
BODY_S = 60.0  # Label Studio sends its largest in a few seconds


class HalfSentProtocol(ReasonProtocol):
    """uvicorn's protocol with a time limit for the headers of a request, and one for its body."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time limit for the headers."""
        super().connection_made(transport)
        self._wait(HEADERS_S)

    def data_received(self, data: bytes) -> None:
        """Pass the data on, and start or end the time limits by the state of the request."""
        before = self.conn.their_state
        if self._timer is None:
            self._wait(HEADERS_S)
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY and before is not h11.SEND_BODY:
            self._wait(BODY_S)
        elif state not in (h11.IDLE, h11.SEND_BODY):
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limit."""
        self._forget()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._forget()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.flow.read_paused:  # we have paused reading, so the client is not late
            self._wait(BODY_S)
            return
        self._timer = None
        transport: Any = self.transport
        transport.close()
