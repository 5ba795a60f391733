"""The control tags this backend knows, each in one file of this folder that defines `TAG`.

A tag is two-way: `encode` turns a prediction into Label Studio regions, `read` turns an annotation's result into
training labels and into reasons for what is left out. To add one, add its file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from backend.errors import LabelConfigError
from backend.geometry.coordinates import class_hulls
from backend.labelstudio import foreign_regions
from backend.labelstudio.regions import spelled
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region, VideoOptions, YoloTask

Result = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Tag:
    """One kind of control tag and the functions that speak it."""

    name: str  # as Label Studio writes it, e.g. "RectangleLabels"
    object_name: str  # the object tag it must point to, e.g. "Image"
    encode: Callable[[ControlTag, Prediction, Sequence[str], float, str], tuple[Region, ...]]
    # Labels, regions that show nothing, and why what else is left out is no label.
    read: Callable[[ControlTag, Result], Iterable[LabeledBox | EmptyRegion | str]]
    task: Callable[[Mapping[str, str]], YoloTask]  # of its attributes
    multiple: Callable[[Mapping[str, str]], bool] = lambda _: False  # may an image have several labels?
    label_tag: str = "Label"  # the tags inside that are its labels
    labels_beside: str = ""  # the tag of the same object that has them inside instead, e.g. "Labels"
    tree: bool = False  # they stand inside one another, and a label is the path to one
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # attribute (lower case) -> values it takes
    numbers: Mapping[str, float] = field(default_factory=dict)  # attribute (lower case) -> the most it may be, from 0
    above_zero: frozenset[str] = frozenset()  # those of them that must be more than 0
    # Of its attributes what a model's raw answer depends on, defaults filled in; not what only shows or teaches.
    asked: Callable[[Mapping[str, str]], VideoOptions] = lambda _: {}

    @property
    def kind(self) -> str:
        """The result type Label Studio uses: the tag's name in lower case."""
        return self.name.lower()


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction as regions of its control tag; region ids depend on `key` only."""
    return get(tag.kind).encode(tag, prediction, classes, threshold, key)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an annotation's result says to one control tag."""

    boxes: tuple[LabeledBox, ...]
    nothing: tuple[str, ...]  # regions that show nothing inside the image
    unreadable: tuple[str, ...]  # why it cannot be learned from: learned without these, it would teach background

    def objects(self, tag: ControlTag) -> tuple[LabeledBox, ...]:
        """Return the boxes as a model would answer: of classes of pixels one box around all of a class."""
        return class_hulls(self.boxes) if tag.task == "semantic" else self.boxes


def read(tag: ControlTag, result: Result, size: tuple[float, float] | None = None) -> Reading:
    """Read an annotation's result for a control tag; `size`: width and height of the image it is learned with."""
    boxes, nothing, unreadable = [], [], []
    for part in _read(tag, result, size):
        if isinstance(part, LabeledBox):
            boxes.append(part)
        elif isinstance(part, EmptyRegion):
            nothing.append(part.reason)
        else:
            unreadable.append(part)
    return Reading(tuple(boxes), tuple(nothing), tuple(unreadable))


def decode(tag: ControlTag, result: Result) -> tuple[LabeledBox, ...]:
    """Return the training boxes that an annotation's result holds for this control tag."""
    return read(tag, result).boxes


def objects(tag: ControlTag, result: Result) -> tuple[LabeledBox, ...]:
    """Return what `decode` does as a model would answer: of classes of pixels one box around all of a class."""
    return read(tag, result).objects(tag)


def explain(tag: ControlTag, result: Result) -> tuple[str, ...]:
    """Return what `decode` leaves out of a result, one reason each."""
    parts = _read(tag, result, None)
    return tuple(
        part.reason if isinstance(part, EmptyRegion) else part for part in parts if not isinstance(part, LabeledBox)
    )


def unreadable(tag: ControlTag, result: Result, size: tuple[float, float] | None = None) -> tuple[str, ...]:
    """Return why a result cannot be learned from: who skips what it means learns it as background."""
    return read(tag, result, size).unreadable


def is_foreign(tag: ControlTag, result: Result, size: tuple[float, float]) -> bool:
    """Return whether a result is of another label config or image, so that what it lacks says nothing."""
    items = [item for item in result if isinstance(item, Mapping)]
    parts = list(get(tag.kind).read(tag, items))
    return any((*foreign_regions.names(tag, items, alone=not parts), *foreign_regions.sizes(tag, items, *size)))


def _read(
    tag: ControlTag, result: Result, size: tuple[float, float] | None
) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what a tag reads in a result, and why the result does not say all that is on its image.

    That is where it has regions of other control tags than the config has, regions drawn on an image of another shape,
    and what is no item at all: Label Studio imports anything.
    """
    items = list(result)
    regions = [item for item in items if isinstance(item, Mapping)]
    parts = list(get(tag.kind).read(tag, regions))
    yield from parts
    yield from foreign_regions.names(tag, regions, alone=not parts)
    if size is not None:
        yield from foreign_regions.sizes(tag, regions, *size)
    yield from (
        f"{spelled(item)} is in its result, and is not a region" for item in items if not isinstance(item, Mapping)
    )


def asked(tag: ControlTag) -> VideoOptions:
    """Return what of a tag's attributes the raw answers of its models depend on."""
    return get(tag.kind).asked(tag.attributes)


def get(kind: str) -> Tag:
    """Return the tag of a kind, e.g. "rectanglelabels". Raises LabelConfigError listing the known kinds."""
    known = registry()
    if kind not in known:
        raise LabelConfigError(f"unknown control tag {kind!r}", fix=f"use one of {', '.join(known)}")
    return known[kind]


@cache
def registry() -> Mapping[str, Tag]:
    """Return kind -> tag of every file in this folder, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return collect(importlib.import_module(f"{__name__}.{name}").TAG for name in names)


def collect(tags: Iterable[Tag]) -> Mapping[str, Tag]:
    """Return kind -> tag. Raises ValueError when two tags share a kind."""
    known: dict[str, Tag] = {}
    for tag in tags:
        if tag.kind in known:
            raise ValueError(f"two tags of kind {tag.kind!r} in backend/tags")
        known[tag.kind] = tag
    return known
