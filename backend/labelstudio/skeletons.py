"""Which RectangleLabels of a label config holds the boxes of which KeyPointLabels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from backend.labelstudio.label_xml import Tree, attributes_of, says


@dataclass(frozen=True, slots=True)
class Skeletons:
    """The boxes of each tag of points that has some; both by their elements."""

    boxes: Mapping[ET.Element, ET.Element]
    points: Mapping[ET.Element, ET.Element]


def find(tree: Tree) -> Skeletons:
    """Return the RectangleLabels NAME_bbox of each KeyPointLabels NAME, or else one that is skipped by itself."""
    named: dict[tuple[str | None, str], ET.Element] = {}
    skipped: dict[str | None, ET.Element] = {}
    for node in tree.nodes("RectangleLabels"):
        attributes = attributes_of(node)
        if attributes.get("name"):
            named.setdefault((attributes.get("toname"), attributes["name"]), node)
            if says(attributes, "model_skip", default=False):
                skipped.setdefault(attributes.get("toname"), node)
    boxes = {}
    for node in tree.nodes("KeyPointLabels"):
        attributes = attributes_of(node)
        to_name = attributes.get("toname")
        holder = named.get((to_name, f"{attributes.get('name')}_bbox"), skipped.get(to_name))
        if holder is not None and not says(attributes, "model_skip", default=False):
            boxes[node] = holder
    return Skeletons(boxes, {holder: node for node, holder in boxes.items()})
