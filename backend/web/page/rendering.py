"""Renders templates, with the security headers of every page, and numbers and times as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from backend import __version__
from backend.web.page import forms

# The style elements that plotly's bundle adds: an empty one for its rules, and that of its maps. An attribute `style`
# cannot run anything. `tests/browser/test_page.py` fails if a newer plotly adds another.
_PLOTLY_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='"
)
HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src-elem 'self' {_PLOTLY_STYLES}",
            "style-src-attr 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "vary": "accept",
}
NOTICE = "notice"  # the cookie with the sentence that the next page shows


def wants_html(request: Request) -> bool:
    """Return whether a browser asks for a page; Label Studio and programs ask for anything, or for JSON.

    The path of the API always answers JSON.
    """
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def render(request: Request, template: str, values: Mapping[str, Any]) -> HTMLResponse:
    """Return a page made of a template; `token` is what its forms carry."""
    secret = request.app.state.context.store.secret()
    shared = {"token": forms.token(secret), "notice": _notice(request)}
    text = environment().get_template(template).render(shared | dict(values))
    response = HTMLResponse(text, headers=HEADERS)
    if NOTICE in request.cookies:
        response.delete_cookie(NOTICE)
    return response


def render_error(status: int, error: Mapping[str, str]) -> HTMLResponse:
    """Return an error as a page; it needs neither the store nor redis, because these may be what fails."""
    text = environment().get_template("error.html.j2").render(status=status, error=error, notice="")
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def fragment(template: str, **values: Any) -> str:
    """Return a part of a page, for a live event."""
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    """Return jinja2's environment; a name that a template uses must exist."""
    environment = Environment(
        loader=PackageLoader("backend.web.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"software": __version__}
    environment.filters |= {"figure": figure, "duration": duration, "ago": ago, "share": share}
    return environment


def compile_templates() -> None:
    """Compile all templates, which takes as long as several visits; else the first visit to each view would wait."""
    for name in environment().list_templates():
        environment().get_template(name)


def static_file(name: str) -> bytes:
    """Return a file of ours by its name, or plotly's bundle. Raises FileNotFoundError."""
    if name == "plotly.js":
        return files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    folder = files("backend.web.page").joinpath("static")
    if name not in {entry.name for entry in folder.iterdir()}:
        raise FileNotFoundError(name)
    return folder.joinpath(name).read_bytes()


def figure(value: float | None) -> str:
    """Return a quality with three digits.

    >>> figure(0.87345), figure(None)
    ('0.873', '–')
    """
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """Return a share as a percentage.

    >>> share(0.5), share(None)
    ('50%', '–')
    """
    return "–" if value is None else f"{value:.0%}"


def duration(seconds: float | None) -> str:
    """Return a time span as people say it.

    >>> duration(42), duration(200), duration(9000), duration(None)
    ('42 s', '3 min', '2.5 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Return how long ago a moment was.

    >>> ago(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 3, 20, tzinfo=UTC))
    '3 min ago'
    """
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    return f"{duration(seconds)} ago" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days ago"


def _notice(request: Request) -> str:
    raw = request.cookies.get(NOTICE, "")
    try:
        return bytes.fromhex(raw).decode("utf-8", "replace")
    except ValueError:
        return ""
