"""Why no model here answers a control tag by itself: the other tags of a label config are served without it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from backend.labelstudio import region_choices, tags
from backend.labelstudio.label_xml import Tree, attributes_of, inside, is_true, spell
from backend.labelstudio.object_tags import has_pages, names
from backend.labelstudio.skeletons import Skeletons
from backend.labelstudio.task_labels import key_of

_SEEN = ("image", "video")  # object tags whose files models see


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decides about a control tag besides its own attributes."""

    tree: Tree
    skeletons: Skeletons
    repeated: frozenset[ET.Element]  # what is inside a Repeater
    holders: frozenset[tuple[str, str]]  # kind and toName of tags that hold the labels of another tag


def look_around(tree: Tree, skeletons: Skeletons) -> Surroundings:
    """Return the surroundings of all control tags of a label config."""
    holding = [(tag.labels_beside.lower(), tag.name) for tag in tags.registry().values() if tag.labels_beside]
    holders = {(holder, names(node)[0]) for holder, name in holding for node in tree.nodes(name)}
    repeated = frozenset(node for repeater in tree.nodes("Repeater") for node in repeater.iter())
    return Surroundings(tree, skeletons, repeated, frozenset(holders))


def reasons(around: Surroundings) -> Iterator[str]:
    """Yield, in the config's order, why a control tag is left alone; none for tags with model_skip="true"."""
    for element in around.tree.root.iter():
        attributes = attributes_of(element)
        if not attributes.get("name") or "toname" not in attributes or is_part(element, around):
            continue
        if not is_true(attributes, "model_skip", default=False) and (why := reason(element, around)):
            yield f"{spell(element)} {why}"


def is_part(element: ET.Element, around: Surroundings) -> bool:
    """Return whether a tag belongs to another one: a tool, the boxes of points, the Labels of a VideoRectangle."""
    kind = element.tag.lower()
    parts = element in around.skeletons.points or (kind, names(element)[0]) in around.holders
    return parts or kind == "filter" or (kind == "magicwand" and _is_tool(element, around))


def _is_tool(element: ET.Element, around: Surroundings) -> bool:
    """Return whether a MagicWand paints for a BrushLabels, or for a Brush, whose model learns what it selects."""
    named, painted = (
        any(names(node) == names(element) for node in around.tree.nodes(tag)) for tag in ("Labels", "Brush")
    )
    return painted or not named


def reason(element: ET.Element, around: Surroundings) -> str:
    """Return why no model answers a control tag; empty for one that a model answers, or that has its own error."""
    kind = element.tag.lower()
    targets = [around.tree.objects.get(name) for name in names(element)]
    target = next((target for target in targets if target is not None), None)
    about = target.tag if target is not None else ""
    if kind not in tags.registry():
        if about and about.lower() not in _SEEN:
            return f"belongs to a tag of the kind {about:.40}, and models see images and videos only"
        return "asks for something that no model here gives"
    if element in around.repeated:
        return "is inside a Repeater, and Label Studio imports no predictions of such tags; a valueList shows pages"
    if tags.get(kind).label_tag != "Choice":
        return ""
    if region_choices.is_per_region(element):
        if not region_choices.is_marked(element):
            return 'is about each region (perRegion="true"), and models answer about the whole image'
        if why := region_choices.why_unanswered(element, around.tree):
            return why
    per_item = attributes_of(element).get("peritem", "").strip().lower() == "true"
    if target is not None and has_pages(target) and not per_item:
        return 'is about all pages at once, and models see one page; perItem="true" asks about each page'
    if about.lower() != "image":
        return (
            f"belongs to {f'a tag of the kind {about:.40}' if about else 'no tag'}, and models answer it for an Image"
        )
    has_choices = next(inside(element, "Choice"), None) is not None or key_of(element, tags.get(kind))
    return "" if has_choices else "has no choices that a model can learn"
