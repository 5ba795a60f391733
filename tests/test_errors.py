"""The error tree is what its drawing says."""

from __future__ import annotations

import re

from backend import errors
from backend.errors import BackendError


def test_the_drawing_shows_every_error_with_its_parent_and_status() -> None:
    drawn: dict[str, tuple[str, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\s+(\d{3})  \S", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = (path[depth - 1] if depth else "Exception", int(found[3]))
    real = {
        name: (kind.__base__.__name__, kind.status)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, BackendError) and kind.__base__ is not None
    }
    assert drawn == real


def test_an_error_says_what_where_and_how_to_fix_it() -> None:
    assert str(BackendError("no redis", where="REDIS_URL", fix="set it")) == "no redis [REDIS_URL] Fix: set it"
    assert str(BackendError("no redis")) == "no redis"
