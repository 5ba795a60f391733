"""The attributes of HumanSignal's YOLO backend: every tag accepts them, because people's label configs have them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, tags
from backend.types import ControlTag, Prediction, Region
from tests import drawings, kinds
from tests.kinds import KINDS, Kind
from tests.support import ROOT


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def changed(kind: Kind, attributes: dict[str, str], on_label: bool = False) -> str:
    """Return a kind's label config with attributes on its control tag, or on the first of its labels."""
    root, tag = ET.fromstring(kind.label_config()), kind.tag()
    name = (tag.parent or tag.from_name) if on_label else tag.from_name
    (element,) = (node for node in root.iter() if node.get("name") == name)
    if on_label:
        element = next(node for node in element.iter() if node.get("value"))
    for attribute in ("model_score_threshold", "predicted_values"):
        element.attrib.pop(attribute, None)
    element.attrib.update(attributes)
    return ET.tostring(root, encoding="unicode")


def confident_prediction(kind: Kind, folder: Path) -> Prediction:
    """Return a prediction with a confidence of 90% for each object."""
    tag = kind.tag()
    (picture,) = drawings.pictures(folder / "pictures", kind.draw, 1, seed=3)
    shapes = [replace(shape, label=tag.labels[0]) for shape in kinds.drawn(tag, picture)]
    return kinds.prediction(tag, shapes)


def encode(tag: ControlTag, predicted: Prediction, classes: Sequence[str] = ()) -> tuple[Region, ...]:
    return tags.encode(tag, predicted, classes or tag.labels, 0.5, "k")


@pytest.mark.parametrize("attribute", ["model_score_threshold", "score_threshold"])
def test_the_threshold_is_honoured(kind: Kind, attribute: str, tmp_path: Path) -> None:
    predicted = confident_prediction(kind, tmp_path)
    (low,) = label_config.parse(changed(kind, {attribute: "0.85"}))
    (high,) = label_config.parse(changed(kind, {attribute: "0.95"}))
    assert encode(low, predicted)
    assert encode(high, predicted) == ()
    assert tags.encode(low, predicted, low.labels, 0.95, "k")  # the tag's own wins over the setting


def test_a_skipped_tag_is_left_alone(kind: Kind) -> None:
    boxes = changed(kind, {"model_skip": "true"})
    with pytest.raises(LabelConfigError, match=r"skipped|no control tag"):
        label_config.parse(boxes)
    assert label_config.parse(changed(kind, {"model_skip": "false"}))


@pytest.mark.parametrize(
    ("attributes", "trained"),
    [
        ({}, True),
        ({"model_trainable": "TRUE"}, True),
        ({"model_trainable": "0"}, False),
        ({"model_trainable": "no"}, False),
    ],
)
def test_a_tag_may_say_that_it_is_not_to_be_trained(kind: Kind, attributes: dict[str, str], trained: bool) -> None:
    """HumanSignal's backend reads this attribute only on TimelineLabels."""
    (tag,) = label_config.parse(changed(kind, attributes))
    assert tag.trainable is trained
    with pytest.raises(LabelConfigError, match='model_trainable="maybe" is neither true nor false'):
        label_config.parse(changed(kind, {"model_trainable": "maybe"}))


def test_the_weights_of_the_config_are_asked_for(kind: Kind) -> None:
    (tag,) = label_config.parse(changed(kind, {"model_path": "own.pt"}))
    assert tag.model_path == "own.pt"
    for path in ("../own.pt", "/own.pt"):
        with pytest.raises(LabelConfigError, match="model_path"):
            label_config.parse(changed(kind, {"model_path": path}))


def test_predicted_values_are_classes_of_the_model(kind: Kind, tmp_path: Path) -> None:
    """Class names count in any case, and with spaces around them."""
    (tag,) = label_config.parse(changed(kind, {"predicted_values": "gizmo, Gadget"}, on_label=True))
    predicted = confident_prediction(kind, tmp_path)
    others = [f"other {number}" for number in range(len(tag.labels) - 1)]
    expected = encode(tag, predicted)
    for name in ("GADGET", "gizmo"):
        assert encode(tag, predicted, [name, *others]) == expected
    assert encode(tag, predicted, ["thing", *others]) == ()


