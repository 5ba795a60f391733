"""Questions about each box: which have a model, what is learned of their answers, and how answers become regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.labelstudio import consensus, label_config, region_choices, tags
from backend.types import AnnotatedTask, ControlTag, Json, LabeledBox, Prediction, Region, Task

BOXES = '<RectangleLabels name="label" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels>'
SECOND = BOXES.replace('"label"', '"second"')
LABELS = ("old", "young")


def config(attributes: str = "", beside: str = BOXES, kind: str = "Choices", image: str = 'value="$image"') -> str:
    choices = "".join(f'<Choice value="{label}"/>' for label in LABELS)
    question = f'<{kind} name="age" toName="image" perRegion="true" {attributes}>{choices}</{kind}>'
    return f'<View><Image name="image" {image}/>{beside}{question}</View>'


def asked(attributes: str = "", **parts: str) -> ControlTag:
    """Return the tag of the question in a marked label config."""
    *_, tag = label_config.parse(region_choices.marked(config(attributes, **parts)))
    return tag


def box(name: str, label: str, x: float, rotation: float = 0.0, from_name: str = "label") -> Json:
    """Return a box of 20 x 20 percent as Label Studio's editor stores it."""
    value = {"x": x, "y": 10.0, "width": 20.0, "height": 20.0, "rotation": rotation, "rectanglelabels": [label]}
    return item(name, "rectanglelabels", from_name, value)


def answer(name: str, *chosen: str, x: float = 10.0) -> Json:
    value = {"x": x, "y": 10.0, "width": 20.0, "height": 20.0, "rotation": 0.0, "choices": list(chosen)}
    return item(name, "choices", "age", value)


def item(name: str, kind: str, from_name: str, value: Json) -> Json:
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {"id": name, "type": kind, "from_name": from_name, "to_name": "image", "value": value, **size}


# The label config


def test_without_the_mark_a_question_about_regions_is_left_alone() -> None:
    """REGION_CHOICES is off by default, and then nothing is different from before."""
    parsed = label_config.checked(config())
    assert [tag.kind for tag in parsed.tags] == ["rectanglelabels"]
    assert "models answer about the whole image" in parsed.warnings[0]


def test_a_marked_question_has_a_model_for_the_boxes_of_its_image() -> None:
    parsed = label_config.checked(region_choices.marked(config()))
    assert [(tag.from_name, tag.task, tag.regions_of, tag.ranks) for tag in parsed.tags] == [
        ("label", "detect", "", True),
        ("age", "classify", "label", False),
    ]
    assert parsed.warnings == ()


def test_questions_of_several_answers_and_taxonomies_are_asked_too() -> None:
    assert asked('choice="multiple"').multiple
    assert asked(kind="Taxonomy").kind == "taxonomy"


def test_a_config_without_such_questions_keeps_its_text() -> None:
    text = config().replace('perRegion="true"', "")
    assert region_choices.marked(text) == text
    assert region_choices.marked("<View") == "<View"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (config(beside=BOXES.replace("<Rect", '<Brush name="b" toName="image"><Label value="x"/></Brush><Rect')), ""),
        (config(beside=BOXES.replace("RectangleLabels", "PolygonLabels")), "no RectangleLabels of upright boxes"),
        (config(beside=BOXES.replace("toName", 'model_obb="true" toName')), "no RectangleLabels of upright boxes"),
        (config(image='valueList="$pages"'), "regions of one image, not of pages"),
        (config('visibleWhen="region-selected" whenTagName="other"'), "no RectangleLabels of upright boxes"),
    ],
)
def test_a_question_without_boxes_is_left_alone(text: str, why: str) -> None:
    parsed = label_config.checked(region_choices.marked(text))
    assert any(tag.regions_of for tag in parsed.tags) is not bool(why)
    assert any(why in warning for warning in parsed.warnings) or not why


