"""Runs the app under uvicorn."""

from __future__ import annotations

import socket

import uvicorn

from backend.context import Context
from backend.reason import ReasonProtocol
from backend.server import build_app


def listen(context: Context, sock: socket.socket | None = None) -> None:
    """Serve until told to stop; `sock` is an already bound socket, for a port the system chose."""
    settings = context.settings
    config = uvicorn.Config(
        build_app(context),
        host=settings.host,
        port=settings.port,
        http=ReasonProtocol,
        ws="none",
        log_level=settings.log_level.lower(),
        access_log=settings.log_level == "DEBUG",
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[sock] if sock else None)
