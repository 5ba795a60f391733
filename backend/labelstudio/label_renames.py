"""Labels that were renamed in the label config while annotations still have the old name: LABEL_RENAMES."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from backend.errors import SettingError
from backend.labelstudio.class_names import fold
from backend.labelstudio.label_paths import SEPARATOR, joined
from backend.types import AnnotatedTask, ControlTag

_ARROW = re.compile(r"->|→|=>")


def parse(text: str) -> Mapping[str, str]:
    """Return old name -> new name. Raises SettingError for what is not "old -> new", several divided by ";".

    >>> parse("cat -> Cat; big dog -> Dog")
    {'cat': 'Cat', 'big dog': 'Dog'}
    """
    renames: dict[str, str] = {}
    for entry in filter(str.strip, text.split(";")):
        names = [name.strip() for name in _ARROW.split(entry)]
        if len(names) != 2 or not all(names):
            raise SettingError(
                f"LABEL_RENAMES: {entry.strip()[:80]!r} does not name an old and a new label",
                where="extra params of the ML backend",
                fix='write "old -> new", and ";" between several',
            )
        renames[names[0]] = names[1]
    return renames


def in_task(task: AnnotatedTask, renames: Mapping[str, str]) -> AnnotatedTask:
    """Return an annotated task with the new names in the place of the old ones."""
    if not renames:
        return task
    others = tuple(in_result(result, renames) for result in task.others)
    return replace(task, result=in_result(task.result, renames), others=others)


def in_result(result: Iterable[Any], renames: Mapping[str, str]) -> tuple[Any, ...]:
    """Return the items of a result with the new names in the place of the old ones."""
    return tuple(_item(item, renames) for item in result)


def in_tag(tag: ControlTag, renames: Mapping[str, str]) -> ControlTag:
    """Return a control tag that shows a class with an old name under the new label."""
    names = {fold(old): new for old, new in renames.items() if new in tag.labels}
    return replace(tag, class_to_label={**names, **tag.class_to_label}) if names else tag


def _item(item: Any, renames: Mapping[str, str]) -> Any:
    value = item.get("value") if isinstance(item, Mapping) else None
    if not isinstance(value, Mapping):
        return item
    labels = {name: _labels(value[name], renames) for name in (item.get("type"), "labels") if _has_list(value, name)}
    return {**item, "value": {**value, **labels}}


def _has_list(value: Mapping[str, Any], name: object) -> bool:
    return isinstance(name, str) and isinstance(value.get(name), list)


def _labels(labels: Iterable[Any], renames: Mapping[str, str]) -> list[Any]:
    return [_label(label, renames) for label in labels]


def _label(label: Any, renames: Mapping[str, str]) -> Any:
    if isinstance(label, str):
        return renames.get(label, label)
    if isinstance(label, list) and all(isinstance(name, str) for name in label) and joined(label) in renames:
        return renames[joined(label)].split(SEPARATOR)
    return label
