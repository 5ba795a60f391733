"""The classes of errors, as the drawing in their module shows them."""

from __future__ import annotations

import re

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
    assert str(BackendError("no redis", where="REDIS_URL", fix="set it")) == "no redis [REDIS_URL] Fix: set it"
    assert str(BackendError("no redis")) == "no redis"
