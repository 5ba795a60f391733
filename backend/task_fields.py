"""What a label config names in the data of a task, e.g. "$pages[0].image", as Label Studio's editor reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

VARIABLE = re.compile(r"\$([\w\[\].{}]+)", re.ASCII)  # as the editor's parseValue has it
_STEP = re.compile(r"[^.\[\]]+")


def field(value: str) -> str:
    """Return a value without the dollar sign where it names one field; a text with fields in it stays as it is.

    >>> field("$image"), field("$pages[0].image"), field("https://host/$image")
    ('image', 'pages[0].image', 'https://host/$image')
    """
    whole = VARIABLE.fullmatch(value)
    return whole[1] if whole else value


def shown(data: Mapping[str, Any], key: str) -> Any:
    """Return what a `field` names in the data of a task, None where a part of it is missing.

    A field may be a path, or a text with fields such as "https://host/$image".

    >>> shown({"pages": [{"image": "a.png"}]}, "pages[0].image"), shown({"a.b": 1}, "a.b")
    ('a.png', 1)
    >>> shown({"image": "a.png"}, "https://host/$image"), shown({}, "https://host/$image")
    ('https://host/a.png', None)
    """
    if key in data or "$" not in key:
        return _at(data, key)
    values = [_at(data, path) for path in VARIABLE.findall(key)]
    if any(value is None for value in values):
        return None
    texts = iter(values)
    return VARIABLE.sub(lambda _: str(next(texts)), key)


def _at(data: Mapping[str, Any], path: str) -> Any:
    if path in data:
        return data[path]
    value: Any = data
    for step in _STEP.findall(path):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value
