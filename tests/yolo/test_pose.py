"""Keypoints are read, written and learned."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.datasets import writer
from backend.errors import LabelConfigError
from backend.labelstudio import label_config, tags
from backend.types import Prediction
from backend.yolo.tasks import details
from tests import drawings

pytestmark = pytest.mark.torch

TAG = drawings.control_tag("keypointlabels", "pose", from_name="points", points=("head", "tail"), parent="points_bbox")


def box(labels: Any = ("red",), at: Any = (10, 20, 30, 40), **item: Any) -> dict[str, Any]:
    value = dict(zip(("x", "y", "width", "height"), at, strict=True)) | {"rotation": 0, "rectanglelabels": list(labels)}
    base = {"id": "b1", "type": "rectanglelabels", "from_name": "points_bbox", "to_name": "image", "value": value}
    return base | {"original_width": 200, "original_height": 100} | item


def point(label: Any = "head", x: Any = 15, y: Any = 25, **item: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 1, "keypointlabels": [label]}
    base = {"id": "p1", "type": "keypointlabels", "from_name": "points", "to_name": "image", "value": value}
    return base | {"parentID": "b1", "original_width": 200, "original_height": 100} | item


def prediction(keypoints: Any, width: int = 200, height: int = 100) -> Prediction:
    n = len(keypoints)
    points = np.array(keypoints, np.float32).reshape(n, len(keypoints[0]) if n else 2, 3)
    return drawings.prediction(n, width, height, keypoints=points)


# Configs

LABELS = '<Label value="head"/><Label value="tail"/>'


def config(labels: str = LABELS, boxes: str = 'name="points_bbox"', attributes: str = "") -> str:
    return (
        f'<View><Image name="image" value="$image"/><RectangleLabels {boxes} toName="image"><Label value="Fish"/>'
        f'</RectangleLabels><KeyPointLabels name="points" toName="image" {attributes}>{labels}</KeyPointLabels></View>'
    )


@pytest.mark.parametrize(
    "boxes", ['name="points_bbox"', 'name="points_bbox" model_skip="true"', 'name="x" model_skip="1"']
)
def test_points_take_their_boxes_along(boxes: str) -> None:
    (tag,) = label_config.parse(config(boxes=boxes))
    assert (tag.kind, tag.task, tag.labels, tag.points) == ("keypointlabels", "pose", ("Fish",), ("head", "tail"))
    assert tag.parent in ("points_bbox", "x")


def test_boxes_that_are_not_the_points_are_boxes() -> None:
    boxes, points = label_config.parse(config(boxes='name="other"'))
    assert (boxes.kind, points.kind, points.parent) == ("rectanglelabels", "keypointlabels", "")


def test_model_index_gives_the_order() -> None:
    (tag,) = label_config.parse(config('<Label value="tail" model_index="1"/><Label value="head" model_index="0"/>'))
    assert tag.points == ("head", "tail")
    with pytest.raises(LabelConfigError, match="model_index"):
        label_config.parse(config('<Label value="tail" model_index="2"/><Label value="head" model_index="0"/>'))


def test_another_order_is_another_config() -> None:
    assert label_config.config_hash(config()) != label_config.config_hash(
        config('<Label value="tail"/><Label value="head"/>')
    )


# Regions


def test_points_stand_under_their_box() -> None:
    skeletons = prediction([[(20, 50, 0.75), (100, 10, 0.5)]])
    boxed, head, tail = (region.as_json() for region in tags.encode(TAG, skeletons, TAG.labels, 0.5, "k"))
    assert (boxed["type"], boxed["from_name"]) == ("rectanglelabels", "points_bbox")
    assert boxed["value"]["rectanglelabels"] == ["red"]
    assert "parentID" not in boxed
    assert head["parentID"] == tail["parentID"] == boxed["id"]
    assert head["value"] == {"x": 10, "y": 50, "width": 0.5, "keypointlabels": ["head"]}
    assert (head["score"], tail["score"]) == (0.75, 0.5)
    assert len({boxed["id"], head["id"], tail["id"]}) == 3


def test_the_attributes_of_points_are_honoured() -> None:
    skeletons = prediction([[(20, 50, 0.75), (100, 10, 0.5)]])
    attributes = {"model_point_threshold": "0.6", "model_add_bboxes": "false", "model_point_size": "2"}
    (head,) = tags.encode(dataclasses.replace(TAG, attributes=attributes), skeletons, TAG.labels, 0.5, "k")
    assert head.value["keypointlabels"] == ["head"]
    assert head.value["width"] == 1  # percent of 200 pixels
    assert "parentID" not in head.as_json()


def test_a_point_is_no_larger_than_its_image() -> None:
    """Label Studio refuses a prediction with a width above 100."""
    tag = dataclasses.replace(TAG, attributes={"model_point_size": "99"})
    *_, tail = tags.encode(tag, prediction([[(2, 5, 0.75), (1, 1, 0.5)]], 10, 10), TAG.labels, 0.5, "k")
    assert tail.value["width"] == 100


def test_a_model_of_another_skeleton_answers_with_boxes() -> None:
    (boxed,) = tags.encode(TAG, prediction([[(20, 50, 0.75)]]), TAG.labels, 0.5, "k")
    assert boxed.kind == "rectanglelabels"


def test_decode_orders_points_as_the_skeleton_is() -> None:
    result = [
        point("tail", 30, 40),
        box(),
        box(id="b2"),
        point("head", 15, 25, id="p2", hidden=True),
        point("tail", 120, -3, parentID="b2"),
    ]
    first, second = tags.decode(TAG, result)
    np.testing.assert_allclose(first.keypoints, [(0.15, 0.25, 1), (0.3, 0.4, 2)])
    np.testing.assert_allclose(second.keypoints, [(0, 0, 0), (1, 0, 2)])
    assert first.xywh == pytest.approx((0.25, 0.4, 0.3, 0.4))
    assert tags.explain(TAG, result) == ()


@pytest.mark.parametrize("above", [None, "gone"])
def test_a_point_without_a_parent_belongs_to_the_only_box_that_holds_it(above: str | None) -> None:
    other = box(id="b2", at=(60, 20, 30, 40))
    first, second = tags.decode(TAG, [box(), other, point(parentID=above), point("tail", 61, 59, parentID=above)])
    np.testing.assert_allclose(first.keypoints, [(0.15, 0.25, 2), (0, 0, 0)])
    np.testing.assert_allclose(second.keypoints, [(0, 0, 0), (0.61, 0.59, 2)])


def test_a_point_with_two_labels_is_both() -> None:
    both = point()
    both["value"]["keypointlabels"] = ["tail", "head"]
    (label,) = tags.decode(TAG, [box(), both])
    np.testing.assert_allclose(label.keypoints, [(0.15, 0.25, 2)] * 2)
    (reason,) = tags.explain(TAG, [box(), both, point("tail", id="p2")])
    assert reason == "region p2 is a second 'tail' of one object"
    both["value"]["keypointlabels"] = ["tail", "fin"]
    (reason,) = tags.explain(TAG, [box(), both])
    assert "the label 'fin', which is not in the label config" in reason


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([point()], "region p1 is a point without a box"),
        ([point(parentID=None)], "a point without a box"),
        ([box(), point(x=45, parentID=None)], "region p1 is a point without a box"),
        ([box(), box(id="b2", at=(12, 22, 30, 40)), point(parentID=None)], "region p1 is a point without a box"),
        ([box(), point("fin")], "the label 'fin', which is not in the label config"),
        ([box(), point(value=None)], "has no label"),
        ([box(), point(x="1")], "no usable x or y"),
        ([box(), point(), point(id="p2")], "region p2 is a second 'head' of one object"),
        ([box(at=(10, 20, 0, 40)), point()], "region b1 has no area"),
        ([box(labels=["green"]), point()], "region b1 has the label 'green'"),
    ],
)
def test_what_is_left_out_is_explained(items: list[dict[str, Any]], reason: str) -> None:
    (explained,) = tags.explain(TAG, items)
    assert reason in explained


spots = st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32))


@settings(deadline=None)
@given(st.lists(st.tuples(spots, spots), max_size=4), st.integers(1, 10_000), st.integers(1, 10_000))
def test_decode_undoes_encode(drawn: list[Any], width: int, height: int) -> None:
    skeletons = prediction([[(x * width, y * height, 1) for x, y in points] for points in drawn], width, height)
    assert skeletons.keypoints is not None
    skeletons = dataclasses.replace(
        skeletons, keypoints=np.minimum(skeletons.keypoints, np.array([width, height, 1], np.float32))
    )
    assert skeletons.keypoints is not None
    sent = [json.loads(json.dumps(region.as_json())) for region in tags.encode(TAG, skeletons, TAG.labels, 0.5, "k")]
    decoded = tags.decode(TAG, sent)
    keypoints = np.array([label.keypoints for label in decoded]).reshape(-1, 2, 3)
    expected = skeletons.keypoints.astype(np.float64).reshape(-1, 2, 3) / (width, height, 0.5)
    np.testing.assert_allclose(keypoints, expected, rtol=0, atol=1e-9)
    assert [label.label for label in decoded] == [TAG.labels[place % 2] for place in range(len(drawn))]


def test_points_reach_the_label_file(tmp_path: Path) -> None:
    split = drawings.split(tmp_path / "pictures", drawings.arrow, train=2, val=1)
    data_yaml = writer.write(split, drawings.CLASSES, tmp_path / "data", "pose", details(TAG))
    assert json.loads(data_yaml.read_text())["kpt_shape"] == [2, 3]
    for line in (tmp_path / "data/labels/val/1000.txt").read_text().splitlines():
        assert len(line.split()) == 1 + 4 + 2 * 3
        assert float(line.split()[7]) == float(line.split()[10]) == 2


@pytest.mark.slow
def test_points_are_learned(tmp_path: Path) -> None:
    metrics, pictures = drawings.learn(tmp_path, drawings.arrow, TAG, epochs=60)
    assert metrics.map50 > 0.4
    errors = []
    for image, predicted in pictures:
        objects = [np.array(label.keypoints)[:, :2] * drawings.SIZE for label in predicted]
        for label in image.boxes:
            true = np.array(label.keypoints)[:, :2] * drawings.SIZE
            errors.append(
                min((np.linalg.norm(true - keypoints, axis=1).mean() for keypoints in objects), default=np.inf)
            )
    print(f"median error of the points {np.median(errors):.1f} px")
    assert np.median(errors) < 8
