"""How a command starts (settings from the environment, logging, redis, the context), and how a signal ends it.

`--help` imports this module, so what takes long to import is imported inside the functions.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from backend.cli.log_lines import JsonFormatter, LineFormatter
from backend.errors import BackendError, SettingError

if TYPE_CHECKING:
    from backend.loop.context import Context
    from backend.settings import Settings


def read_settings(**overrides: object) -> Settings:
    """Return the settings of the environment with `overrides`, and start logging; raises SettingError."""
    from backend import settings as settings_table

    settings = settings_table.from_env(os.environ, **overrides)
    log_to_stderr(settings.log_level, settings.log_format)
    return settings


def check_access(settings: Settings) -> None:
    """Raise SettingError for a user without a password or the reverse, and for a public server without a password."""
    from backend.web.origins import is_loopback

    user, password = settings.basic_auth_user, settings.basic_auth_pass
    if bool(user) != bool(password):
        missing = "BASIC_AUTH_PASS" if user else "BASIC_AUTH_USER"
        raise SettingError(
            f"{missing} is missing or empty",
            where="environment",
            fix="set BASIC_AUTH_USER and BASIC_AUTH_PASS, or none",
        )
    if not (user or settings.allow_anonymous or is_loopback(settings.host)):
        raise SettingError(
            f"HOST={settings.host} lets anybody who reaches it train and configure projects, without a password",
            where="environment",
            fix="set BASIC_AUTH_USER and BASIC_AUTH_PASS and enter them in Label Studio beside the URL; or set "
            "ALLOW_ANONYMOUS=true where nobody but Label Studio can reach the port",
        )


def with_redis(settings: Settings) -> Settings:
    """Return the settings if their redis answers; raises BackendError if it does not, or none is set."""
    from redis import Redis
    from redis.exceptions import RedisError

    if not settings.redis_url:
        raise BackendError(
            "no redis", where="REDIS_URL", fix="set REDIS_URL, or use `yolo-backend run`, which brings its own redis"
        )
    try:
        with Redis.from_url(settings.redis_url) as redis:
            redis.ping()
    except (RedisError, ValueError) as error:
        raise BackendError(
            f"redis does not answer: {error}", where="REDIS_URL", fix="start redis, or correct REDIS_URL"
        ) from None
    return settings


def open_context() -> Context:
    """Return the context of this environment, with the redis of REDIS_URL or of a running `yolo-backend run`."""
    from backend.cli.embedded import running_redis
    from backend.loop.context import build

    settings = read_settings()
    redis_url = settings.redis_url or running_redis(settings)
    return build(with_redis(settings.model_copy(update={"redis_url": redis_url})))


def check_store(settings: Settings) -> None:
    """Raise StoreError, with the cure, if MODEL_DIR cannot be written."""
    from backend.store.store import Store

    Store(settings.model_dir).check()


def check_label_studio(settings: Settings, *, required: bool) -> None:
    """Ask Label Studio once for the token's user. Raises LabelStudioError for a wrong token.

    With `required` it is an error too if Label Studio does not answer. For `serve` it is none: that may start before
    Label Studio, as in docker-compose.yml.
    """
    from backend.errors import LabelStudioAuthError, LabelStudioError
    from backend.labelstudio.client.connection import LabelStudioClient

    try:
        with LabelStudioClient.impatient(settings.label_studio_url, settings.label_studio_api_key) as client:
            user = client.check()
    except LabelStudioError as error:
        if required or isinstance(error, LabelStudioAuthError) or not settings.label_studio_url:
            raise
        logging.getLogger(__name__).warning("%s The backend starts anyway and tries again.", error)
    else:
        typer.echo(f"Label Studio: {settings.label_studio_url} as {user}", err=True)


def machine_message(error: Exception) -> str:
    """Return the message for an error of the machine: a full disk, a missing right, no memory, no redis.

    It is "" for any other error.
    """
    from redis.exceptions import RedisError

    from backend.store.guarded_files import cure_of

    if isinstance(error, MemoryError):
        return str(BackendError("the machine has no memory left", fix="close other programs, or lower BATCH or IMGSZ"))
    if isinstance(error, RedisError):
        return str(BackendError(f"redis does not answer: {error}", fix="start redis, then run the command again"))
    if not isinstance(error, OSError):
        return ""
    where = str(Path(error.filename).absolute()) if isinstance(error.filename, str) else ""
    return str(BackendError(error.strerror or str(error), where=where, fix=cure_of(error)))


class _CurrentStderr(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at that moment, so that a progress bar moves down for each line."""

    @property
    def stream(self) -> TextIO:
        """The stream to write to."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Ignore the stream that the base class sets once."""


def log_to_stderr(level: str, log_format: str = "text") -> None:
    """Log to stderr from `level` on, as lines of text or, with `log_format` "json", as JSON objects."""
    handler = _CurrentStderr()
    if log_format == "json":
        from backend.queue.log_fields import JobFields

        handler.addFilter(JobFields())
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or a TERM signal sets."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    yield stop
