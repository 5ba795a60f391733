"""Which RectangleLabels of a label config holds the boxes of which KeyPointLabels, or of which KeyPoint with Labels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from backend.labelstudio.label_xml import Tree, attributes_of, is_smart, is_true


@dataclass(frozen=True, slots=True)
class Skeletons:
    """The pairs of a tag of points and its RectangleLabels: points -> boxes, and boxes -> points."""

    boxes: Mapping[ET.Element, ET.Element]
    points: Mapping[ET.Element, ET.Element]


def find(tree: Tree) -> Skeletons:
    """Pair each tag of points NAME with the RectangleLabels NAME_bbox, else with a RectangleLabels that is skipped.

    Points that say smart="true" are prompts, and need the name NAME_bbox to be a skeleton.
    """
    named: dict[tuple[str | None, str], ET.Element] = {}
    skipped: dict[str | None, ET.Element] = {}
    for node in tree.nodes("RectangleLabels"):
        attributes = attributes_of(node)
        if attributes.get("name"):
            named.setdefault((attributes.get("toname"), attributes["name"]), node)
            if is_true(attributes, "model_skip", default=False):
                skipped.setdefault(attributes.get("toname"), node)
    boxes = {}
    named_by = {attributes_of(node).get("toname") for node in tree.nodes("Labels")}
    split = (node for node in tree.nodes("KeyPoint") if attributes_of(node).get("toname") in named_by)
    for node in (*tree.nodes("KeyPointLabels"), *split):
        attributes = attributes_of(node)
        to_name = attributes.get("toname")
        fallback = None if is_smart(attributes) else skipped.get(to_name)
        holder = named.get((to_name, f"{attributes.get('name')}_bbox"), fallback)
        if holder is not None and not is_true(attributes, "model_skip", default=False):
            boxes[node] = holder
    return Skeletons(boxes, {holder: node for node, holder in boxes.items()})
