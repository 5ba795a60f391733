"""VectorLabels: closed lines, also with curves, as Label Studio's editor stores them."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, tags
from backend.types import Json
from tests.support import ROOT

CONFIG = (ROOT / "label_config" / "vectorlabels.xml").read_text()
(TAG,) = label_config.parse(CONFIG)

# Drawn in the editor of Label Studio 1.23.2: a curve into its last point and out of it, then closed.
CURVED: list[Json] = [
    {"x": 44.29657794676805, "y": 41.516159695817485, "id": "dN", "prevPointId": "IZ", "isBezier": False},
    {"x": 44.29657794676805, "y": 41.516159695817485, "id": "fw", "prevPointId": "dN", "isBezier": False},
    {"x": 55.70342205323192, "y": 41.516159695817485, "id": "0p", "prevPointId": "fw", "isBezier": False},
    {"x": 44.29657794676805, "y": 58.62642585551331, "id": "jR", "prevPointId": "0p", "isBezier": False},
    {
        **{"x": 44.29657794676806, "y": 41.37357414448669, "id": "IZ", "prevPointId": "jR", "isBezier": True},
        "controlPoint1": {"x": 23.46324461343473, "y": 10.12357414448669},
        "controlPoint2": {"x": 65.1299112801014, "y": 72.6235741444867},
        "disconnected": False,
    },
]
SQUARE = [
    {"id": "c", "prevPointId": "b", "x": 75, "y": 75},
    {"id": "a", "prevPointId": "d", "x": 25, "y": 25},
    {"id": "d", "prevPointId": "c", "x": 25, "y": 75},
    {"id": "b", "prevPointId": "a", "x": 75, "y": 25},
]


def region(vertices: object, *, closed: object = True) -> Json:
    value = {"vertices": vertices, "closed": closed, "vectorlabels": ["Leaf"]}
    size = {"original_width": 96, "original_height": 64}
    return {"id": "r1", "from_name": "label", "to_name": "image", "type": "vectorlabels", "value": value, **size}


def test_a_curve_bulges_as_the_editor_draws_it() -> None:
    (box,) = tags.decode(TAG, [region(CURVED)])
    ring = 100 * np.array(box.outline[0])
    # Read from a screenshot of the editor, to half a percent.
    np.testing.assert_allclose(ring.min(axis=0), (34.8, 29.8), atol=0.6)
    np.testing.assert_allclose(ring.max(axis=0), (55.7, 58.6), atol=0.1)


def test_the_points_are_joined_in_the_order_of_the_line_not_of_the_list() -> None:
    (box,) = tags.decode(TAG, [region(SQUARE)])
    assert box.outline == (((0.75, 0.75), (0.25, 0.75), (0.25, 0.25), (0.75, 0.25)),)
    assert box.xywh == (0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "vertices",
    [
        [{**vertex, "prevPointId": None} for vertex in sorted(SQUARE, key=lambda vertex: str(vertex["id"]))],
        [{**vertex, "prevPointId": None} if vertex["id"] == "a" else vertex for vertex in SQUARE],
    ],
    ids=["no predecessors", "the first has none"],
)
def test_other_programs_may_name_fewer_predecessors(vertices: list[Json]) -> None:
    (box,) = tags.decode(TAG, [region(vertices)])
    assert box.xywh == (0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(SQUARE, closed=False), "is a line that is not closed"),
        (region(SQUARE, closed="yes"), "is a line that is not closed"),
        (region([{**vertex, "prevPointId": "a"} for vertex in SQUARE]), "has branches"),
        (region([{**vertex, "id": "a"} for vertex in SQUARE]), "has branches"),
        (region([{**SQUARE[0], "x": None}, *SQUARE[1:]]), "without usable numbers"),
        (region([{**SQUARE[0], "isBezier": True, "controlPoint1": {"x": "a", "y": 1}}, *SQUARE[1:]]), "usable numbers"),
        (region([{**SQUARE[0], "isBezier": True, "controlPoint1": [1, 2]}, *SQUARE[1:]]), "usable numbers"),
        (region([1, 2, 3]), "without usable numbers"),
        (region(SQUARE[:1]), "has fewer than 2 points"),
        (region(None), "has fewer than 2 points"),
        (region([{**SQUARE[0], "prevPointId": "a"}, {**SQUARE[1], "prevPointId": "c"}]), "has no area"),
    ],
)
def test_what_is_left_out_is_explained(item: Json, reason: str) -> None:
    assert tags.decode(TAG, [item]) == ()
    (explained,) = tags.explain(TAG, [item])
    assert reason in explained


@pytest.mark.parametrize("text", [CONFIG, (ROOT / "label_config" / "vector.xml").read_text()])
def test_a_tag_that_cannot_close_its_lines_is_left_alone(text: str) -> None:
    open_lines = text.replace(' closable="true"', "")
    with pytest.raises(LabelConfigError, match="leaves lines open, and the model learns closed ones") as caught:
        label_config.parse(open_lines)
    assert caught.value.fix.startswith('write closable="true" into it')
    boxes = '<RectangleLabels name="box" toName="image"><Label value="x"/></RectangleLabels></View>'
    (tag,) = label_config.parse(open_lines.replace("</View>", boxes))
    assert tag.from_name == "box"
    assert "this control tag is left alone: Vector" in label_config.warnings(open_lines.replace("</View>", boxes))[0]
