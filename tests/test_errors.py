"""The classes of errors, as the drawing in their module shows them."""

from __future__ import annotations

import re

import pytest

from backend import errors
from backend.errors import BackendError


def test_the_drawing_shows_every_error_with_its_parent_and_status() -> None:
    drawn: dict[str, tuple[str, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)(\w+Error)\s+(\d{3})$", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = (path[depth - 1] if depth else "Exception", int(match[3]))
    real = {
        name: (kind.__base__.__name__, kind.status)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, BackendError) and kind.__base__ is not None
    }
    assert drawn == real


def test_an_error_says_what_where_and_how_to_fix_it() -> None:
    assert str(BackendError("no redis", where="REDIS_URL", fix="set it")) == "no redis [REDIS_URL]. Fix: set it"
    assert str(BackendError("no redis")) == "no redis"
    assert str(BackendError("no redis", where="REDIS_URL")) == "no redis [REDIS_URL]"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("no address of Label Studio", "no address of Label Studio. Fix: set it"),
        ("the config is invalid: it has no tag.", "the config is invalid: it has no tag. Fix: set it"),
        ("is it on?", "is it on? Fix: set it"),
    ],
)
def test_a_full_stop_ends_what_is_wrong(what: str, text: str) -> None:
    assert str(BackendError(what, fix="set it")) == text
