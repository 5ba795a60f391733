"""The labels of a control tag, and the classes that each label covers."""

from __future__ import annotations

import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config
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


@pytest.mark.parametrize(
    "labels",
    [
        '<Label value="Car"/><Label value="CAR"/>',
        '<Label value="Car" predicted_values="van"/><Label value="CAR" predicted_values="Van"/>',
    ],
)
def test_a_class_claimed_by_two_labels_names_both(labels: str) -> None:
    with pytest.raises(LabelConfigError, match="claimed by two labels, 'Car' and 'CAR'"):
        label_config.parse(config(labels))


@pytest.mark.parametrize(
    ("labels", "attributes", "message"),
    [("", "", "has no labels"), ("", 'value="$labels"', "takes its labels from the task")],
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
