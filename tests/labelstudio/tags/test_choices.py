"""Choices and Taxonomy: their label configs, encoding and decoding."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, tags
from backend.types import WHOLE, ControlTag, LabeledBox, Prediction

LABELS = ("red", "blue", "a/b: c")  # no folder can have this name
TAG = ControlTag(
    kind="choices",
    from_name="choice",
    to_name="image",
    data_key="image",
    labels=LABELS,
    class_to_label={name: name for name in LABELS},
    task="classify",
)
MANY = dataclasses.replace(TAG, multiple=True)
TREE = dataclasses.replace(MANY, kind="taxonomy", labels=("A", "A > B", "A > B > C"), class_to_label={"cat": "A > B"})


def result(chosen: Any, kind: str = "choices", **item: Any) -> dict[str, Any]:
    base = {"id": "r1", "type": kind, "from_name": "choice", "to_name": "image", "value": {kind: chosen}}
    return base | item


def prediction(*probs: float, n: int = 1) -> Prediction:
    return Prediction(
        width=40,
        height=30,
        boxes=np.tile(np.array([0, 0, 40, 30], np.float32), (n, 1)),
        class_probs=np.tile(np.array(probs, np.float32), (n, 1)),
        confidence=np.full(n, max(probs), np.float32),
        embedding=np.zeros(2, np.float32),
    )


# Configs


def config(inside: str, control: str = "Choices", attributes: str = "", beside: str = "") -> str:
    return (
        f'<View><Image name="image" value="$image"/><{control} name="choice" toName="image" {attributes}>{inside}'
        f"</{control}>{beside}</View>"
    )


@pytest.mark.parametrize(
    ("attributes", "multiple"), [("", False), ('choice="single-radio"', False), ('choice="multiple"', True)]
)
def test_choices_are_a_classification(attributes: str, multiple: bool) -> None:
    text = config(
        '<Choice value="Cat"/><Choice value="Dog" alias="d" predicted_values="poodle"/>', "Choices", attributes
    )
    (tag,) = label_config.parse(text)
    assert (tag.task, tag.multiple, tag.labels) == ("classify", multiple, ("Cat", "d"))
    assert tag.class_to_label == {"cat": "Cat", "dog": "d", "d": "d", "poodle": "d"}


def test_the_labels_of_a_taxonomy_are_paths() -> None:
    inside = '<Choice value="A"><Choice value="B" predicted_values="cat"/></Choice><Choice value="C" alias="c"/>'
    (tag,) = label_config.parse(config(inside, "Taxonomy"))
    assert (tag.task, tag.multiple, tag.labels) == ("classify", True, ("A", "A > B", "c"))
    assert tag.class_to_label["cat"] == "A > B"
    assert not label_config.parse(config(inside, "Taxonomy", 'maxUsages="1"'))[0].multiple


def test_nested_choices_are_refused() -> None:
    """Label Studio writes every nested choice as a path, even one at the top, so no label would ever match."""
    inside = '<Choice value="A"><Choice value="B"/></Choice><Choice value="C"/>'
    with pytest.raises(LabelConfigError, match='allownested="true" is not supported') as caught:
        label_config.parse(config(inside, attributes='allowNested="true"'))
    assert 'model_skip="true"' in caught.value.fix
    for attributes in (
        "",
        'allowNested="False"',
        'allowNested="true" model_skip="true"',
        'allowNested="1" perRegion="true"',
    ):
        parsed = label_config.parse(config(inside, attributes=attributes, beside=BOXES))
        assert {tag.kind for tag in parsed} <= {"choices", "rectanglelabels"}


def test_a_name_that_looks_like_a_path_is_refused() -> None:
    with pytest.raises(LabelConfigError, match="separates the names of a path"):
        label_config.parse(config('<Choice value="A > B"/>', "Taxonomy"))


BOXES = '<RectangleLabels name="label" toName="image"><Label value="x"/></RectangleLabels>'


def test_boxes_come_before_choices() -> None:
    parsed = label_config.parse(config('<Choice value="a"/>', beside=BOXES))
    assert [tag.kind for tag in parsed] == ["rectanglelabels", "choices"]


@pytest.mark.parametrize(
    "text",
    [
        config('<Choice value="a"/>', attributes='perRegion="true"', beside=BOXES),
        config('<Choice value="a"/>', beside=BOXES).replace('name="choice" toName="image"', 'name="c" toName="text"'),
    ],
)
def test_choices_about_other_things_are_left_alone(text: str) -> None:
    assert [tag.kind for tag in label_config.parse(text)] == ["rectanglelabels"]


# Answers


def test_the_likeliest_label_answers() -> None:
    (sent,) = tags.encode(TAG, prediction(0.3, 0.6, 0.1), LABELS, 0.5, "7")
    assert sent.as_json()["value"] == {"choices": ["blue"]}
    assert sent.kind == "choices"
    assert sent.score == pytest.approx(0.6)
    assert tags.encode(TAG, prediction(0.3, 0.4, 0.3), LABELS, 0.5, "7") == ()


def test_only_classes_with_a_label_answer() -> None:
    (sent,) = tags.encode(TAG, prediction(0.7, 0.2, 0.1), ("zebra", "Red", "x"), 0.1, "7")
    assert sent.value == {"choices": ["red"]}


def test_all_labels_over_the_threshold_answer_where_several_may() -> None:
    (sent,) = tags.encode(MANY, prediction(0.6, 0.9, 0.1), LABELS, 0.5, "7")
    assert sent.value == {"choices": ["blue", "red"]}
    assert sent.score == pytest.approx(0.6)


def test_a_taxonomy_is_answered_with_paths() -> None:
    (sent,) = tags.encode(TREE, prediction(0.6, 0.9), ("A", "A > B"), 0.5, "7")
    assert (sent.kind, sent.value) == ("taxonomy", {"taxonomy": [["A", "B"], ["A"]]})
    (sent,) = tags.encode(TREE, prediction(0.9), ("Cat",), 0.5, "7")
    assert sent.value == {"taxonomy": [["A", "B"]]}


@pytest.mark.parametrize("n", [0, 2])
def test_a_model_of_objects_does_not_answer(n: int) -> None:
    assert tags.encode(TAG, prediction(0.9, 0.1, 0.1, n=n), LABELS, 0.5, "7") == ()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.sampled_from([TAG, MANY, TREE]))
def test_decode_undoes_encode(probs: list[float], tag: ControlTag) -> None:
    sent = [
        json.loads(json.dumps(region.as_json()))
        for region in tags.encode(tag, prediction(*probs), tag.labels, 0.5, "k")
    ]
    above = {label for label, score in zip(tag.labels, probs, strict=True) if score >= 0.5}
    labels = [box.label for box in tags.decode(tag, sent)]
    assert set(labels) == above if tag.multiple else (len(labels) == bool(above) and set(labels) <= above)
    assert tags.explain(tag, sent) == ()


def test_two_choices_are_two_labels_of_the_whole_image() -> None:
    assert tags.decode(MANY, [result(["red", "blue"])]) == (LabeledBox("red", WHOLE), LabeledBox("blue", WHOLE))


@pytest.mark.parametrize(
    ("tag", "items"),
    [
        (TAG, [result(["red", "blue"])]),
        (TAG, [result(["red"]), result(["blue"], id="r2")]),
        (dataclasses.replace(TREE, multiple=False), [result([["A"], ["A", "B"]], "taxonomy")]),
    ],
)
def test_of_a_choice_of_one_class_two_answers_are_none(tag: ControlTag, items: list[dict[str, Any]]) -> None:
    """A training on both answers would learn that each is wrong."""
    assert tags.decode(tag, items) == ()
    (reason,) = tags.unreadable(tag, items)
    assert "has 2 answers" in reason
    assert "only one may be chosen: correct the annotation" in reason


@pytest.mark.parametrize("tag", [TAG, MANY])
def test_one_answer_given_twice_is_one(tag: ControlTag) -> None:
    answers = [result(["red", "red"]), result(["red"], id="r2")]
    assert tags.decode(tag, answers) == (LabeledBox("red", WHOLE),)
    assert tags.explain(tag, answers) == ()


@pytest.mark.parametrize(
    ("tag", "item", "reason"),
    [
        (TAG, result(["green"]), "the label 'green', which is not in the label config"),
        (TAG, result([]), "has no label"),
        (TAG, result(None), "has no label"),
        (TAG, result(["red"], value=None), "has no label"),
        (TREE, result([["A", "Z"]], "taxonomy"), "'A > Z', which is not in the label config"),
        (TREE, result(["Z"], "taxonomy"), "not in the label config"),
        (TREE, result([], "taxonomy"), "has no label"),
        (TREE, result([], "taxonomy", value=None), "has no label"),
    ],
)
def test_what_is_left_out_is_explained(tag: ControlTag, item: dict[str, Any], reason: str) -> None:
    assert tags.decode(tag, [item]) == ()
    (explained,) = tags.explain(tag, [item])
    assert reason in explained
