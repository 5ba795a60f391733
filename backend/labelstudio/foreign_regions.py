"""Regions that another label config made, or another image: a training that skips them would learn background.

Annotations are imported from other projects, control tags are renamed through Label Studio's API, and an image may be
replaced or turned. An image without a region is a background only if somebody could have drawn one there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.labelstudio import regions
from backend.types import ControlTag

ANSWERS = frozenset({"choices", "taxonomy"})  # types of results about a whole image
SHAPES = frozenset(  # types of regions that have their labels in another item, or none
    {"labels", "rectangle", "ellipse", "polygon", "brush", "keypoint", "vector", "bitmask", "videorectangle"}
)
NAMES_TOLD = 3
_REPEATED = re.compile(r"\\\{\\\{.*?\\\}\\\}")  # "{{idx}}" in a name inside a Repeater, as re.escape writes it


def names(tag: ControlTag, items: Sequence[Mapping[str, Any]], *, alone: bool) -> Iterator[str]:
    """Yield why items of control tags that the config lacks, or has of another kind, forbid to learn from a result.

    Of objects those count that share a label with the tag. Where the tag itself has nothing in the result (`alone`)
    all drawn regions count, and answers for a tag of answers: its image may show anything.
    """
    labels = frozenset((*tag.labels, *tag.points))
    reasons = {
        reason: None
        for item in items
        if (reason := _why_foreign(tag, item)) and (alone or _may_be_its_own(tag, item, labels))
    }
    yield from list(reasons)[:NAMES_TOLD]
    if len(reasons) > NAMES_TOLD:
        yield f"{len(reasons) - NAMES_TOLD} more such names are in its result"


def sizes(tag: ControlTag, items: Sequence[Mapping[str, Any]], width: float, height: float) -> Iterator[str]:
    """Yield why regions drawn on an image of another shape than `width` x `height` cannot be learned.

    Regions in percent may be of the same image in another size. A mask fits its own size alone.
    """
    if tag.task == "classify":
        return
    exact = tag.kind == "brushlabels"
    reasons: dict[tuple[float, float], str] = {}
    for item in items:
        size = regions.image_size(item) if _is_read(tag, item) else None
        if size is not None and not (size == (width, height) if exact else _same_shape(size, (width, height))):
            reasons.setdefault(size, regions.name_of(item))
    for (wide, high), name in list(reasons.items())[:NAMES_TOLD]:
        turned = (wide, high) == (height, width)
        yield (
            f"{name} was drawn on {wide:g} x {high:g} pixels, and the image has {width:g} x {height:g}: "
            f"{'one of the two is turned; ' if turned else ''}"
            "give the task the image that was annotated, or annotate it again"
        )


def _why_foreign(tag: ControlTag, item: Mapping[str, Any]) -> str:
    """Return why an item is of another label config, empty if it is of this one or no region."""
    name, kind = item.get("from_name"), item.get("type")
    own = {tag.from_name: tag.kind, **({tag.parent: "rectanglelabels"} if tag.parent else {})}
    if isinstance(name, str) and name in own:
        return "" if kind == own[name] else _of_another_type(name, kind)
    if not tag.controls or not _is_answer(tag, kind):
        return ""
    control = _control(tag.controls, name) if isinstance(name, str) else ""
    if control == kind:
        return ""
    if control:
        return _of_another_type(name, kind)
    return (
        f"its regions are of {regions.spelled(name)}, which the label config does not have: import them again with "
        f'from_name {tag.from_name!r}, or put that control tag back (model_skip="true" keeps it out of the training)'
    )


def _of_another_type(name: object, kind: object) -> str:
    return (
        f"its regions of {regions.spelled(name)} are of the type {regions.spelled(kind)}, and the label config has "
        "another control tag of that name: draw them again, or import them with the right from_name and type"
    )


def _is_answer(tag: ControlTag, kind: object) -> bool:
    """Return whether items of a type tell what a tag asks: choices about an image, or regions on it."""
    if not isinstance(kind, str):
        return False
    if tag.task == "classify" and not tag.frame_rate:
        return kind in ANSWERS
    return kind in SHAPES or kind.endswith("labels")


def _may_be_its_own(tag: ControlTag, item: Mapping[str, Any], labels: frozenset[str]) -> bool:
    """Return whether a foreign region may be one of the tag's objects, by its labels or for want of them."""
    if item.get("from_name") in (tag.from_name, tag.parent or tag.from_name):
        return True
    kind = str(item.get("type"))
    if kind not in SHAPES and kind not in (tag.kind, "rectanglelabels" if tag.parent else tag.kind):
        return False
    if kind in ANSWERS:
        return False  # the tag's own answer says it
    given = regions.labels_of(item, kind) or regions.labels_of(item, "labels")
    return not given or any(isinstance(label, str) and label in labels for label in given)


def _control(controls: Mapping[str, str], name: str) -> str:
    """Return the kind of the control tag of a name, also of one inside a Repeater; empty where there is none."""
    if name in controls:
        return controls[name]
    patterns = ((re.escape(known), kind) for known, kind in controls.items() if "{{" in known)
    return next((kind for known, kind in patterns if re.fullmatch(_REPEATED.sub(r"\\d+", known), name)), "")


def _is_read(tag: ControlTag, item: Mapping[str, Any]) -> bool:
    if item.get("type") == "ellipselabels":
        return item.get("to_name") == tag.to_name
    return item.get("from_name") in (tag.from_name, tag.parent or tag.from_name)


def _same_shape(drawn: tuple[float, float], shown: tuple[float, float]) -> bool:
    """Return whether one image may be the other in another size: to a pixel by rounding, and 1%."""
    height = drawn[1] * shown[0] / drawn[0]
    return abs(height - shown[1]) <= max(1.0, shown[0] / drawn[0]) + 0.01 * shown[1]
