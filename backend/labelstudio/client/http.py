"""The one seam to Label Studio's HTTP API: authentication, time limits, retries, and every failure as our error."""

from __future__ import annotations

import functools
import json
import os
import re
import ssl
import threading
import time
from typing import Any, TypeVar

import httpx
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.client_wrapper import SyncClientWrapper  # not the whole client: that takes seconds to import
from pydantic import BaseModel, ConfigDict, ValidationError

from backend.errors import (
    LabelStudioAuthError,
    LabelStudioBlockedError,
    LabelStudioError,
    LabelStudioRefusedError,
    NotFoundError,
    SettingError,
)

READ_S = 60.0
WRITE_S = 300.0  # importing predictions recounts the whole project
ATTEMPTS = 3  # of an idempotent read
BACKOFF_S = 0.5
GATEWAY = (502, 504)  # a proxy answers so if Label Studio does not answer it
LOOPBACK = ("//localhost", "//127.0.0.1", "//[::1]")

LOGIN_FIX = (
    "make a token in Label Studio (Account & Settings > Personal Access Token), "
    "copy it whole and set LABEL_STUDIO_API_KEY"
)
CERTIFICATE_FIX = "set SSL_CERT_FILE to the PEM file of the authority that signed it"
BLOCKED = (  # in the detail of Label Studio's 403
    "private network addresses",
    "reserved network address",
    "cannot be local IPs",  # before 1.23
)
BLOCKED_FIX = (
    "start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false (both), "
    "or give it an http(s) address outside of private networks"
)

ModelT = TypeVar("ModelT", bound=BaseModel)


class Answer(BaseModel):
    """Base of the JSON objects that we read from Label Studio; fields that we do not name are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class LabelStudioHTTP:
    """Calls one Label Studio as one user; safe to share between threads."""

    def __init__(self, url: str, api_key: str, *, read_s: float = READ_S, attempts: int = ATTEMPTS) -> None:
        self.url = url.strip().rstrip("/")
        self._attempts = attempts
        self._api_key = api_key.strip()
        local = any(host in self.url for host in LOOPBACK)  # no proxy leads back to this machine
        self._client = httpx.Client(timeout=read_s, verify=_certificates(), trust_env=not local)
        self._auth: Any = None  # the SDK's token holder: refreshes personal access tokens
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def headers(self) -> dict[str, str]:
        """Return the Authorization header with a token that is valid now.

        Raises LabelStudioAuthError, or LabelStudioError when a refresh cannot reach Label Studio.
        """
        if not self.url:
            raise LabelStudioError("no address of Label Studio", fix="set LABEL_STUDIO_URL")
        if not self._api_key:
            raise LabelStudioAuthError("no token for Label Studio", where=self.url, fix=LOGIN_FIX)
        try:
            with self._lock:
                if self._auth is None:
                    # The slash keeps a path prefix of the address through the SDK's urljoin.
                    self._auth = SyncClientWrapper(
                        api_key=self._api_key, base_url=f"{self.url}/", httpx_client=self._client
                    )
            return {"Authorization": self._auth.get_headers()["Authorization"]}
        except ApiError as error:
            detail = error.body.get("detail", "") if isinstance(error.body, dict) else ""
            if error.status_code in (400, 401, 403):
                raise LabelStudioAuthError(
                    f"Label Studio refuses the token: {detail}", where=self.url, fix=LOGIN_FIX
                ) from None
            if error.status_code in GATEWAY:
                raise self._no_token() from None
            raise LabelStudioError(
                f"no access token: HTTP {error.status_code} {detail}", where=self.url, fix="see Label Studio's log"
            ) from None
        except httpx.HTTPError as error:
            raise self._unreachable(error, "POST", "/api/token/refresh/") from error
        except ValueError:  # the SDK parses any answer as JSON, a proxy's error page too
            raise self._no_token() from None

    def get(self, path: str, *, missing: str = "", **params: Any) -> Any:
        """Return the JSON of a GET; it is tried again after a 5xx or a dropped connection."""
        for attempt in range(1, self._attempts):
            try:
                response = self._send("GET", path, params=params)
            except LabelStudioAuthError:
                raise
            except LabelStudioError as error:
                if not isinstance(error.__cause__, httpx.NetworkError | httpx.RemoteProtocolError):
                    raise
            else:
                if response.status_code < 500:
                    return self._json(response, missing)
            time.sleep(BACKOFF_S * attempt)
        return self._json(self._send("GET", path, params=params), missing)

    def send(self, method: str, path: str, body: Any = None, *, missing: str = "", **options: Any) -> Any:
        """Return the JSON (None: no content) of a write, which is sent exactly once.

        `body` is sent as JSON; `missing` says what a 404 means; `options` go to httpx (files, content, params).
        """
        if body is not None:
            options["json"] = body
        return self._json(self._send(method, path, timeout=WRITE_S, **options), missing)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self.request(method, path, **options)
        if response.status_code != 401:
            return response
        with self._lock:
            self._auth = None  # the clocks differ, or the access token expired on its way: get a new one, once
        return self.request(method, path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request once, with the token; raises LabelStudioError where no answer comes."""
        headers = self.headers() | options.pop("headers", {})
        try:
            return self._client.request(method, f"{self.url}{path}", headers=headers, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error, method, path) from error

    def _unreachable(self, error: Exception, method: str, path: str) -> LabelStudioError:
        problem, fix = "cannot be reached", "start Label Studio, or correct LABEL_STUDIO_URL as seen from this machine"
        if isinstance(error, httpx.TimeoutException):
            problem, fix = "answers too slowly", "see whether Label Studio is overloaded"
        elif isinstance(error, httpx.ProxyError):
            fix = "correct HTTP_PROXY and HTTPS_PROXY, or name Label Studio's host in NO_PROXY"
        elif "CERTIFICATE_VERIFY_FAILED" in str(error):
            problem, fix = "has a certificate that is not trusted here", CERTIFICATE_FIX
        elif "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error):
            problem, fix = "does not speak https there", "write http:// in LABEL_STUDIO_URL"
        return LabelStudioError(
            f"Label Studio {problem}: {type(error).__name__} {error}", where=f"{method} {self.url}{path}", fix=fix
        )

    def _no_token(self) -> LabelStudioError | NotFoundError:
        """Return why there is no access token: the answer was no JSON, so we send the request again for its status."""
        path = "/api/token/refresh/"
        try:
            response = self._client.post(f"{self.url}{path}", json={"refresh": self._api_key})
        except httpx.HTTPError as error:
            return self._unreachable(error, "POST", path)
        return self._not_label_studio() if response.is_success else failure(response)

    def _not_label_studio(self) -> LabelStudioError:
        return LabelStudioError(
            "the answer is not JSON, so this is not Label Studio", where=self.url, fix="correct LABEL_STUDIO_URL"
        )

    def _json(self, response: httpx.Response, missing: str) -> Any:
        if response.status_code == 204 or (response.is_success and not response.content):
            return None
        if response.is_redirect:
            target = response.headers.get("location", "")
            raise LabelStudioError(
                f"Label Studio redirects to {target}", where=self.url, fix="set LABEL_STUDIO_URL to its final address"
            )
        if not response.is_success:
            raise failure(response, missing)
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise self._not_label_studio() from None


