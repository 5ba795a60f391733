"""Which tag of a label config holds the labels of a control tag: the tag itself, or a Labels beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from backend.errors import LabelConfigError
from backend.labelstudio import tags
from backend.labelstudio.label_xml import WHERE, Tree, attributes_of, is_true, skip, spell


def find(element: ET.Element, tree: Tree, tag: tags.Tag) -> ET.Element | None:
    """Return the tag that contains a control tag's labels, None for shapes on an image that no tag names.

    Of several Labels of one image, the first names what the shapes show. In a video, a region has the labels of all
    of them in one list, so only one Labels is possible. Raises LabelConfigError where a name is needed.
    """
    if not tag.labels_beside:
        return element
    beside = _beside(element, tree, tag)
    if not beside and tag.unnamed:
        return None
    if not beside or (len(beside) > 1 and tag.object_name == "Video"):
        to_name, inner = attributes_of(element).get("toname", ""), tag.labels_beside
        raise LabelConfigError(
            f"{spell(element)} has {len(beside) or 'no'} {inner} tags of the same toName beside it",
            where=WHERE,
            fix=f'write one {inner} tag with a name, toName="{to_name:.80}" and Label tags inside it, {skip(element)}',
        )
    return beside[0]


def warnings(element: ET.Element, tree: Tree, tag: tags.Tag) -> list[str]:
    """Return a warning for each Labels beside a control tag that does not name its shapes."""
    if not tag.labels_beside:
        return []
    beside = _beside(element, tree, tag)
    first, others = next(iter(beside), element), beside[1:]
    return [
        f"{spell(other)} is left alone: {spell(first)} names what {spell(element)} draws. "
        f'Fix: to learn the labels of {spell(other)} instead, set model_skip="true" on {spell(first)}'
        for other in others
    ]


def _beside(element: ET.Element, tree: Tree, tag: tags.Tag) -> list[ET.Element]:
    to_name = attributes_of(element).get("toname", "")
    every = ((node, attributes_of(node)) for node in tree.nodes(tag.labels_beside))
    return [
        node
        for node, attributes in every
        if attributes.get("name") and attributes.get("toname", "") == to_name
        if not is_true(attributes, "model_skip", default=False)
    ]
