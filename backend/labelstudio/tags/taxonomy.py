"""Taxonomy about an Image: like Choices, with labels that are paths in a tree.

Here a path is one label, "Animals > Birds". In Label Studio's results it is a list, ["Animals", "Birds"].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.labelstudio.label_paths import SEPARATOR, joined
from backend.labelstudio.tags import Result, Tag, choices
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region

KIND = "taxonomy"


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return the region of a whole-image answer as `choices.encode` does, with at most maxUsages labels."""
    return choices.answer(tag, prediction, classes, threshold, key, _paths)


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training box of the whole image for each chosen path, or why a path is not learned."""
    return choices.read(tag, _flat(result))


def _paths(labels: list[str]) -> list[Any]:
    return [label.split(SEPARATOR) for label in labels]


def _flat(result: Result) -> Iterator[Mapping[str, Any]]:
    """Yield results with each path as one label."""
    for item in result:
        value = item.get("value")
        paths = value.get(KIND) if isinstance(value, Mapping) else None
        if isinstance(paths, list):
            labels = [joined(path) if _is_path(path) else path for path in paths]
            yield {**item, "value": {KIND: labels}}
        else:
            yield item


def _is_path(path: object) -> bool:
    return isinstance(path, list) and all(isinstance(name, str) for name in path)


TAG = Tag(
    name="Taxonomy",
    object_name="Image",
    encode=encode,
    read=read,
    task=lambda _: "classify",
    multiple=lambda attributes: attributes.get("maxusages", "").strip() != "1",
    label_tag="Choice",
    tree=True,
    numbers={choices.MOST: 1000},
)
