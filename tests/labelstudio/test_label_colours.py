"""The colours of labels."""

from __future__ import annotations

import re

import pytest

from backend.labelstudio import label_config
from backend.labelstudio.label_colours import PALETTE, colours
from tests.support import ROOT

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat" background="#12abEF"/><Label value="dog"/><Label value="owl" background="url(//evil)"/>'
    "</RectangleLabels></View>"
)


def test_the_config_decides_and_a_palette_fills_the_gaps() -> None:
    (tag,) = label_config.parse(CONFIG)
    assert colours(CONFIG, tag) == {"cat": "#12abEF", "dog": PALETTE[1], "owl": PALETTE[2]}


def test_labels_beside_a_shape_tag_have_their_colours_too() -> None:
    text = (ROOT / "label_config" / "rectangle.xml").read_text()
    (tag,) = label_config.parse(text)
    assert colours(text, tag) == {"Vehicle": "#1f77b4", "Person": "#d62728"}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("keypointlabels.xml", {"Fish": "#1f77b4", "Head": "#d62728", "Tail": "#2ca02c"}),
        ("keypointlabels-alone.xml", {"object": PALETTE[0], "Head": "#d62728", "Tail": "#2ca02c"}),
        ("keypoint.xml", {"object": PALETTE[0], "Head": "#d62728", "Tail": "#2ca02c"}),
    ],
)
def test_boxes_and_points_of_a_skeleton_have_the_colours_of_their_labels(config: str, wanted: dict[str, str]) -> None:
    text = (ROOT / "label_config" / config).read_text()
    (tag,) = label_config.parse(text)
    assert colours(text, tag) == wanted
    plain = re.sub(r' background="[^"]*"', "", text)
    assert colours(plain, tag) == dict(zip(wanted, PALETTE, strict=False))


def test_a_label_has_its_colour_under_its_alias_too() -> None:
    text = CONFIG.replace('value="cat"', 'value="A cat" alias="cat"')
    (tag,) = label_config.parse(text)
    assert colours(text, tag)["cat"] == "#12abEF"