def _certificates() -> ssl.SSLContext:
    """Return the certificates to trust, those of SSL_CERT_FILE where it is set; raises SettingError."""
    return _loaded_certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=4)
def _loaded_certificates(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Load the certificates of these variables once, because it takes longer than a request."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise SettingError(
            f"{name} cannot be read: {error}", where=os.environ.get(name, ""), fix="name a PEM file of certificates"
        ) from None


def failure(response: httpx.Response, missing: str = "") -> LabelStudioError | NotFoundError:
    """Return our error for a response that is not a success, with Label Studio's own message."""
    detail = explain(response)
    where = f"{response.request.method} {response.request.url.copy_with(query=None)}"
    if response.status_code == 401:
        return LabelStudioAuthError(f"Label Studio refuses the token: {detail}", where=where, fix=LOGIN_FIX)
    if response.status_code == 403 and any(words in detail for words in BLOCKED):
        return LabelStudioBlockedError("Label Studio blocks this address", where=where, fix=BLOCKED_FIX)
    if response.status_code == 403:
        fix = "use the token of a user who may change the project"
        return LabelStudioError(f"the token's user lacks the right: {detail}", where=where, fix=fix)
    if response.status_code == 404:
        return NotFoundError(missing or detail or "not found", where=where, fix="check the id and the token's user")
    if response.status_code in GATEWAY:
        problem = f"a proxy answers {response.status_code} in Label Studio's place: {detail}"
        return LabelStudioError(problem, where=where, fix="start Label Studio behind the proxy, or see the proxy's log")
    if response.status_code == 413:
        fix = "allow larger requests in the proxy before Label Studio (nginx: client_max_body_size 250m)"
        return LabelStudioError(f"the request is too large: {detail}", where=where, fix=fix)
    if response.status_code == 400:
        problem = f"Label Studio answers 400: {detail}"
        return LabelStudioRefusedError(problem, where=where, problems=problems(response))
    fix = "see Label Studio's log" if response.status_code >= 500 else ""
    return LabelStudioError(f"Label Studio answers {response.status_code}: {detail}", where=where, fix=fix)


def problems(response: httpx.Response) -> tuple[str, ...]:
    """Return the messages of Label Studio's validation about a body as a whole."""
    try:
        messages = response.json()["validation_errors"]["non_field_errors"]
    except (ValueError, TypeError, KeyError):
        return ()
    return tuple(map(str, messages)) if isinstance(messages, list) else ()


def explain(response: httpx.Response) -> str:
    """Return the message in an error answer: the validation errors, else the detail, else the start of the text."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return " ".join(re.sub(r"<[^>]*>", " ", response.text[:2000]).split())[:200]  # mostly a proxy's page
    if not isinstance(body, dict):
        return json.dumps(body)[:500]
    errors = body.get("validation_errors")
    if isinstance(errors, dict):
        named = (f"{'' if name == 'non_field_errors' else f'{name}: '}{_text(value)}" for name, value in errors.items())
        return re.sub(r"<[^>]+>", "", "; ".join(named))  # some are written for the browser
    return str(errors or body.get("detail", body))


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def parse(model: type[ModelT], payload: Any) -> ModelT:
    """Return `payload` as `model`; LabelStudioError names what the answer lacks."""
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise _unexpected(model, ".".join(map(str, first["loc"])) or "shape", first["msg"]) from None


def parse_list(model: type[ModelT], payload: Any) -> list[ModelT]:
    """Return `payload` as a list of `model`; LabelStudioError names what the answer lacks."""
    if not isinstance(payload, list):
        raise _unexpected(model, "shape", f"Input should be a list of these, not {type(payload).__name__}")
    return [parse(model, item) for item in payload]


def _unexpected(model: type[BaseModel], place: str, why: str) -> LabelStudioError:
    return LabelStudioError(
        f"Label Studio's answer has an unexpected {place}: {why}",
        where=model.__name__.strip("_"),
        fix="use Label Studio 1.23, and see that nothing else answers at LABEL_STUDIO_URL",
    )
