"""The colours of labels."""

from __future__ import annotations

from backend.labelstudio import label_config
from backend.labelstudio.label_colours import PALETTE, colours

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat" background="#12abEF"/><Label value="dog"/><Label value="owl" background="url(//evil)"/>'
    "</RectangleLabels></View>"
)


def test_the_config_decides_and_a_palette_fills_the_gaps() -> None:
    (tag,) = label_config.parse(CONFIG)
    assert colours(CONFIG, tag) == {"cat": "#12abEF", "dog": PALETTE[1], "owl": PALETTE[2]}
