"""Regions that belong to another label config or to another image.

They exist because people import annotations from other projects, rename control tags through Label Studio's API, and
replace or turn images. A training that skipped such regions would learn their objects as background: an image
without a region is background only if somebody could have drawn one there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.labelstudio import regions
from backend.types import ControlTag

ANSWERS = frozenset({"choices", "taxonomy"})  # types of results about a whole image
SHAPES = frozenset(  # types of regions that have their labels in another item, or none
    {
        "labels",
        "rectangle",
        "ellipse",
        "polygon",
        "brush",
        "keypoint",
        "vector",
        "bitmask",
        "magicwand",
        "videorectangle",
    }
)
MOST_NAMED = 3  # tags or sizes that a message lists
_REPEATED = re.compile(r"\\\{\\\{.*?\\\}\\\}")  # "{{idx}}" in a name inside a Repeater, as re.escape writes it


def control_problems(tag: ControlTag, items: Sequence[Mapping[str, Any]], *, alone: bool) -> Iterator[str]:
    """Yield why a result cannot be learned: items of control tags that the config lacks, or has of another kind.

    A region counts if it shares a label with the tag. Where the result holds nothing of the tag itself (`alone`), all
    drawn regions count, because the image may show anything; for a tag of choices, all choices count.
    """
    labels = frozenset((*tag.labels, *tag.points))
    reasons = {
        reason: None
        for item in items
        if (reason := _why_foreign(tag, item)) and (alone or _may_be_of_tag(tag, item, labels))
    }
    yield from list(reasons)[:MOST_NAMED]
    if len(reasons) > MOST_NAMED:
        yield f"{len(reasons) - MOST_NAMED} more such names are in its result"


def size_problems(
    tag: ControlTag, items: Sequence[Mapping[str, Any]], width: float, height: float, *, exact: bool
) -> Iterator[str]:
    """Yield why a result cannot be learned: regions drawn on an image of another shape than `width` x `height`.

    Regions in percent fit the same image in another size. A mask fits only its own size (`exact`).
    """
    if tag.task == "classify" and not tag.regions_of:
        return
    reasons: dict[tuple[float, float], str] = {}
    for item in items:
        size = regions.image_size(item) if _is_read(tag, item) else None
        if size is not None and not (size == (width, height) if exact else _same_shape(size, (width, height))):
            reasons.setdefault(size, regions.name_of(item))
    for (wide, high), name in list(reasons.items())[:MOST_NAMED]:
        turned = (wide, high) == (height, width)
        yield (
            f"{name} was drawn on {wide:g} x {high:g} pixels, and the image has {width:g} x {height:g}: "
            f"{'one of the two is turned; ' if turned else ''}"
            "give the task the image that was annotated, or annotate it again"
        )


def _why_foreign(tag: ControlTag, item: Mapping[str, Any]) -> str:
    """Return why an item belongs to another label config; empty if it belongs to this one, or is not a region."""
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
    """Return whether items of a type can answer a tag: choices about an image, or regions on it."""
    if not isinstance(kind, str):
        return False
    if tag.task == "classify" and not tag.frame_rate:
        return kind in ANSWERS
    return kind in SHAPES or kind.endswith("labels")


def _may_be_of_tag(tag: ControlTag, item: Mapping[str, Any], labels: frozenset[str]) -> bool:
    """Return whether a foreign region may be one of the tag's objects: it has one of its labels, or no label."""
    if item.get("from_name") in (tag.from_name, tag.parent or tag.from_name):
        return True
    kind = str(item.get("type"))
    if kind not in SHAPES and kind not in (tag.kind, "rectanglelabels" if tag.parent else tag.kind):
        return False
    if kind in ANSWERS:
        return False  # the tag's own answer says it
    item_labels = regions.labels_of(item, kind) or regions.labels_of(item, "labels")
    return not item_labels or any(isinstance(label, str) and label in labels for label in item_labels)


def _control(controls: Mapping[str, str], name: str) -> str:
    """Return the kind of the control tag with a name, also inside a Repeater; empty where there is none."""
    if name in controls:
        return controls[name]
    patterns = ((re.escape(control), kind) for control, kind in controls.items() if "{{" in control)
    return next((kind for control, kind in patterns if re.fullmatch(_REPEATED.sub(r"\\d+", control), name)), "")


def _is_read(tag: ControlTag, item: Mapping[str, Any]) -> bool:
    if item.get("type") == "ellipselabels":
        return item.get("to_name") == tag.to_name
    return item.get("from_name") in (tag.from_name, tag.parent or tag.from_name)


def _same_shape(drawn: tuple[float, float], shown: tuple[float, float]) -> bool:
    """Return whether two sizes can be of one image: the heights agree to a pixel of rounding plus 1%."""
    height = drawn[1] * shown[0] / drawn[0]
    return abs(height - shown[1]) <= max(1.0, shown[0] / drawn[0]) + 0.01 * shown[1]
