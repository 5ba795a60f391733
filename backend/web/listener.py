"""Runs the app under uvicorn."""

from __future__ import annotations

import threading

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from backend.loop.context import Context
from backend.loop.warm import Warmth
from backend.web.app import build_app
from backend.web.half_sent import HalfSentProtocol
from backend.web.page import rendering


def listen(context: Context) -> None:
    """Serve until told to stop."""
    warmth = Warmth(context)
    warmth.start()
    server(context, warmth).run()


def server(context: Context, warmth: Warmth | None = None) -> uvicorn.Server:
    """Return the server; its `run` also accepts sockets that are already bound."""
    settings = context.settings
    app = build_app(context, warmth)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HalfSentProtocol,
        ws="none",
        log_level=settings.log_level.lower(),
        log_config=None
        if settings.log_format == "json"
        else LOGGING_CONFIG,  # None: the same format as the rest of the log
        access_log=settings.log_level == "DEBUG",
        timeout_graceful_shutdown=10,
    )
    threading.Thread(target=rendering.compile_templates, daemon=True).start()
    app.state.server = ending = uvicorn.Server(config)  # `page.live` ends its streams when the server wants to end
    return ending