def test_boxes_that_are_parts_of_skeletons_have_no_answers() -> None:
    """Their model is that of the points, which gives the boxes ids of its own."""
    points = '<KeyPointLabels name="points" toName="image"><Label value="nose"/></KeyPointLabels>'
    text = config(beside=BOXES.replace('"label"', '"points_bbox"') + points)
    parsed = label_config.checked(region_choices.marked(text))
    assert [tag.task for tag in parsed.tags] == ["pose"]
    assert any("have no model of their own" in warning for warning in parsed.warnings)


def test_a_condition_chooses_among_several_tags_of_boxes() -> None:
    assert asked(beside=BOXES + SECOND).regions_of == "label"
    chosen = asked('visibleWhen="region-selected" whenTagName="second"', beside=BOXES + SECOND)
    assert chosen.regions_of == "second"


def test_the_boxes_count_for_the_hash_of_a_config() -> None:
    """A version that learned from other boxes is of another config."""
    first, second = (
        label_config.config_hash(region_choices.marked(config(condition, beside=BOXES + SECOND)))
        for condition in ("", 'visibleWhen="region-selected" whenTagName="second"')
    )
    assert first != second


# What is learned


def test_an_answer_teaches_the_box_of_its_id() -> None:
    result = [box("a", "cat", 10.0), answer("a", "old"), box("b", "dog", 50.0), answer("b", "young", x=50.0)]
    reading = tags.read(asked(), result, (200, 100))
    assert reading.boxes == (LabeledBox("old", (0.2, 0.2, 0.2, 0.2)), LabeledBox("young", (0.6, 0.2, 0.2, 0.2)))
    assert (reading.nothing, reading.unreadable) == ((), ())


def test_a_box_without_an_answer_and_an_answer_without_a_box_teach_nothing() -> None:
    other = box("c", "cat", 10.0, from_name="second")
    result = [box("a", "cat", 10.0), other, answer("b", "old"), answer("c", "old")]
    assert tags.read(asked(beside=BOXES + SECOND), result) == tags.Reading((), (), ())


def test_two_answers_to_a_single_choice_cost_the_task() -> None:
    reading = tags.read(asked(), [box("a", "cat", 10.0), answer("a", "old", "young")])
    assert reading.boxes == ()
    assert "region a has 2 answers, 'old', 'young'" in reading.unreadable[0]
    assert len(tags.read(asked('choice="multiple"'), [box("a", "cat", 10.0), answer("a", *LABELS)]).boxes) == 2


def test_an_unknown_answer_costs_the_task() -> None:
    reading = tags.read(asked(), [box("a", "cat", 10.0), answer("a", "ancient")])
    assert "has the label 'ancient', which is not in the label config" in reading.unreadable[0]


def test_a_turned_box_is_learned_as_the_upright_box_around_it() -> None:
    (learned,) = tags.read(asked(), [box("a", "cat", 50.0, rotation=90.0), answer("a", "old")]).boxes
    assert learned.xywh == pytest.approx((0.45, 0.3, 0.1, 0.4))
    assert learned.note == ""


def test_a_box_that_was_drawn_on_another_image_costs_the_task() -> None:
    reading = tags.read(asked(), [box("a", "cat", 10.0), answer("a", "old")], (100, 100))
    assert "was drawn on 200 x 100 pixels" in reading.unreadable[0]


@pytest.mark.parametrize("attributes", ['whenLabelValue="dog"', 'visibleWhen="region-selected" whenLabelValue="dog"'])
def test_only_boxes_that_the_question_is_about_are_learned(attributes: str) -> None:
    result = [box("a", "cat", 10.0), answer("a", "old"), box("b", "dog", 50.0), answer("b", "young", x=50.0)]
    assert [learned.label for learned in tags.read(asked(attributes), result).boxes] == ["young"]


def test_a_vote_on_boxes_keeps_their_answers() -> None:
    parsed = label_config.parse(region_choices.marked(config()))
    answers = {"a": "old", "b": "young", "c": "old"}
    people = [[box(name, "cat", 10.0), answer(name, chosen)] for name, chosen in answers.items()]
    task = AnnotatedTask(Task(1, {}), 1, "", tuple(people[-1]), others=tuple(map(tuple, people[:-1])))
    result = consensus.voted(parsed, task).result
    assert [learned.label for learned in tags.read(parsed[1], result).boxes] == ["old"]
    assert len(tags.read(parsed[0], result).boxes) == 1


