"""What a label config names in the data of a task, e.g. "$pages[0].image", as Label Studio's editor reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.types import ControlTag, Task
from backend.urls.signed_urls import unsigned_text

VARIABLE = re.compile(r"\$([\w\[\].{}]+)", re.ASCII)  # as the editor's parseValue has it
_STEP = re.compile(r"[^.\[\]]+")


def field(value: str) -> str:
    """Return a value without the dollar sign where it names one field; a text with fields in it stays as it is.

    >>> field("$image"), field("$pages[0].image"), field("https://host/$image")
    ('image', 'pages[0].image', 'https://host/$image')
    """
    whole = VARIABLE.fullmatch(value)
    return whole[1] if whole else value


def shown(task: Task, key: str) -> Any:
    """Return what a `field` names in the data of a task, None where a part of it is missing.

    A field may be a path, or a text with fields such as "https://host/$image".

    >>> shown(Task(1, {"pages": [{"image": "a.png"}]}), "pages[0].image"), shown(Task(1, {"a.b": 1}), "a.b")
    ('a.png', 1)
    >>> shown(Task(1, {"image": "a.png"}), "https://host/$image"), shown(Task(1, {}), "https://host/$image")
    ('https://host/a.png', None)
    """
    if key in task.data or "$" not in key:
        return _at(task.data, key)
    values = [_at(task.data, path) for path in VARIABLE.findall(key)]
    if any(value is None for value in values):
        return None
    texts = iter(values)
    return VARIABLE.sub(lambda _: str(next(texts)), key)


def source(tag: ControlTag, task: Task) -> int:
    """Return a hash, never 0, of the data that the tag shows; a prediction is valid for this data only.

    The signature of a signed URL does not count: the URL shows the same image when it is signed again.
    """
    text = unsigned_text(shown(task, tag.data_key))
    if tag.frame_rate_key:
        text += json.dumps(shown(task, tag.frame_rate_key), sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True) or 1


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
