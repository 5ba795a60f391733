"""What Label Studio's smart tools send while somebody labels: a click or a rough rectangle, and who holds the answer.

The context of a /predict request has the regions that the smart tool has drawn with one label, the newest last. In
Label Studio's editor, all control tags have smart tools beside the others while "Auto-Annotation" is on; smart="true"
on a control tag says that its regions point at what another control tag shall hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import RegionError
from backend.geometry import coordinates
from backend.geometry.pointing import Click, Pointing
from backend.labelstudio import pages, regions, tags
from backend.labelstudio.label_xml import Tree, attributes_of, is_smart, is_true
from backend.types import ControlTag, YoloTask

_CLICKS, _RECTANGLES = ("keypointlabels", "keypoint"), ("rectanglelabels", "rectangle")
_TASKS: tuple[YoloTask, ...] = ("detect", "obb", "segment", "pose")  # tasks whose models see objects
_WHERE = "the smart tool in Label Studio"


@dataclass(frozen=True, slots=True)
class SmartPrompt:
    """What an annotator points at with a smart tool."""

    from_name: str  # the control tag of the tool
    to_name: str  # the object tag
    label: str  # the label that is chosen; "": none
    kind: str  # of the newest region, as Label Studio writes it, e.g. "keypointlabels"
    region_id: str  # its id
    page: int  # of a task with several images, from 0
    pointing: Pointing


def smart_controls(tree: Tree) -> frozenset[str]:
    """Return the names of the control tags that say smart="true" or smartOnly="true"."""
    attributes = map(attributes_of, tree.root.iter())
    return frozenset(named["name"] for named in attributes if named.get("name") and is_smart(named))


def holders(controls: Sequence[ControlTag], smart: frozenset[str]) -> tuple[ControlTag, ...]:
    """Return the control tags without those that are only for pointing.

    Those are the smart ones, as long as another tag of the same image has all their labels. Their regions are rough,
    stay in the annotation where suggestions are not accepted by themselves, and must not be learned.
    """
    firm = [tag for tag in controls if tag.from_name not in smart and _answers(tag)]
    held = [{label for other in firm if other.to_name == tag.to_name for label in other.labels} for tag in controls]
    return tuple(
        tag
        for tag, labels in zip(controls, held, strict=True)
        if not (tag.from_name in smart and tag.task in _TASKS and labels.issuperset(tag.points or tag.labels))
    )


def without_model(tree: Tree, controls: Sequence[ControlTag], held: Sequence[ControlTag]) -> list[str]:
    """Return why control tags that are not `held` have no model; nothing of a smartOnly tag, which can only point."""
    attributes = [attributes_of(element) for element in tree.root.iter()]
    only = {named.get("name") for named in attributes if is_true(named, "smartonly", default=False)}
    left = (tag for tag in controls if tag not in held and tag.from_name not in only)
    return [
        f'{tags.get(tag.kind).name} "{tag.from_name:.80}" has no model of its own: it says smart="true", and another '
        f'tag has its labels. Fix: remove smart="true" if it shall be learned; model_skip="true" on it hides this line'
        for tag in left
    ]


def _answers(tag: ControlTag) -> bool:
    """Return whether a tag can hold an object at which somebody points; points without a box are no such object."""
    return tag.task in _TASKS and not tag.frame_rate and bool(tag.parent or not tag.points)


def read(result: Sequence[Any]) -> SmartPrompt:
    """Return the prompt in the `result` of a context; raises RegionError for what points at nothing.

    All clicks count, with Alt held as "not here", and of rectangles the newest.
    """
    items = [item for item in result if isinstance(item, Mapping) and isinstance(item.get("value"), Mapping)]
    drawn = [item for item in items if item.get("type") in (*_CLICKS, *_RECTANGLES)]
    if not drawn:
        kinds = ", ".join(dict.fromkeys(regions.spelled(item.get("type")) for item in items)) or "nothing"
        fix = "point with a KeyPointLabels or a RectangleLabels tool"
        raise RegionError(f"the smart tool sent {kinds}, no key point and no rectangle", where=_WHERE, fix=fix)
    newest = drawn[-1]
    page = pages.page_of(newest)
    if newest["type"] in _CLICKS:
        clicks = [item for item in drawn if item["type"] in _CLICKS and pages.page_of(item) == page]
        pointing = Pointing(clicks=tuple(map(_click, clicks)))
        if not any(click.on_object for click in pointing.clicks):
            fix = "click on the object without Alt first"
            raise RegionError("every click says where the object is not", where=_WHERE, fix=fix)
    else:
        pointing = Pointing(rectangle=_rectangle(newest))
    return SmartPrompt(
        from_name=regions.id_of(newest.get("from_name")),
        to_name=regions.id_of(newest.get("to_name")),
        label=_label(newest, items),
        kind=newest["type"],
        region_id=regions.id_of(newest.get("id")),
        page=page,
        pointing=pointing,
    )


def target(prompt: SmartPrompt, controls: Iterable[ControlTag], smart: frozenset[str]) -> tuple[ControlTag, str]:
    """Return the control tag that shall hold the answer, and its label; raises RegionError where there is none.

    If the tool's own tag says smart="true", a tag that does not say so comes first. Otherwise the own tag comes first.
    `smart` are the names of the tags that say so.
    """
    on_image = [tag for tag in controls if tag.to_name == prompt.to_name and _answers(tag)]
    labels = tuple(dict.fromkeys(label for tag in on_image for label in tag.labels))
    label = prompt.label or (labels[0] if len(labels) == 1 else "")
    holders = [tag for tag in on_image if label in tag.labels]
    if not holders:
        problem = f"no control tag that predicts objects has the label {label!r}" if label else "no label is chosen"
        fix = (
            f"choose one of {', '.join(labels[:10])}"
            if labels
            else "add a RectangleLabels, PolygonLabels or BrushLabels"
        )
        raise RegionError(problem, where=f"{prompt.from_name:.80} of {prompt.to_name:.80}", fix=fix)
    own = [tag for tag in holders if prompt.from_name in (tag.from_name, tag.parent)]
    others = [tag for tag in holders if tag.from_name not in smart and tag not in own]
    order = [*others, *own] if prompt.from_name in smart else [*own, *others]
    return (order or holders)[0], label


def _label(newest: Mapping[str, Any], items: Iterable[Mapping[str, Any]]) -> str:
    """Return the label of a region: its own, or that of a Labels tag, which is an item of the same id beside it."""
    beside = [item for item in items if item.get("id") == newest.get("id")]
    names = ((item, kind) for item in (newest, *beside) for kind in (str(item.get("type")), "labels"))
    labels = (label for item, kind in names for label in regions.labels_of(item, kind))
    return next((label for label in labels if isinstance(label, str)), "")


def _click(item: Mapping[str, Any]) -> Click:
    x, y = (regions.number(item["value"].get(name)) / 100 for name in ("x", "y"))
    if not (0 <= x <= 1 and 0 <= y <= 1):  # NaN too
        raise RegionError(f"{regions.name_of(item)} lies outside the image", where=_WHERE, fix="click on the object")
    return Click(x, y, item.get("is_positive") is not False)


def _rectangle(item: Mapping[str, Any]) -> coordinates.Box:
    """Return the upright hull of a rectangle, clipped to the image, as (left, top, right, bottom) in shares of it."""
    box_and_rotation = regions.percent_box(item["value"])
    if box_and_rotation is not None:
        box, rotation = box_and_rotation
        size = regions.image_size(item) or (1.0, 1.0)
        hull = coordinates.clip_percent(coordinates.rotated_hull(box, rotation, *size) if rotation % 360 else box)
        if hull[2] > 0 and hull[3] > 0 and all(map(math.isfinite, hull)):
            return hull[0] / 100, hull[1] / 100, (hull[0] + hull[2]) / 100, (hull[1] + hull[3]) / 100
    fix = "draw it around the object"
    raise RegionError(f"{regions.name_of(item)} has no area inside the image", where=_WHERE, fix=fix)