def test_the_points_of_a_skeleton_say_what_object_they_are_of() -> None:
    """HumanSignal's backend wants this on every point: all points of a person have the same predicted_values."""
    text = (
        '<View><Image name="image" value="$image"/>'
        '<RectangleLabels name="points_bbox" toName="image" model_skip="true"><Label value="person"/></RectangleLabels>'
        '<KeyPointLabels name="points" toName="image" model_point_size="1" model_add_bboxes="true">'
        '<Label value="nose" predicted_values="person" model_index="1"/>'
        '<Label value="left_eye" predicted_values="person" model_index="0"/></KeyPointLabels></View>'
    )
    (tag,) = label_config.parse(text)
    assert (tag.labels, tag.class_to_label, tag.points) == (("person",), {"person": "person"}, ("left_eye", "nose"))


@pytest.mark.parametrize(("value", "yes"), [("1", True), ("Yes", True), ("0", False), ("no", False)])
def test_yes_and_no_are_written_in_three_ways(value: str, yes: bool) -> None:
    boxes = changed(KINDS["RectangleLabels"], {"model_obb": value})
    assert label_config.parse(boxes)[0].task == ("obb" if yes else "detect")
    (points,) = label_config.parse(changed(KINDS["KeyPointLabels"], {"model_add_bboxes": value}))
    seen_box = replace(drawings.prediction(1, 10, 10), class_probs=np.full((1, 1), 0.9, np.float32))
    assert bool(encode(points, seen_box)) == yes
    masks = changed(KINDS["BrushLabels"], {"model_semantic": value})
    assert label_config.parse(masks)[0].task == ("semantic" if yes else "segment")


# Videos


@pytest.mark.parametrize("example", ["videorectangle.xml", "timelinelabels.xml"])
def test_tags_of_videos_take_them_too(example: str) -> None:
    text = (ROOT / "label_config" / example).read_text(encoding="utf-8")
    (plain,) = label_config.parse(text)

    def with_attributes(**attributes: str) -> str:
        root = ET.fromstring(text)
        (element,) = (node for node in root.iter() if node.get("name") == plain.from_name)
        element.attrib.pop("model_score_threshold", None)
        element.attrib.update(attributes)
        return ET.tostring(root, encoding="unicode")

    assert plain.trainable
    assert not label_config.parse(with_attributes(model_trainable="false"))[0].trainable
    assert label_config.parse(with_attributes(model_path="own.pt"))[0].model_path == "own.pt"
    for name in ("model_score_threshold", "score_threshold"):
        assert label_config.parse(with_attributes(**{name: "0.4"}))[0].score_threshold == 0.4
    with pytest.raises(LabelConfigError, match=r"skipped|no control tag"):
        label_config.parse(with_attributes(model_skip="true"))


# Trees

TREE = (
    '<View><Image name="image" value="$image"/><Taxonomy name="kind" toName="image" {0}>'
    '<Choice value="Animals"><Choice value="Birds"/><Choice value="Cats"/></Choice><Choice value="Plants"/>'
    "</Taxonomy></View>"
)


@pytest.mark.parametrize(
    ("attributes", "labels"),
    [
        ("", ("Animals", "Animals > Birds", "Animals > Cats", "Plants")),
        ('leafsOnly="false"', ("Animals", "Animals > Birds", "Animals > Cats", "Plants")),
        ('leafsOnly="true"', ("Animals > Birds", "Animals > Cats", "Plants")),
    ],
)
def test_of_leaves_alone_no_branch_is_a_label(attributes: str, labels: tuple[str, ...]) -> None:
    """With this attribute Label Studio's editor does not let anyone choose a branch."""
    (tag,) = label_config.parse(TREE.format(attributes))
    assert tag.labels == labels
    assert ("animals" in tag.class_to_label) == ("Animals" in labels)


@pytest.mark.parametrize(("most", "answered"), [("", 3), ("2", 2), ("1", 1), ("9", 3)])
def test_no_more_choices_than_may_be_used(most: str, answered: int) -> None:
    (tag,) = label_config.parse(TREE.format('leafsOnly="true"' + (f' maxUsages="{most}"' if most else "")))
    predicted = drawings.prediction(1, 10, 10)
    predicted = replace(
        predicted, class_probs=predicted.class_probs[:, [0, 0, 0]] * np.array([0.8, 1.0, 0.9], np.float32)
    )
    (region,) = encode(tag, predicted)
    assert region.value["taxonomy"] == [["Animals", "Cats"], ["Plants"], ["Animals", "Birds"]][:answered]
