"""Polygons, brushes and other outlines mixed in one project, each with labels of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry import brush_rle
from backend.labelstudio import consensus, label_config, regions, tags
from backend.types import ControlTag, Json, LabeledBox, Region
from tests import kinds
from tests.drawings import SIZE

IMAGES = '<Image name="image" value="$image"/><Image name="other" value="$other"/>'
CAT_DOG, DOG_OWL = ("cat", "dog"), ("dog", "owl")


def control(kind: str, name: str, labels: tuple[str, ...], more: str = "", to_name: str = "image") -> str:
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    return f'<{kind} name="{name}" toName="{to_name}" {more}>{inside}</{kind}>'


def config(*controls: str) -> str:
    return f"<View>{IMAGES}{''.join(controls)}</View>"


def parsed(*controls: str) -> dict[str, ControlTag]:
    return {tag.from_name: tag for tag in label_config.parse(config(*controls))}


POLYGONS, BRUSHES = control("PolygonLabels", "p", CAT_DOG), control("BrushLabels", "b", DOG_OWL)
SAME_BRUSHES = control("BrushLabels", "b", CAT_DOG)
RING = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.5, 0.75), (0.25, 0.75))


def of_middle(kind: str, name: str, *labels: str) -> Json:
    """Return a region over the middle of the image, as Label Studio's editor writes it."""
    mask = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    mask[SIZE[1] // 4 : 3 * SIZE[1] // 4, SIZE[0] // 4 : 3 * SIZE[0] // 4] = True
    values: dict[str, Json] = {
        "polygonlabels": {"points": [[100 * x, 100 * y] for x, y in RING], "closed": True},
        "brushlabels": {"format": "rle", "rle": brush_rle.encode_rle(mask)},
        "ellipselabels": {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "rotation": 0},
        "rectanglelabels": {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0},
    }
    tag = ControlTag(kind, name, "image", "image", labels, {})
    return kinds.region(tag, kind, values[kind] | {kind: list(labels)})


# What a tag learns


def test_each_tag_learns_what_the_other_drew_of_the_labels_that_both_have() -> None:
    """Without that, a dog that somebody brushed would be background for the model of the polygons."""
    both = parsed(POLYGONS, BRUSHES)
    result = [of_middle("polygonlabels", "p", "dog"), of_middle("brushlabels", "b", "dog")]
    for tag in both.values():
        boxes = tags.decode(tag, result)
        assert [box.label for box in boxes] == ["dog", "dog"]
        assert sorted(len(box.outline[0]) for box in boxes) == [5, 8]
        for box in boxes:
            assert box.xywh == pytest.approx((0.5, 0.5, 0.5, 0.5), abs=1e-3)
        assert tags.explain(tag, result) == ()


def test_labels_that_one_tag_alone_has_teach_that_tag_alone() -> None:
    both = parsed(POLYGONS, BRUSHES)
    result = [of_middle("polygonlabels", "p", "cat"), of_middle("brushlabels", "b", "owl")]
    assert {name: [box.label for box in tags.decode(tag, result)] for name, tag in both.items()} == {
        "p": ["cat"],
        "b": ["owl"],
    }
    assert [tags.unreadable(tag, result) for tag in both.values()] == [(), ()]


def test_what_cannot_be_learned_of_the_other_tag_costs_the_task_only_where_it_may_be_of_the_tag() -> None:
    both = parsed(POLYGONS, BRUSHES)
    for labels, readers in ((("dog",), {"p", "b"}), (("owl",), {"b"}), ((), {"p", "b"}), (("wolf",), {"p", "b"})):
        damaged = of_middle("brushlabels", "b", *labels)
        damaged["value"]["rle"] = [1]
        assert {name for name, tag in both.items() if tags.unreadable(tag, [damaged])} == readers, labels


def test_the_parts_of_a_polygon_stay_together() -> None:
    brushes = parsed(POLYGONS, BRUSHES)["b"]
    whole, hole = of_middle("polygonlabels", "p", "dog"), of_middle("polygonlabels", "p", "dog")
    hole["value"]["points"] = [[40, 40], [60, 40], [60, 60]]
    (box,) = tags.decode(brushes, [whole, hole | {"parentID": whole["id"]}])
    assert len(box.outline) == 2


def test_a_mask_of_another_size_costs_the_task_for_both_and_a_polygon_does_not() -> None:
    for tag in parsed(POLYGONS, BRUSHES).values():
        half = (SIZE[0] / 2, SIZE[1] / 2)
        (reason,) = tags.unreadable(tag, [of_middle("brushlabels", "b", "dog")], half)
        assert "was drawn on" in reason
        assert tags.unreadable(tag, [of_middle("polygonlabels", "p", "dog")], half) == ()
        assert tags.is_foreign(tag, [of_middle("brushlabels", "b", "dog")], half)


@pytest.mark.parametrize(
    "second",
    [
        control("BrushLabels", "b", DOG_OWL, to_name="other"),
        control("BrushLabels", "b", ("owl",)),
        control("BrushLabels", "b", DOG_OWL, 'model_semantic="true"'),
        control("PolygonLabels", "b", DOG_OWL),  # two tags of one kind ask two questions
        control("RectangleLabels", "b", DOG_OWL),
        f'<View visibleWhen="choice-selected" whenTagName="c">{BRUSHES}</View>',
    ],
)
def test_tags_that_ask_something_else_stay_apart(second: str) -> None:
    choice = '<Choices name="c" toName="image"><Choice value="x"/><Choice value="y"/></Choices>'
    both = parsed(POLYGONS, second, choice)
    assert [(both[name].teachers, both[name].answered_by_others) for name in ("p", "b")] == [((), ())] * 2
    assert label_config.warnings(config(POLYGONS, second, choice)) == ()


@pytest.mark.parametrize("kind", ["BrushLabels", "BitmaskLabels", "VectorLabels", "EllipseLabels"])
def test_all_kinds_of_outlines_and_ellipses_mix_with_polygons(kind: str) -> None:
    other = control(kind, "b", DOG_OWL, 'closable="true"')
    both = parsed(POLYGONS, other)
    (box,) = tags.decode(both["b"], [of_middle("polygonlabels", "p", "dog")])
    assert (box.label, len(box.outline)) == ("dog", 0 if kind == "EllipseLabels" else 1)
    assert box.note == (regions.BOXED if kind == "EllipseLabels" else "")


def test_rectangles_and_ellipses_mix() -> None:
    both = parsed(control("EllipseLabels", "e", DOG_OWL), control("RectangleLabels", "r", CAT_DOG))
    for tag in both.values():
        result = [of_middle("rectanglelabels", "r", "dog"), of_middle("ellipselabels", "e", "dog")]
        boxes = tags.decode(tag, result)
        assert [box.label for box in boxes] == ["dog", "dog"]
    assert {name: tag.answered_by_others for name, tag in both.items()} == {"e": ("dog",), "r": ()}


def test_two_tags_of_pixels_mix() -> None:
    semantic = 'model_semantic="true"'
    both = parsed(control("BitmaskLabels", "m", CAT_DOG, semantic), control("BrushLabels", "b", DOG_OWL, semantic))
    assert [[teacher.from_name for teacher in tag.teachers] for tag in both.values()] == [["b"], ["m"]]


def test_rough_regions_of_a_smart_tag_teach_nothing() -> None:
    """They only point at what the polygons shall hold."""
    smart = control("BrushLabels", "b", CAT_DOG, 'smart="true"')
    assert parsed(POLYGONS, smart)["p"].teachers == ()


def test_a_skipped_tag_has_no_model_and_its_objects_are_no_background() -> None:
    skipped = control("PolygonLabels", "p", CAT_DOG, 'model_skip="true"')
    (brushes,) = parsed(skipped, SAME_BRUSHES).values()
    assert brushes.from_name == "b"
    assert [box.label for box in tags.decode(brushes, [of_middle("polygonlabels", "p", "cat")])] == ["cat"]


def test_people_agree_on_an_object_that_one_outlined_and_another_brushed() -> None:
    both = label_config.parse(config(POLYGONS, SAME_BRUSHES))
    outlined, brushed = of_middle("polygonlabels", "p", "dog"), of_middle("brushlabels", "b", "dog")
    assert consensus.vote(both, [[outlined], [brushed]]) == (brushed,)


def test_the_hash_of_the_config_tells_what_is_learned_together() -> None:
    apart = config(POLYGONS, control("BrushLabels", "b", DOG_OWL, to_name="other"))
    assert label_config.config_hash(config(POLYGONS, BRUSHES)) != label_config.config_hash(apart)


# Who answers


def test_of_two_tags_with_the_same_labels_the_first_has_the_model() -> None:
    text = config(POLYGONS, SAME_BRUSHES)
    (polygons,) = label_config.parse(text)
    assert polygons.from_name == "p"
    result = [of_middle("brushlabels", "b", "cat"), of_middle("polygonlabels", "p", "dog")]
    assert sorted(box.label for box in tags.decode(polygons, result)) == ["cat", "dog"]
    assert label_config.warnings(text) == (
        'BrushLabels "b" has no model of its own: PolygonLabels "p" has the same labels, and learns what BrushLabels '
        '"b" drew. Fix: to be answered as BrushLabels "b" instead, set model_skip="true" on PolygonLabels "p"',
    )
    (brushes,) = label_config.parse(config(SAME_BRUSHES, POLYGONS))
    assert brushes.from_name == "b"


def test_the_first_tag_with_a_label_answers_for_it() -> None:
    """An object that both answered would be there twice, and the annotator would delete one of the two each time."""
    text = config(POLYGONS, BRUSHES)
    both = {tag.from_name: tag for tag in label_config.parse(text)}
    shapes = [LabeledBox(label, (0.5, 0.5, 0.5, 0.5), outline=(RING,)) for label in ("dog", "owl", "cat")]
    shown = {
        name: [region.value[tag.kind] for region in answered(tag, [s for s in shapes if s.label in tag.labels])]
        for name, tag in both.items()
    }
    assert shown == {"p": [["dog"], ["cat"]], "b": [["owl"]]}
    assert label_config.warnings(text) == (
        'BrushLabels "b" gives no answers for dog: PolygonLabels "p" does, and each of the two learns what the other '
        'drew of it. Fix: to be answered as BrushLabels "b" instead, write it before PolygonLabels "p"',
    )


def test_an_ellipse_answers_only_for_what_no_other_tag_has() -> None:
    text = config(control("EllipseLabels", "e", DOG_OWL), POLYGONS)
    both = {tag.from_name: tag for tag in label_config.parse(text)}
    assert {name: tag.answered_by_others for name, tag in both.items()} == {"e": ("dog",), "p": ()}
    (warning,) = label_config.warnings(text)
    assert warning.endswith('Fix: to be answered as EllipseLabels "e" instead, remove dog from PolygonLabels "p"')


def test_a_tag_does_not_give_way_to_one_that_has_no_model() -> None:
    """Q and B are two brushes, so neither learns from the other: B keeps a model although P has its labels."""
    tags_of_model = parsed(control("BrushLabels", "q", CAT_DOG), POLYGONS, control("BrushLabels", "b", ("cat",)))
    assert list(tags_of_model) == ["q", "b"]
    assert [[teacher.from_name for teacher in tag.teachers] for tag in tags_of_model.values()] == [["p"], ["p"]]


def answered(tag: ControlTag, shapes: list[LabeledBox]) -> tuple[Region, ...]:
    return tags.encode(tag, kinds.prediction(tag, shapes), tag.labels, 0.5, "k")


def test_a_smart_tool_is_answered_in_its_own_tag() -> None:
    """Somebody points at one object, so nothing can be there twice; `loop.interactive` asks for such a tag."""
    brushes = parsed(POLYGONS, BRUSHES)["b"]
    dog = [LabeledBox("dog", (0.5, 0.5, 0.5, 0.5), outline=(RING,))]
    assert answered(brushes, dog) == ()
    assert len(answered(replace(brushes, answered_by_others=()), dog)) == 1
