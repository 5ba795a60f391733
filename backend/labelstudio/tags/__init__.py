"""The control tags that this backend supports, each in one file of this folder that defines `TAG`.

A tag works both ways: `encode` turns a prediction into Label Studio regions, and `read` turns an annotation's result
into training labels and into reasons for what it leaves out. To add a tag, add its file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from backend.errors import LabelConfigError
from backend.geometry.coordinates import class_hulls
from backend.labelstudio import foreign_regions, pages, visibility
from backend.labelstudio.regions import adapted, labels_of, spelled
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region, VideoOptions, YoloTask

Result = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Tag:
    """One kind of control tag, with the functions that encode and read its regions."""

    name: str  # as Label Studio writes it, e.g. "RectangleLabels"
    object_name: str  # the object tag it must point to, e.g. "Image"
    encode: Callable[[ControlTag, Prediction, Sequence[str], float, str], tuple[Region, ...]]
    # Yields training labels, empty regions, and the reasons why other items are not learned.
    read: Callable[[ControlTag, Result], Iterable[LabeledBox | EmptyRegion | str]]
    task: Callable[[Mapping[str, str]], YoloTask]  # from the tag's attributes
    # Yields what its regions teach another tag of the same image that has their labels.
    lend: Callable[[ControlTag, Result], Iterable[LabeledBox | EmptyRegion | str]] = lambda *_: ()
    multiple: Callable[[Mapping[str, str]], bool] = lambda _: False  # whether an image may have several labels
    label_tag: str = "Label"  # the kind of tag inside it that defines a label
    labels_beside: str = ""  # another tag of the same object that contains the labels instead, e.g. "Labels"
    unnamed: bool = False  # without that tag, all of its shapes are one kind of object
    unanswered: str = ""  # why no model answers it, if its regions only teach other tags
    instead: str = ""  # what to write in its place, or beside it
    masks: bool = False  # its regions are masks of pixels, not shapes in percent of the image
    elliptic: bool = False  # its regions are the ellipses in the boxes of its models
    tree: bool = False  # label tags are nested, and a label is the path to one of them
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # attribute (lower case) -> allowed values
    needs: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # attribute -> value it must have, and why
    numbers: Mapping[str, float] = field(default_factory=dict)  # attribute (lower case) -> its maximum, from 0
    above_zero: frozenset[str] = frozenset()  # names in `numbers` that must be above 0
    # The attributes that a model's raw answer depends on, with defaults; not those of display or training.
    answer_options: Callable[[Mapping[str, str]], VideoOptions] = lambda _: {}

    @property
    def kind(self) -> str:
        """The result type Label Studio uses: the tag's name in lower case."""
        return self.name.lower()


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction as regions of its control tag; region ids depend on `key` only."""
    encode_image = get(tag.kind).encode
    if prediction.pages is None:
        return encode_image(tag, prediction, classes, threshold, key)
    return tuple(
        replace(region, page=index)
        for index, page in enumerate(prediction.pages)
        for region in encode_image(tag, page, classes, threshold, f"{key}/{index}")
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """An annotation's result, as one control tag reads it."""

    boxes: tuple[LabeledBox, ...]
    nothing: tuple[str, ...]  # regions that show nothing inside the image
    unreadable: tuple[str, ...]  # why the result cannot be learned: without these regions it would teach background

    def objects(self, tag: ControlTag) -> tuple[LabeledBox, ...]:
        """Return the boxes as a model would answer; for semantic segmentation, one box around all of a class."""
        return class_hulls(self.boxes) if tag.task == "semantic" else self.boxes


def read(tag: ControlTag, result: Result, size: tuple[float, float] | None = None) -> Reading:
    """Read an annotation's result for a control tag; `size`: width and height in pixels of the image to learn from."""
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
    """Return the training boxes as a model would answer; for semantic segmentation, one box around all of a class."""
    return read(tag, result).objects(tag)


def explain(tag: ControlTag, result: Result) -> tuple[str, ...]:
    """Return the reason for each item of a result that `decode` leaves out."""
    parts = _read(tag, result, None)
    return tuple(
        part.reason if isinstance(part, EmptyRegion) else part for part in parts if not isinstance(part, LabeledBox)
    )


def unreadable(tag: ControlTag, result: Result, size: tuple[float, float] | None = None) -> tuple[str, ...]:
    """Return why a result cannot be learned; a training that skipped these items would learn them as background."""
    return read(tag, result, size).unreadable


