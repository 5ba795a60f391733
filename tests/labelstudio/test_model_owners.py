"""Several tools for the same objects: one model learns what all of them drew."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import LabelConfigError
from backend.geometry import brush_rle
from backend.labelstudio import label_config, regions, tags
from backend.labelstudio.tags import ellipselabels
from backend.types import ControlTag, Json, LabeledBox
from tests import kinds
from tests.drawings import SIZE

IMAGE = '<Image name="image" value="$image"/>'
NAMES = '<Label value="cat"/><Label value="dog"/>'
LABELS = f'<Labels name="names" toName="image">{NAMES}</Labels>'
TOOLS = ("Rectangle", "Polygon", "Ellipse", "Brush")


def config(*controls: str) -> str:
    return f"<View>{IMAGE}{''.join(controls)}</View>"


def tools(*names: str, **attributes: str) -> str:
    more = {name: attributes.get(name, "") for name in names}
    return "".join(f'<{name} name="{name.lower()}" toName="image" {more[name]}/>' for name in names)


def test_the_first_of_several_tools_has_the_model_and_the_others_are_told() -> None:
    text = config(LABELS, tools("Polygon", "Rectangle", "Brush"))
    (tag,) = label_config.parse(text)
    assert (tag.from_name, tag.task, tag.labels) == ("polygon", "segment", ("cat", "dog"))
    first, second = label_config.warnings(text)
    assert first == (
        'Rectangle "rectangle" has no model of its own: Polygon "polygon" has the same labels, and learns what '
        'Rectangle "rectangle" drew. Fix: to be answered as Rectangle "rectangle" instead, set model_skip="true" on '
        'Polygon "polygon"'
    )
    assert second.startswith('Brush "brush" has no model of its own: Polygon "polygon" ')


def test_a_skipped_tool_leaves_the_model_to_the_next_one() -> None:
    (tag,) = label_config.parse(config(LABELS, tools("Rectangle", "Polygon", Rectangle='model_skip="true"')))
    assert tag.from_name == "polygon"


def test_tools_of_another_image_and_tags_with_labels_of_their_own_have_their_models() -> None:
    second = '<Image name="b" value="$b"/><Labels name="l2" toName="b"><Label value="x"/></Labels>'
    rest = f'<Rectangle name="r2" toName="b"/><RectangleLabels name="own" toName="image">{NAMES}</RectangleLabels>'
    parsed = label_config.parse(config(LABELS, tools("Rectangle"), second, rest))
    assert [(tag.from_name, tag.labels) for tag in parsed] == [
        ("rectangle", ("cat", "dog")),
        ("r2", ("x",)),
        ("own", ("cat", "dog")),
    ]


@pytest.mark.parametrize(
    ("labels", "owning"), [(NAMES, ["boxes"]), ('<Label value="cat"/>', ["boxes"]), ('<Label value="owl"/>', None)]
)
def test_ellipses_have_a_model_if_no_other_tag_has_all_their_labels(labels: str, owning: list[str] | None) -> None:
    round_ones = f'<EllipseLabels name="round" toName="image">{labels}</EllipseLabels>'
    text = config(round_ones, f'<RectangleLabels name="boxes" toName="image">{NAMES}</RectangleLabels>')
    assert [tag.from_name for tag in label_config.parse(text)] == (owning or ["round", "boxes"])
    assert len(label_config.warnings(text)) == (owning is not None)


def test_points_whose_labels_also_name_objects_have_no_model() -> None:
    for shapes in (("KeyPoint", "Rectangle"), ("Rectangle", "KeyPoint")):
        text = config(LABELS, tools(*shapes))
        (tag,) = label_config.parse(text)
        assert tag.from_name == "rectangle"
        assert label_config.warnings(text) == (
            'KeyPoint "keypoint" has no model of its own: its points have the labels of the objects of Rectangle '
            '"rectangle". Fix: give the points labels of their own in a KeyPointLabels, or set model_skip="true" on '
            'Rectangle "rectangle"',
        )
    (points,) = label_config.parse(config(LABELS, tools("KeyPoint")))
    assert (points.task, points.points, points.parent) == ("pose", ("cat", "dog"), "")


def test_the_first_of_several_labels_names_the_shapes() -> None:
    states = '<Labels name="states" toName="image"><Label value="old"/></Labels>'
    text = config(LABELS, states, tools("Rectangle"))
    (tag,) = label_config.parse(text)
    assert (tag.labels_from, tag.labels) == ("names", ("cat", "dog"))
    assert label_config.warnings(text) == (
        'Labels "states" is left alone: Labels "names" names what Rectangle "rectangle" draws. Fix: to learn the '
        'labels of Labels "states" instead, set model_skip="true" on Labels "names"',
    )
    shape, labels = drawn("Rectangle")
    state = labels | {"from_name": "states", "value": SHAPES["Rectangle"] | {"labels": ["old"]}}
    assert [box.label for box in tags.decode(tag, [shape, state, labels])] == ["cat"]
    assert tags.explain(tag, [shape, state, labels]) == ()
    (tag,) = label_config.parse(text.replace('name="names"', 'name="names" model_skip="true"'))
    assert tag.labels == ("old",)


def test_shapes_without_labels_are_objects_of_one_class() -> None:
    text = config(tools("Rectangle", "Polygon", Rectangle='predicted_values="person, dog"'))
    (tag,) = label_config.parse(text)
    assert (tag.from_name, tag.labels, tag.labels_from) == ("rectangle", ("object",), "")
    assert regions.class_labels(tag, ["person", "cat", "DOG"]) == ["object", None, "object"]
    (warning,) = label_config.warnings(text)
    assert warning.startswith(
        'Polygon "polygon" has no model of its own: Rectangle "rectangle" has no labels either, and '
    )
    shapes = [drawn(tool, name=tool)[0] for tool in ("Rectangle", "Polygon")]
    assert [box.label for box in tags.decode(tag, shapes)] == ["object"] * 2
    assert tags.explain(tag, shapes) == ()


def test_an_answer_without_labels_is_one_entry() -> None:
    (tag,) = label_config.parse(config(tools("Rectangle")))
    shape = LabeledBox("object", (0.5, 0.5, 0.5, 0.5))
    (region,) = tags.encode(tag, kinds.prediction(tag, [shape]), tag.labels, 0.5, "k")
    assert (region.kind, region.from_name, dict(region.value)) == ("rectangle", "rectangle", SHAPES["Rectangle"])
    kinds.assert_same(tags.decode(tag, [region.as_json()]), [shape])


def test_shapes_without_labels_teach_no_tag_that_has_labels() -> None:
    boxes = f'<RectangleLabels name="boxes" toName="image">{NAMES}</RectangleLabels>'
    named, unnamed = label_config.parse(config(boxes, tools("Rectangle")))
    assert (named.from_name, unnamed.from_name) == ("boxes", "rectangle")
    assert tags.decode(named, [drawn("Rectangle")[0]]) == ()


def test_points_without_labels_are_refused() -> None:
    with pytest.raises(LabelConfigError, match='KeyPoint "keypoint" has no Labels tags of the same toName beside it'):
        label_config.parse(config(tools("KeyPoint")))


def test_a_magic_wand_helps_others_and_has_no_model() -> None:
    """Label Studio 1.23.2 drops predictions with the type "magicwand" in the split form."""
    brush = f'<BrushLabels name="brush" toName="image">{NAMES}</BrushLabels>'
    for text in (config(brush, tools("MagicWand")), config(LABELS, tools("MagicWand", "Brush"))):
        assert [tag.from_name for tag in label_config.parse(text)] == ["brush"]
        assert label_config.warnings(text) == ()
    with pytest.raises(LabelConfigError, match='MagicWand "magicwand" gets no answers') as caught:
        label_config.parse(config(LABELS, tools("MagicWand")))
    assert caught.value.fix.startswith('write a Brush tag with name="mask" and toName="image" beside it')


# What a tool learns of the others

SHAPES: dict[str, Json] = {
    "Rectangle": {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0},
    "Polygon": {"points": [[25, 25], [75, 25], [75, 75], [50, 75], [25, 75]], "closed": True},
    "Ellipse": {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "rotation": 0},
}


def drawn(tool: str, label: str = "cat", name: str = "r1") -> list[Json]:
    """Return the two entries of a region over the middle of the image."""
    size = {"original_width": SIZE[0], "original_height": SIZE[1]}
    entry = {"id": name, "to_name": "image", "from_name": tool.lower(), "type": tool.lower(), "value": SHAPES[tool]}
    labels = {"from_name": "names", "type": "labels", "value": SHAPES[tool] | {"labels": [label]}}
    return [entry | size, entry | size | labels]


def control(tool: str, attributes: str = "") -> ControlTag:
    others = tools(*(name for name in TOOLS if name != tool))
    return label_config.parse(config(LABELS, tools(tool, **{tool: attributes}), others))[0]


@pytest.mark.parametrize("tool", SHAPES)
def test_a_tag_of_boxes_learns_the_box_around_each_shape(tool: str) -> None:
    (box,) = tags.decode(control("Rectangle"), drawn(tool))
    assert (box.label, box.outline) == ("cat", ())
    assert box.xywh == pytest.approx((0.5, 0.5, 0.5, 0.5), abs=1e-3)
    notes = {"Rectangle": "", "Polygon": regions.BOXED, "Ellipse": ellipselabels.BOXED}
    assert box.note == notes[tool]


@pytest.mark.parametrize("tool", SHAPES)
def test_a_tag_of_rotated_boxes_learns_four_corners(tool: str) -> None:
    (box,) = tags.decode(control("Rectangle", 'model_obb="true"'), drawn(tool))
    np.testing.assert_allclose(box.outline, [[(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]], atol=1e-9)


@pytest.mark.parametrize("tool", SHAPES)
@pytest.mark.parametrize("of_tag", ["Polygon", "Brush"])
def test_a_tag_of_outlines_learns_an_outline(of_tag: str, tool: str) -> None:
    (box,) = tags.decode(control(of_tag), drawn(tool))
    (ring,) = box.outline
    assert len(ring) == {"Rectangle": 4, "Polygon": 5, "Ellipse": 64}[tool]
    assert box.xywh == pytest.approx((0.5, 0.5, 0.5, 0.5), abs=1e-3)


def test_the_shapes_of_all_tools_are_learned_together_and_nothing_is_learned_twice() -> None:
    result = [entry for tool in SHAPES for entry in drawn(tool, "dog", tool)]
    assert [box.label for box in tags.decode(control("Rectangle"), result)] == ["dog"] * 3


def test_a_shape_without_a_label_and_a_label_without_a_shape_are_told() -> None:
    tag = control("Rectangle")
    for tool in SHAPES:
        shape, labels = drawn(tool)
        assert tags.unreadable(tag, [shape]) == ("region r1 has no label",)
        assert tags.unreadable(tag, [labels]) == ("region 'r1' has labels and no shape: delete it, and draw it again",)


def test_a_brush_learns_what_a_magic_wand_selects() -> None:
    """The entries are as the editor of Label Studio 1.23.2 writes them."""
    (tag,) = label_config.parse(config(LABELS, tools("Brush", "MagicWand")))
    mask = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    mask[8:24, 10:40] = True
    (shape, labels) = drawn("Rectangle")
    value = {"format": "rle", "rle": brush_rle.encode_rle(mask)}
    wand = shape | {"type": "magicwand", "from_name": "magicwand", "value": value}
    (box,) = tags.decode(tag, [wand, labels | {"value": value | {"labels": ["dog"]}}])
    assert box.label == "dog"
    assert box.xywh == pytest.approx((25 / SIZE[0], 16 / SIZE[1], 30 / SIZE[0], 16 / SIZE[1]))


def test_an_import_may_hold_any_type() -> None:
    shape, labels = drawn("Rectangle")
    reasons = tags.unreadable(control("Rectangle"), [shape | {"type": ["rectangle"]}, labels])
    assert any("has labels and no shape" in reason for reason in reasons)


def test_shapes_that_another_labels_names_are_left_alone() -> None:
    shape, labels = drawn("Polygon")
    assert tags.read(control("Rectangle"), [shape, labels | {"from_name": "others"}]).boxes == ()
