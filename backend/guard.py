"""What stands before every request: Basic auth, the webhook secret, the body limit, and errors told as messages."""

from __future__ import annotations

import hmac
import logging
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from backend import metrics
from backend.errors import AuthError, BackendError, RedisDownError, TooLargeError
from backend.projects import WEBHOOK_HEADER
from backend.reason import REASON_HEADER, reason_of
from backend.settings import Settings

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024  # LS sends 2,000 tasks in about 4 MB
_OPEN_PATHS = {"/health"}
_SECRET_PATHS = {"/webhook"}  # these check the secret header themselves: LS cannot send Basic auth with a webhook


def install(app: FastAPI, settings: Settings) -> None:
    """Put authentication, limits, error messages and request metrics in front of every route of `app`."""

    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        path = request.url.path
        try:
            _check_size(request)
            if path not in _OPEN_PATHS | _SECRET_PATHS:
                check_basic(request, settings)
            response = await call_next(request)
        except BackendError as error:
            response = tell(request, error)
        metrics.REQUESTS.labels(path if path in metrics.PATHS else "other", str(response.status_code)).observe(
            time.perf_counter() - started
        )
        return response

    app.middleware("http")(guard)
    app.add_exception_handler(BackendError, _on_backend_error)
    app.add_exception_handler(RedisError, _on_redis_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_path_error)
    app.add_exception_handler(Exception, _on_bug)


def check_basic(request: Request, settings: Settings) -> None:
    """Raise AuthError unless Basic auth is off or the right user and password came."""
    if not settings.basic_auth_user:
        return
    wanted = f"{settings.basic_auth_user}:{settings.basic_auth_pass}".encode()
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        given = b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
    except ValueError:
        given = b""
    if not hmac.compare_digest(given, wanted):
        raise AuthError(
            "user name or password is missing or wrong",
            where=request.url.path,
            fix="in LS, Settings → Model → edit → Basic authentication: BASIC_AUTH_USER and BASIC_AUTH_PASS",
        )


def check_secret(request: Request, settings: Settings, secret: str) -> None:
    """Raise AuthError unless the webhook carries our secret header, or Basic auth that is switched on."""
    given = request.headers.get(WEBHOOK_HEADER, "").encode()
    if hmac.compare_digest(given, secret.encode()):
        return
    if settings.basic_auth_user and "authorization" in request.headers:
        check_basic(request, settings)
        return
    raise AuthError(
        f"the webhook lacks the right {WEBHOOK_HEADER} header",
        where=request.url.path,
        fix="nothing: the backend gives LS's webhook its header within RECONCILE_S, and misses no label meanwhile",
    )


def tell(request: Request, error: BackendError) -> JSONResponse:
    """Return the error as JSON, and as the reason phrase, the only part Label Studio shows to people."""
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    else:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    headers = {REASON_HEADER.decode(): reason_of(error)}
    if error.status == 401:
        headers["www-authenticate"] = 'Basic realm="yolo-backend"'
    body = {"error": error.what, "where": error.where, "fix": error.fix}
    return JSONResponse(body, status_code=error.status, headers=headers)


async def read_body(request: Request) -> bytes:
    """Return the body; raises TooLargeError as soon as it is, for a chunked one does not say its length before."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(request)
    return bytes(body)


def _check_size(request: Request) -> None:
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise _too_large(request)


def _too_large(request: Request) -> TooLargeError:
    what = f"the body is larger than {MAX_BODY_BYTES} bytes"
    return TooLargeError(what, where=request.url.path, fix="send fewer tasks at once")


def _on_backend_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)
    return tell(request, error)


def _on_redis_error(request: Request, error: Exception) -> Response:
    fix = "start redis, or correct REDIS_URL; no label is lost, the reconcile counts for itself"
    return tell(request, RedisDownError(f"redis does not answer: {error}", where=request.url.path, fix=fix))


def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "error"
    return JSONResponse(
        {"error": str(detail), "where": request.url.path, "fix": "see docs/api.md for the paths and methods served"},
        status_code=status,
    )


def _on_path_error(request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"error": "the path has a part of the wrong type", "where": request.url.path, "fix": "project ids are numbers"},
        status_code=400,
    )


def _on_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s broke", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        {"error": "internal error", "where": request.url.path, "fix": "see the backend's log, and report it"},
        status_code=500,
    )
