"""Which RectangleLabels of a label config holds the boxes of which KeyPointLabels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from backend.labelstudio.label_xml import Tree, attributes_of, is_true


@dataclass(frozen=True, slots=True)
class Skeletons:
    """The pairs of a KeyPointLabels and its RectangleLabels: points -> boxes, and boxes -> points."""

    boxes: Mapping[ET.Element, ET.Element]
    points: Mapping[ET.Element, ET.Element]


def find(tree: Tree) -> Skeletons:
    """Pair each KeyPointLabels NAME with the RectangleLabels NAME_bbox, else with a RectangleLabels that is skipped."""
    named: dict[tuple[str | None, str], ET.Element] = {}
    skipped: dict[str | None, ET.Element] = {}
    for node in tree.nodes("RectangleLabels"):
        attributes = attributes_of(node)
        if attributes.get("name"):
            named.setdefault((attributes.get("toname"), attributes["name"]), node)
            if is_true(attributes, "model_skip", default=False):
                skipped.setdefault(attributes.get("toname"), node)
    boxes = {}
    for node in tree.nodes("KeyPointLabels"):
        attributes = attributes_of(node)
        to_name = attributes.get("toname")
        holder = named.get((to_name, f"{attributes.get('name')}_bbox"), skipped.get(to_name))
        if holder is not None and not is_true(attributes, "model_skip", default=False):
            boxes[node] = holder
    return Skeletons(boxes, {holder: node for node, holder in boxes.items()})