# Predictions


def predicted(*probs: tuple[float, float]) -> Prediction:
    """Return boxes of 20 x 20 percent from left to right, with the probabilities of old and young."""
    corners = [(40 * row + 20, 10, 40 * row + 60, 30) for row in range(len(probs))]
    table = np.array(probs, dtype=np.float32).reshape(-1, 2)
    return Prediction(
        width=200,
        height=100,
        boxes=np.array(corners, dtype=np.float32).reshape(-1, 4),
        class_probs=table,
        confidence=table.max(axis=1, initial=0.0),
    )


def boxes_of(*labels: str) -> tuple[Region, ...]:
    """Return predicted boxes with these labels as regions, at the places of `predicted`."""
    tag = label_config.parse(config())[0]
    probs = np.array([[label == "cat", label == "dog"] for label in labels], dtype=np.float32)
    found = replace(predicted(*[(0.9, 0.1)] * len(labels)), class_probs=probs)
    return tags.encode(tag, found, ("cat", "dog"), 0.5, "1")


def test_an_answer_has_the_id_and_the_value_of_its_box() -> None:
    """As Label Studio's editor stores it; tests/browser/test_editor.py shows that."""
    boxes = boxes_of("cat", "dog")
    sent = tuple(region_choices.encode(asked(), boxes, predicted((0.9, 0.1), (0.2, 0.8)), LABELS, 0.5))
    assert [region.id for region in sent] == [box.id for box in boxes]
    square = {"y": 10.0, "width": 20.0, "height": 20.0, "rotation": 0}
    assert [region.value for region in sent] == [
        {"x": 10.0, **square, "rectanglelabels": ["cat"], "choices": ["old"]},
        {"x": 30.0, **square, "rectanglelabels": ["dog"], "choices": ["young"]},
    ]
    assert [(region.kind, region.from_name, region.to_name) for region in sent] == [("choices", "age", "image")] * 2
    assert [region.score for region in sent] == pytest.approx([0.9, 0.8])


def test_what_is_sent_is_read_back() -> None:
    boxes, tag = boxes_of("cat", "dog"), asked()
    sent = region_choices.encode(tag, boxes, predicted((0.9, 0.1), (0.2, 0.8)), LABELS, 0.5)
    result = [region.as_json() for region in (*boxes, *sent)]
    first, second = tags.read(tag, result, (200, 100)).boxes
    assert (first.label, second.label) == ("old", "young")
    assert first.xywh == pytest.approx((0.2, 0.2, 0.2, 0.2))
    assert second.xywh == pytest.approx((0.4, 0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("attributes", "answered"),
    [("", 2), ('whenLabelValue="cat"', 1), ('whenLabelValue="cat,dog"', 2), ('model_score_threshold="0.7"', 1)],
)
def test_only_boxes_that_are_asked_about_have_an_answer(attributes: str, answered: int) -> None:
    sent = region_choices.encode(
        asked(attributes), boxes_of("cat", "dog"), predicted((0.9, 0.1), (0.4, 0.6)), LABELS, 0.5
    )
    assert len(list(sent)) == answered


def test_a_box_that_the_classifier_did_not_see_has_no_answer() -> None:
    sent = region_choices.encode(asked(), boxes_of("cat", "dog"), predicted((0.9, 0.1)), LABELS, 0.5)
    assert len(list(sent)) == 1
    assert not list(region_choices.encode(asked(), boxes_of("cat"), predicted(), LABELS, 0.5))


def test_several_answers_and_paths_are_spelled_as_those_about_images() -> None:
    boxes = boxes_of("cat")
    several = region_choices.encode(asked('choice="multiple"'), boxes, predicted((0.6, 0.9)), LABELS, 0.5)
    assert [region.value["choices"] for region in several] == [["young", "old"]]
    paths = region_choices.encode(asked(kind="Taxonomy"), boxes, predicted((0.1, 0.9)), LABELS, 0.5)
    assert [region.value["taxonomy"] for region in paths] == [[["young"]]]
