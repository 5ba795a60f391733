"""The checks before every request (authentication, webhook secret, body size), and errors as messages."""

from __future__ import annotations

import hmac
import logging
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend.errors import AuthError, BackendError, RedisDownError
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.settings import Settings
from backend.web import metrics, origins
from backend.web.bodies import MAX_BODY_BYTES, too_large
from backend.web.page import rendering
from backend.web.reason import REASON_HEADER, reason_of
from backend.web.redaction import redacted, roots_of

log = logging.getLogger(__name__)

_OPEN_PATHS = {"/health"}
_HUNG_UP = 499  # nginx's status for a client that closed the connection
_SHOWN = 200  # characters of an address in an answer
_FORM_PATHS = "/projects/"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_SECRET_PATHS = {"/webhook"}  # these check the secret header themselves: LS cannot send Basic auth with a webhook


def install(app: FastAPI, settings: Settings) -> None:
    """Put authentication, limits, error messages and request metrics in front of every route of `app`."""

    app.state.roots = roots_of(settings)

    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Check a request, answer it or its error, and measure it."""
        started = time.perf_counter()
        path = request.url.path
        try:
            _check_size(request)
            if path not in _OPEN_PATHS:
                _check_sender(request, settings)
            if path not in _OPEN_PATHS | _SECRET_PATHS:
                check_basic(request, settings)
            response = await call_next(request)
        except BackendError as error:
            response = error_response(request, error)
        except ClientDisconnect:
            log.info("%s %s: the client hung up", request.method, path)
            response = Response(status_code=_HUNG_UP)
        metrics.REQUESTS.labels(path if path in metrics.PATHS else "other", str(response.status_code)).observe(
            time.perf_counter() - started
        )
        return response

    app.middleware("http")(guard)
    app.add_exception_handler(BackendError, _on_backend_error)
    app.add_exception_handler(RedisError, _on_redis_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_path_error)
    app.add_exception_handler(ClientDisconnect, _on_hang_up)
    app.add_exception_handler(Exception, _on_bug)


def check_basic(request: Request, settings: Settings) -> None:
    """Raise AuthError unless Basic auth is off, or user and password are right."""
    if not settings.basic_auth_user:
        return
    expected = f"{settings.basic_auth_user}:{settings.basic_auth_pass}".encode()
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        credentials = b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
    except ValueError:
        credentials = b""
    if not hmac.compare_digest(credentials, expected):
        raise AuthError(
            "user name or password is missing or wrong",
            where=request.url.path,
            fix="in Label Studio, Settings → Model → edit, enter BASIC_AUTH_USER and BASIC_AUTH_PASS",
        )


def check_secret(request: Request, settings: Settings, secret: str) -> None:
    """Raise AuthError unless the webhook has our secret header, or valid Basic auth where that is on."""
    header = request.headers.get(WEBHOOK_HEADER, "").encode()
    if hmac.compare_digest(header, secret.encode()):
        return
    if settings.basic_auth_user and "authorization" in request.headers:
        check_basic(request, settings)
        return
    raise AuthError(
        f"the webhook does not send the right {WEBHOOK_HEADER} header",
        where=request.url.path,
        fix="nothing to do: the backend sets the header within RECONCILE_S seconds, and no label is lost",
    )


def error_response(request: Request, error: BackendError) -> Response:
    """Log the error, and return it as JSON and as the reason phrase, the only part that Label Studio shows.

    The log has the real paths of files. The response has short names in place of the server's folders.
    """
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    else:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    roots = request.app.state.roots
    headers = {REASON_HEADER.decode(): redacted(reason_of(error), roots)}
    if error.status == 401:
        headers["www-authenticate"] = 'Basic realm="yolo-backend"'
    texts = {"error": error.what, "where": error.where, "fix": error.fix}
    body = {name: redacted(text, roots) for name, text in texts.items()}
    return _answer(request, error.status, body, headers)


def _answer(request: Request, status: int, body: dict[str, str], headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Return an error as a page to a browser, and as JSON to all others."""
    if rendering.wants_html(request):
        response = rendering.render_error(status, body)
        response.headers.update(headers)
        return response
    return JSONResponse(body, status_code=status, headers=dict(headers))


def _check_size(request: Request) -> None:
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
        raise too_large(request.url.path)


def _check_sender(request: Request, settings: Settings) -> None:
    """Refuse a request that a page of another site can make a browser send.

    With a password the host name needs no check: a browser sends the password only to the site where it was entered.
    """
    path, headers = request.url.path, request.headers
    origins.check_origin(headers, path)
    if not settings.basic_auth_user:
        origins.check_host(headers.get("host", ""), settings.backend_url, path)
    if not path.startswith(_FORM_PATHS):  # forms of the page carry a token, see `page.forms`
        origins.check_content_type(request.method, headers, path)


def _on_backend_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)
    return error_response(request, error)


def _on_redis_error(request: Request, error: Exception) -> Response:
    fix = "start redis, or correct REDIS_URL; no label is lost"
    return error_response(request, RedisDownError(f"redis does not answer: {error}", where=request.url.path, fix=fix))


def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "error"
    fix = "see docs/api.md for the paths and methods served"
    return _answer(request, status, {"error": str(detail), "where": request.url.path[:_SHOWN], "fix": fix})


def _on_path_error(request: Request, error: Exception) -> Response:
    fix = "ids of projects and tasks are whole numbers from 1 on"
    body = {"error": "the address has a part of the wrong type", "where": request.url.path[:_SHOWN], "fix": fix}
    return _answer(request, 422, body)


def _on_hang_up(request: Request, error: Exception) -> Response:
    """Return a status for the metrics; nobody is left to read the answer."""
    log.info("%s %s: the client hung up", request.method, request.url.path)
    return Response(status_code=_HUNG_UP)


def _on_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s broke", request.method, request.url.path, exc_info=error)
    fix = "see the backend's log, and report it"
    return _answer(request, 500, {"error": "internal error", "where": request.url.path, "fix": fix})
