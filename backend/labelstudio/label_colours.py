"""The colours of labels: those of the label config, so that a class has one colour in Label Studio and on the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from backend.errors import LabelConfigError
from backend.labelstudio import label_xml
from backend.types import ControlTag

# Okabe and Ito's colours, which people with a colour vision deficiency can tell apart, and four darker ones.
PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#8b5e3c", "#6a3d9a", "#b2182b", "#1b7837"),
)
_COLOUR = re.compile(r"#[0-9a-f]{3}(?:[0-9a-f]{3})?|[a-z]{3,20}", re.IGNORECASE | re.ASCII)


def colours(label_config: str, tag: ControlTag) -> Mapping[str, str]:
    """Return label -> CSS colour for a control tag: the config's `background`, else a colour of PALETTE.

    The points of a skeleton are labels too. A background that is neither a name nor #rgb or #rrggbb is ignored, because
    it would end up in a style sheet.
    """
    written = _backgrounds(label_config, (tag.parent, tag.label_holder))
    labels = dict.fromkeys((*tag.labels, *tag.points))
    return {label: written.get(label, PALETTE[place % len(PALETTE)]) for place, label in enumerate(labels)}


def _backgrounds(label_config: str, names: Sequence[str]) -> dict[str, str]:
    """Return label -> background of the controls with these names; the first control that writes one decides."""
    try:
        tree = label_xml.read(label_config)
    except LabelConfigError:
        return {}
    written: dict[str, str] = {}
    for name in filter(None, names):
        controls = (element for element in tree.root.iter() if label_xml.attributes_of(element).get("name") == name)
        for attributes in (label_xml.attributes_of(node) for control in controls for node in control.iter()):
            label = attributes.get("alias") or attributes.get("value", "")
            if _COLOUR.fullmatch(attributes.get("background", "")):
                written.setdefault(label, attributes["background"])
    return written
