"""Why no model here answers a control tag by itself: the other tags of a label config are served without it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from backend.labelstudio import tags
from backend.labelstudio.label_xml import Tree, attributes_of, inside, is_true, spell
from backend.labelstudio.skeletons import Skeletons

_SEEN = ("image", "video")  # object tags whose files models see
_TOOLS = ("filter", "magicwand")  # they help with another control tag, and have no results of their own


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decides about a control tag besides its own attributes."""

    skeletons: Skeletons
    objects: Mapping[str, str]  # name -> tag of the elements that controls can be about
    holders: frozenset[tuple[str, str]]  # kind and toName of tags that hold the labels of another tag


def look_around(tree: Tree, skeletons: Skeletons) -> Surroundings:
    """Return the surroundings of all control tags of a label config."""
    about = {}
    for node in tree.root.iter():
        attributes = attributes_of(node)
        if attributes.get("name") and "toname" not in attributes:
            about[attributes["name"]] = node.tag
    holding = [(tag.labels_beside.lower(), tag.name) for tag in tags.registry().values() if tag.labels_beside]
    holders = {(holder, _to_name(node)) for holder, name in holding for node in tree.nodes(name)}
    return Surroundings(skeletons, about, frozenset(holders))


def reasons(tree: Tree, around: Surroundings) -> Iterator[str]:
    """Yield, in the config's order, why a control tag is left alone; none for tags with model_skip="true"."""
    for element in tree.root.iter():
        attributes = attributes_of(element)
        if not attributes.get("name") or "toname" not in attributes or is_part(element, around):
            continue
        if not is_true(attributes, "model_skip", default=False) and (why := reason(element, around)):
            yield f"{spell(element)} {why}"


def is_part(element: ET.Element, around: Surroundings) -> bool:
    """Return whether a tag belongs to another one: a tool, the boxes of points, the Labels of a VideoRectangle."""
    kind = element.tag.lower()
    return kind in _TOOLS or element in around.skeletons.points or (kind, _to_name(element)) in around.holders


def reason(element: ET.Element, around: Surroundings) -> str:
    """Return why no model answers a control tag; empty for one that a model answers, or that has its own error."""
    kind = element.tag.lower()
    about = next((around.objects[name] for name in _to_name(element).split(",") if name in around.objects), "")
    if kind not in tags.registry():
        if about and about.lower() not in _SEEN:
            return f"belongs to a tag of the kind {about:.40}, and models see images and videos only"
        return "asks for something that no model here gives"
    if kind == "keypointlabels" and element not in around.skeletons.boxes:
        return "has no RectangleLabels for the boxes of its objects"
    if tags.get(kind).label_tag != "Choice":
        return ""
    if attributes_of(element).get("perregion", "").strip().lower() == "true":
        return 'is about each region (perRegion="true"), and models answer about the whole image'
    if about.lower() != "image":
        return (
            f"belongs to {f'a tag of the kind {about:.40}' if about else 'no tag'}, and models answer it for an Image"
        )
    return "" if next(inside(element, "Choice"), None) is not None else "takes its choices from the task"


def _to_name(element: ET.Element) -> str:
    return attributes_of(element).get("toname", "")
