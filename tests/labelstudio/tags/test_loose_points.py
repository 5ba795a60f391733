"""KeyPointLabels without the RectangleLabels of their objects."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.labelstudio import label_config, tags
from backend.types import ControlTag, LabeledBox
from tests import drawings

CONFIG = (
    '<View><KeyPointLabels name="kp" toName="image"><Label value="head"/><Label value="tail"/></KeyPointLabels>'
    '<Image name="image" value="$image"/></View>'
)
(TAG,) = label_config.parse(CONFIG)


def point(label: str, x: float, y: float, name: str = "", above: str | None = None, **item: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 1, "keypointlabels": [label]}
    base = {"id": name or f"{label}-{x}-{y}", "type": "keypointlabels", "from_name": "kp", "to_name": "image"}
    more = {"parentID": above} if above is not None else {}
    return base | {"value": value, "original_width": 200, "original_height": 100} | more | item


def heads(labels: tuple[LabeledBox, ...]) -> list[tuple[float, ...]]:
    return [tuple(round(100 * x) for x, _, _ in label.keypoints) for label in labels]


def parsed(labels: str) -> ControlTag:
    return label_config.parse(CONFIG.replace('<Label value="head"/>', labels))[0]


def test_points_alone_are_served() -> None:
    assert (TAG.task, TAG.labels, TAG.points, TAG.parent) == ("pose", ("object",), ("head", "tail"), "")
    assert label_config.warnings(CONFIG) == ()


def test_their_objects_are_the_class_of_the_base_weights_or_that_of_predicted_values() -> None:
    assert TAG.class_to_label == {"person": "object"}
    assert parsed('<Label value="head" predicted_values="Fish, eel"/>').class_to_label == {
        "fish": "object",
        "eel": "object",
    }


def test_the_box_is_the_padded_hull_of_the_points() -> None:
    (label,) = tags.decode(TAG, [point("head", 20, 50), point("tail", 70, 50)])
    assert label.label == "object"
    np.testing.assert_allclose(label.keypoints, [(0.2, 0.5, 2), (0.7, 0.5, 2)])
    # The hull is 100 pixels wide: 10 more on each side. The image has 200 x 100 pixels.
    assert label.xywh == pytest.approx((0.45, 0.5, 0.6, 0.2))


def test_a_single_point_has_a_small_box_inside_the_image() -> None:
    (label,) = tags.decode(TAG, [point("tail", 100, 0)])
    np.testing.assert_allclose(label.keypoints, [(0, 0, 0), (1, 0, 2)])
    assert label.xywh == pytest.approx((0.99, 0.02, 0.02, 0.04))


@pytest.mark.parametrize(
    ("items", "xs"),
    [
        ([point("head", 10, 10, "a"), point("tail", 20, 10, above="a")], [(10, 20)]),
        (
            [
                *(point("head", 10, 10, "a"), point("tail", 20, 10, above="a")),
                *(point("tail", 60, 10, "b"), point("head", 50, 10, above="b")),
            ],
            [(10, 20), (50, 60)],
        ),
        ([point("head", 10, 10, above="box 1"), point("head", 50, 10, above="box 2")], [(10, 0), (50, 0)]),
        ([point("head", 10, 10, above="box 1"), point("tail", 20, 10)], [(10, 20)]),
        ([point("head", 10, 10, "a", above="b"), point("tail", 20, 10, "b", above="a")], [(10, 20)]),
        ([point("head", 10, 10, ""), point("tail", 20, 10, id=7)], [(10, 20)]),
        ([], []),
    ],
)
def test_points_under_one_region_are_one_object(items: list[dict[str, Any]], xs: list[tuple[int, ...]]) -> None:
    assert heads(tags.decode(TAG, items)) == xs
    assert tags.explain(TAG, items) == ()


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([point("head", 10, 10), point("head", 50, 10)], "is a second 'head' of one object"),
        ([point("fin", 10, 10)], "the label 'fin', which is not in the label config"),
        ([point("head", 10, 10, value={})], "has no label"),
        (
            [point("head", 1, 1, above="1"), point("head", 2, 2, above="2"), point("tail", 3, 3, "lone")],
            "region lone is a point of no object: put it under a point of its object in the region tree",
        ),
    ],
)
def test_what_is_left_out_is_explained(items: list[dict[str, Any]], reason: str) -> None:
    (explained,) = tags.explain(TAG, items)
    assert reason in explained


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 100)] * 4), min_size=1, max_size=4), st.integers(1, 99))
def test_decode_undoes_encode(drawn: list[tuple[int, ...]], width: int) -> None:
    rows = np.array(drawn, np.float32).reshape(-1, 2, 2) * (width / 100, 2)
    keypoints = np.concatenate([rows, np.ones((len(drawn), 2, 1), np.float32)], axis=2)
    predicted = drawings.prediction(len(drawn), width, 200, keypoints=keypoints.astype(np.float32))
    classes = ("person", "dog")
    sent = [json.loads(json.dumps(region.as_json())) for region in tags.encode(TAG, predicted, classes, 0.5, "k")]
    assert {item["type"] for item in sent} <= {"keypointlabels"}
    decoded = tags.decode(TAG, sent)
    persons = keypoints[::2]  # every second object is a dog
    np.testing.assert_allclose([label.keypoints for label in decoded], persons / (width, 200, 0.5), atol=1e-6)
