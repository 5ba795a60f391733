"""The labels of a control tag, and the classes that each label covers."""

from __future__ import annotations

import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, regions
from tests.labelstudio.test_label_config import CAR, config


def test_predicted_values_are_trimmed_folded_and_keep_the_own_name() -> None:
    (tag,) = label_config.parse(config('<Label value="CAR" predicted_values=" Truck ,bus,, "/>'))
    assert tag.class_to_label == {"car": "CAR", "truck": "CAR", "bus": "CAR"}


def test_predicted_values_win_over_the_name_of_another_label() -> None:
    labels = '<Label value="Truck"/><Label value="Car" predicted_values="truck"/>'
    assert label_config.parse(config(labels))[0].class_to_label == {"truck": "Car", "car": "Car"}


def test_an_alias_is_what_label_studio_writes() -> None:
    (tag,) = label_config.parse(config('<Label value="Car" alias="v1"/>'))
    assert tag.labels == ("v1",)
    assert tag.class_to_label == {"car": "v1", "v1": "v1"}


def test_a_path_stands_for_its_last_name_where_no_other_ends_in_it() -> None:
    (tag,) = label_config.parse(
        '<View><Image name="i" value="$i"/><Taxonomy name="t" toName="i"><Choice value="Animals"><Choice value="Cat"/>'
        '<Choice value="Other"/></Choice><Choice value="Plants"><Choice value="other"/>'
        '<Choice value="Moss" predicted_values="cat"/></Choice></Taxonomy></View>'
    )
    last = {name: label for name, label in tag.class_to_label.items() if ">" not in name}
    assert last == {"animals": "Animals", "plants": "Plants", "cat": "Plants > Moss", "moss": "Plants > Moss"}
    assert tag.class_to_label["animals > cat"] == "Animals > Cat"


def test_a_label_written_twice_counts_once() -> None:
    (tag,) = label_config.parse(config(CAR + '<Label value="Car" predicted_values="bus"/><Label/>'))
    assert tag.labels == ("Car",)
    assert tag.class_to_label == {"car": "Car", "bus": "Car"}


ALIKE = [("Person", "person"), ("Straße", "STRASSE"), ("caf\u00e9", "cafe\u0301"), ("bus", "bus "), ("a b", "a  b")]


@pytest.mark.parametrize("names", ALIKE, ids=map(repr, ALIKE))
def test_labels_that_look_alike_are_two_labels_and_two_classes(names: tuple[str, str]) -> None:
    text = config("".join(f'<Label value="{name}"/>' for name in names))
    (tag,) = label_config.parse(text)
    assert tag.labels == names
    assert regions.class_labels(tag, [*names, "dog"]) == [*names, None]


def test_a_class_of_the_base_model_goes_to_the_exact_name_and_else_to_the_only_one_like_it() -> None:
    text = config('<Label value="Person"/><Label value="person"/><Label value="CAR"/>')
    (tag,) = label_config.parse(text)
    assert regions.class_labels(tag, ["person", "PERSON", "car", "dog"]) == ["person", None, "CAR", None]
    assert label_config.warnings(text) == ()


@pytest.mark.parametrize(
    ("labels", "cured"),
    [
        ('<Label value="Car"/><Label value="CAR"/>', '<Label value="Car" predicted_values="car"/><Label value="CAR"/>'),
        (
            '<Label value="x" predicted_values="car"/><Label value="y" predicted_values="car"/>',
            '<Label value="x" predicted_values="car"/><Label value="y"/>',
        ),
        (  # one visible name under two aliases
            '<Label value="Car" alias="left"/><Label value="Car" alias="right"/>',
            '<Label value="Car" alias="left" predicted_values="car"/><Label value="Car" alias="right"/>',
        ),
    ],
)
def test_a_class_that_two_labels_claim_goes_to_neither_and_is_told(labels: str, cured: str) -> None:
    text = config(labels)
    (tag,) = label_config.parse(text)
    first, second = tag.labels
    assert regions.class_labels(tag, ["car", "dog"]) == [None, None]
    assert label_config.warnings(text) == (
        f"RectangleLabels \"label\": a class 'car' of a base model could be {first!r} or {second!r}, "
        "so no label gets it. Fix: write it into the predicted_values of one label",
    )
    (tag,) = label_config.parse(config(cured))
    assert regions.class_labels(tag, ["car", "dog"]) == [first, None]
    assert label_config.warnings(config(cured)) == ()


def test_many_such_classes_are_counted() -> None:
    pairs = "".join(f'<Label value="Van{number}"/><Label value="VAN{number}"/>' for number in range(5))
    *_, last = label_config.warnings(config(pairs))
    assert last == 'RectangleLabels "label": 2 more classes could be several labels'


def test_the_predicted_values_of_one_label_win_over_the_exact_name_of_another() -> None:
    (tag,) = label_config.parse(config('<Label value="truck"/><Label value="Car" predicted_values="Truck"/>'))
    assert regions.class_labels(tag, ["truck", "Truck"]) == ["Car", "Car"]


@pytest.mark.parametrize(
    ("labels", "attributes", "message"),
    [("", "", "has no labels"), ("", 'value="labels"', "takes its labels from the task")],
)
def test_a_tag_without_labels(labels: str, attributes: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        label_config.parse(config(labels, attributes))


def test_a_point_that_is_named_twice_is_told() -> None:
    text = (
        '<View><Image name="i" value="$i"/><RectangleLabels name="p_bbox" toName="i"><Label value="cat"/>'
        '</RectangleLabels><KeyPointLabels name="p" toName="i"><Label value="eye"/><Label value="nose"/>'
        '<Label value="eye"/></KeyPointLabels></View>'
    )
    (tag,) = label_config.parse(text)
    assert tag.points == ("eye", "nose")
    (warning,) = label_config.warnings(text)
    assert warning.startswith("KeyPointLabels \"p\": the label 'eye' is written 2 times and is one point. Fix: ")
    assert label_config.warnings(text.replace('<Label value="eye"/></Key', "</Key")) == ()


def test_a_label_asks_by_its_prompt_else_by_what_people_read() -> None:
    labels = '<Label value="Car" prompt=" a parked car "/><Label value="Road sign" alias="sign"/>'
    (tag,) = label_config.parse(config(labels + '<Label value="x" prompt=""/>'))
    assert dict(zip(tag.labels, tag.prompts, strict=True)) == {"Car": "a parked car", "sign": "Road sign", "x": "x"}


def test_only_boxes_and_outlines_are_asked_for() -> None:
    choices = '<Choices name="c" toName="image"><Choice value="x" prompt="y"/></Choices></View>'
    tags = {tag.from_name: tag.prompts for tag in label_config.parse(config(CAR).replace("</View>", choices))}
    assert tags["c"] == ()
    assert sum(map(bool, tags.values())) == 1
