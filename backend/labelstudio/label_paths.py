"""Labels that are paths in a tree, as one string."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SEPARATOR = " > "


def joined(path: Iterable[Any]) -> str:
    """Return a path as one label.

    >>> joined(["Animals", "Birds"])
    'Animals > Birds'
    """
    return SEPARATOR.join(map(str, path))
