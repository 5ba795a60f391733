"""The colours of labels."""

from __future__ import annotations

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