def is_foreign(tag: ControlTag, result: Result, size: tuple[float, float]) -> bool:
    """Return whether missing regions mean nothing: the result belongs to another label config or image, or hid the tag.

    See `visibility`.
    """
    items = [item for item in result if isinstance(item, Mapping)]
    parts = list(_parts(tag, items))
    return visibility.is_hidden(tag, items) or any(
        (
            *foreign_regions.control_problems(tag, items, alone=not parts),
            *_size_problems(tag, items, size),
        )
    )


def _size_problems(tag: ControlTag, items: Sequence[Mapping[str, Any]], size: tuple[float, float]) -> Iterator[str]:
    """Yield why regions of a tag or of its teachers cannot be learned: they were drawn on an image of another shape."""
    for reader in (tag, *tag.teachers):
        yield from foreign_regions.size_problems(reader, items, *size, exact=get(reader.kind).masks)


def _read(
    tag: ControlTag, result: Result, size: tuple[float, float] | None
) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what a tag reads in a result, then why the result may be incomplete.

    It may be incomplete where it holds regions of control tags that the config lacks, regions drawn on an image of
    another shape, or entries that are not regions, because Label Studio imports anything.
    """
    items = list(result)
    regions = [item for item in items if isinstance(item, Mapping)]
    parts = list(_parts(tag, regions))
    yield from parts
    yield from foreign_regions.control_problems(tag, regions, alone=not parts)
    if size is not None:
        yield from _size_problems(tag, regions, size)
    yield from (
        f"{spelled(item)} is in its result, and is not a region" for item in items if not isinstance(item, Mapping)
    )


def _parts(tag: ControlTag, items: Sequence[Mapping[str, Any]]) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what a tag reads in the regions of a result; of a task with pages, each label has its page as `frame`."""
    if not tag.pages:
        yield from _of_image(tag, items)
        return
    for page, of_page in pages.by_page(items).items():
        for part in _of_image(tag, of_page):
            yield replace(part, frame=page + 1) if isinstance(part, LabeledBox) else part


def _of_image(tag: ControlTag, items: Sequence[Mapping[str, Any]]) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what a tag reads in the regions of an image, and what other tags' regions teach it."""
    yield from get(tag.kind).read(tag, items)
    if tag.task not in ("classify", "pose") and not tag.frame_rate:
        yield from (part for other in registry().values() for part in other.lend(tag, items))
        yield from (part for teacher in tag.teachers for part in _taught(tag, teacher, items))


def _taught(
    tag: ControlTag, teacher: ControlTag, items: Sequence[Mapping[str, Any]]
) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what the regions of a teacher teach a tag; a region with labels that `tag` lacks is none of its objects."""
    others = frozenset(teacher.labels) - frozenset(tag.labels)
    ours = (
        item
        for item in items
        if not (labels := labels_of(item, teacher.kind))
        or any(not isinstance(label, str) or label not in others for label in labels)
    )
    for part in get(teacher.kind).read(replace(teacher, task=tag.task), ours):
        if not isinstance(part, LabeledBox):
            yield part
        elif part.label not in others:
            yield adapted(tag, part)


def answer_options(tag: ControlTag) -> VideoOptions:
    """Return those of a tag's attributes that the raw answers of its models depend on, with defaults."""
    return get(tag.kind).answer_options(tag.attributes)


def get(kind: str) -> Tag:
    """Return the tag of a kind, e.g. "rectanglelabels". Raises LabelConfigError listing the known kinds."""
    tags = registry()
    if kind not in tags:
        raise LabelConfigError(f"unknown control tag {kind!r}", fix=f"use one of {', '.join(tags)}")
    return tags[kind]


@cache
def registry() -> Mapping[str, Tag]:
    """Return kind -> tag of every file in this folder, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return collect(importlib.import_module(f"{__name__}.{name}").TAG for name in names)


def collect(tags: Iterable[Tag]) -> Mapping[str, Tag]:
    """Return kind -> tag. Raises ValueError when two tags share a kind."""
    by_kind: dict[str, Tag] = {}
    for tag in tags:
        if tag.kind in by_kind:
            raise ValueError(f"two tags of kind {tag.kind!r} in labelstudio/tags")
        by_kind[tag.kind] = tag
    return by_kind
