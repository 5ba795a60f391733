from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import LabelConfigError
from backend.geometry import coordinates
from backend.labelstudio import label_config, tags
from backend.labelstudio.tags import rectanglelabels
from backend.types import ControlTag, LabeledBox, Prediction

TAG = ControlTag(
    kind="rectanglelabels",
    from_name="label",
    to_name="image",
    data_key="image",
    labels=("CAR", "Person"),
    class_to_label={"car": "CAR", "truck": "CAR", "person": "Person"},
)


def prediction(
    boxes: list[tuple[float, ...]],
    classes: list[int],
    confidence: list[float],
    of: int = 3,
    size: tuple[int, int] = (200, 100),
) -> Prediction:
    probs = np.zeros((len(boxes), of), dtype=np.float32)
    probs[np.arange(len(boxes)), classes] = confidence
    return Prediction(
        width=size[0],
        height=size[1],
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        class_probs=probs,
        confidence=np.array(confidence, dtype=np.float32),
        embedding=np.zeros(2, dtype=np.float32),
    )


def region(labels: Any = ("CAR",), box: Any = (10, 20, 30, 40), rotation: Any = 0, **item: Any) -> dict[str, Any]:
    value = dict(zip(("x", "y", "width", "height"), box, strict=True))
    value |= {"rotation": rotation, "rectanglelabels": list(labels)}
    base = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    return base | {"original_width": 200, "original_height": 100, "image_rotation": 0} | item


# Registry


def test_every_file_is_registered_under_its_kind() -> None:
    assert tags.registry()["rectanglelabels"] is rectanglelabels.TAG
    assert tags.get("rectanglelabels").encode is rectanglelabels.encode


def test_the_kind_of_the_control_tag_picks_the_functions() -> None:
    (sent,) = tags.encode(TAG, prediction([(20, 10, 60, 30)], [0], [0.75]), ("Car", "x", "y"), 0.5, "7")
    result = [sent.as_json(), region(["Dog"])]
    assert [box.label for box in tags.decode(TAG, result)] == ["CAR"]
    assert len(tags.explain(TAG, result)) == 1
    with pytest.raises(LabelConfigError, match="unknown control tag 'circles'"):
        tags.decode(dataclasses.replace(TAG, kind="circles"), result)


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(LabelConfigError) as caught:
        tags.get("circles")
    assert "'circles'" in caught.value.what
    assert "rectanglelabels" in caught.value.fix


def test_duplicates_are_refused() -> None:
    with pytest.raises(ValueError, match="two tags of kind 'rectanglelabels'"):
        tags.collect([rectanglelabels.TAG, dataclasses.replace(rectanglelabels.TAG, name="Rectanglelabels")])


@pytest.mark.parametrize("tag", tags.registry().values(), ids=lambda tag: tag.kind)
def test_every_tag_takes_nothing_and_gives_nothing(tag: tags.Tag) -> None:
    empty = dataclasses.replace(prediction([], [], []), class_probs=np.zeros((0, 0), dtype=np.float32))
    control = dataclasses.replace(TAG, kind=tag.kind)
    assert tag.encode(control, empty, (), 0.5, "k") == ()
    assert tags.decode(control, []) == ()
    assert tags.explain(control, []) == ()


# Encode


def test_encode_gives_what_label_studio_stores() -> None:
    (encoded,) = rectanglelabels.encode(TAG, prediction([(20, 10, 60, 30)], [0], [0.75]), ("Car", "x", "y"), 0.5, "7")
    assert json.loads(json.dumps(encoded.as_json())) == {
        "id": encoded.id,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "value": {"x": 10.0, "y": 10.0, "width": 20.0, "height": 20.0, "rotation": 0, "rectanglelabels": ["CAR"]},
        "score": 0.75,
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
    }


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("Car", "TRUCK", "person"), ["CAR", "CAR", "Person"]),
        (("bus", "person", "dog"), ["Person"]),
        (("bus", "cat", "dog"), []),
    ],
)
def test_only_classes_with_a_label_are_emitted(names: tuple[str, ...], labels: list[str]) -> None:
    boxes: list[tuple[float, ...]] = [(0, 0, 10, 10)] * 3
    encoded = rectanglelabels.encode(TAG, prediction(boxes, [0, 1, 2], [0.9] * 3), names, 0.5, "k")
    assert [item.value["rectanglelabels"] for item in encoded] == [[label] for label in labels]


def test_a_model_trained_on_the_labels_keeps_them_despite_predicted_values() -> None:
    (tag,) = label_config.parse(
        '<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="i">'
        '<Label value="Truck"/><Label value="Car" predicted_values="truck"/></RectangleLabels></View>'
    )
    predicted = prediction([(0, 0, 10, 10)], [0], [0.9], of=2)
    assert rectanglelabels.encode(tag, predicted, ("Truck", "Car"), 0.5, "k")[0].value["rectanglelabels"] == ["Truck"]
    assert rectanglelabels.encode(tag, predicted, ("truck", "bus"), 0.5, "k")[0].value["rectanglelabels"] == ["Car"]


@pytest.mark.parametrize(("of_tag", "scores"), [(None, [0.9, 0.5]), (0.8, [0.9]), (0.0, [0.9, 0.5, 0.25])])
def test_the_threshold_of_the_tag_wins(of_tag: float | None, scores: list[float]) -> None:
    tag = dataclasses.replace(TAG, score_threshold=of_tag)
    predicted = prediction([(0, 0, 10, 10)] * 3, [0, 0, 0], [0.9, 0.5, 0.25])
    assert [item.score for item in rectanglelabels.encode(tag, predicted, ("car", "b", "c"), 0.5, "k")] == [
        float(np.float32(score)) for score in scores
    ]


def test_boxes_are_clipped_and_those_without_area_dropped() -> None:
    nan = float("nan")
    boxes = [(-20, -10, 40, 50), (210, 0, 300, 50), (5, 5, 5, 50), (60, 60, 50, 70), (nan, 0, 5, 5)]
    encoded = rectanglelabels.encode(TAG, prediction(list(boxes), [0] * 5, [0.9] * 5), ("car", "b", "c"), 0.5, "k")
    assert [[item.value[name] for name in ("x", "y", "width", "height")] for item in encoded] == [[0, 0, 20, 50]]


def test_ids_are_stable_and_tell_tasks_tags_and_detections_apart() -> None:
    predicted = prediction([(0, 0, 10, 10)] * 2, [0, 0], [0.9, 0.6])
    other_tag = dataclasses.replace(TAG, from_name="other")
    args = predicted, ("car", "b", "c"), 0.5
    ids = [item.id for tag in (TAG, other_tag) for key in "ab" for item in rectanglelabels.encode(tag, *args, key)]
    assert len(set(ids)) == 8
    assert all(len(item) == 10 for item in ids)
    higher = rectanglelabels.encode(TAG, predicted, ("car", "b", "c"), 0.8, "a")
    assert [item.id for item in higher] == ids[:1]


# Decode


def test_decode_gives_normalised_centres() -> None:
    assert tags.decode(TAG, [region()]) == (LabeledBox("CAR", (0.25, 0.4, 0.3, 0.4)),)


def test_two_labels_on_a_region_are_two_boxes() -> None:
    assert [box.label for box in tags.decode(TAG, [region(["CAR", "Person"])])] == ["CAR", "Person"]


def test_other_tags_relations_and_per_region_answers_are_ignored() -> None:
    result = [
        region(from_name="other"),
        region(from_name="rect", type="rectangle"),
        region(from_name="note", type="textarea", value={"text": ["hi"]}),
        {"type": "relation", "from_id": "r1", "to_id": "r2", "direction": "right", "labels": []},
        {"type": "rating", "from_name": "stars", "to_name": "image", "value": {"rating": 3}},
        region(meta={"text": ["note"]}, parentID="x", origin="prediction", score=0.3, locked=True),
    ]
    assert len(tags.decode(TAG, result)) == 1
    assert tags.explain(TAG, result) == ()


def test_a_rotated_region_becomes_its_hull_inside_the_image() -> None:
    (box,) = tags.decode(TAG, [region(box=(50, 50, 10, 20), rotation=90)])
    assert box.xywh == pytest.approx((0.45, 0.6, 0.1, 0.2), abs=1e-12)
    (cut,) = tags.decode(TAG, [region(box=(5, 50, 10, 20), rotation=90)])
    assert cut.xywh == pytest.approx((0.025, 0.6, 0.05, 0.2), abs=1e-12)


def test_a_region_that_sticks_out_is_clipped() -> None:
    (box,) = tags.decode(TAG, [region(box=(-10, 90, 30, 20))])
    assert box.xywh == pytest.approx((0.1, 0.95, 0.2, 0.1), abs=1e-12)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(["Dog"]), "region r1 has the label 'Dog', which is not in the label config"),
        (region(["car"]), "not in the label config"),
        (region([None]), "not in the label config"),
        (region([]), "has no label"),
        (region(value=None), "has no label"),
        (region(value={"rectanglelabels": ["CAR"]}), "no usable x, y"),
        (region(box=("1", 2, 3, 4)), "no usable x, y"),
        (region(box=(float("nan"), 2, 3, 4)), "no usable x, y"),
        (region(rotation=None), "no usable x, y"),
        (region(box=(10, 10, 0, 5)), "no area"),
        (region(box=(10, 10, -5, 5)), "no area"),
        (region(box=(120, 10, 5, 5)), "no area"),
        (region(rotation=30, original_width=None), "original_width"),
        (region(rotation=30, original_height=0), "original_width"),
        (region(rotation=30, original_width=1e-320), "original_width"),  # not a number of pixels
    ],
)
def test_what_is_left_out_is_explained(item: dict[str, Any], reason: str) -> None:
    assert tags.decode(TAG, [item]) == ()
    (explained,) = tags.explain(TAG, [item])
    assert reason in explained


def test_the_known_label_of_a_region_survives_an_unknown_one() -> None:
    result = [region(["Dog", "Person"])]
    assert [box.label for box in tags.decode(TAG, result)] == ["Person"]
    assert len(tags.explain(TAG, result)) == 1


# Rotated boxes

OBB = dataclasses.replace(TAG, task="obb")


def test_the_corners_of_a_rotated_region_are_kept() -> None:
    (box,) = tags.decode(OBB, [region(box=(50, 50, 10, 20), rotation=90)])
    assert box.xywh == pytest.approx((0.45, 0.6, 0.1, 0.2), abs=1e-12)
    np.testing.assert_allclose(box.outline, [[(0.5, 0.5), (0.5, 0.7), (0.4, 0.7), (0.4, 0.5)]], atol=1e-12)


def test_the_hull_of_a_rotated_region_is_that_of_its_part_inside() -> None:
    (box,) = tags.decode(OBB, [region(box=(5, 50, 10, 20), rotation=90)])
    assert box.xywh == pytest.approx((0.025, 0.6, 0.05, 0.2), abs=1e-12)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(["Dog"]), "the label 'Dog', which is not in the label config"),
        (region(box=(10, 10, 0, 5), rotation=30), "no area"),
        (region(box=(10, 10, 5, 0)), "no area"),
        (region(box=(10, 10, -5, -5)), "no area"),
        (region(box=(120, 10, 5, 5), rotation=10), "no area"),
        (region(box=(44.6, 58.1, 36.6, 19.9), rotation=167.8, original_height=2**63), "no area"),  # a line
        (region(rotation=30, original_width=None), "original_width"),
        (region(rotation="30"), "no usable x, y"),
    ],
)
def test_rotated_regions_that_are_left_out_are_explained(item: dict[str, Any], reason: str) -> None:
    assert tags.decode(OBB, [item]) == ()
    (explained,) = tags.explain(OBB, [item])
    assert reason in explained


def test_a_model_for_upright_boxes_answers_for_a_rotated_tag_meanwhile() -> None:
    (encoded,) = rectanglelabels.encode(OBB, prediction([(20, 10, 60, 30)], [0], [0.75]), ("Car", "x", "y"), 0.5, "7")
    assert (encoded.value["x"], encoded.value["width"], encoded.value["rotation"]) == (10, 20, 0)


def turned(*ranges: tuple[float, float]) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*(st.floats(low, high, width=32) for low, high in ranges))


INSIDE = turned((0.4375, 0.5625), (0.4375, 0.5625), (0.125, 0.375), (0.125, 0.375), (-4, 4))
ANYWHERE = turned((-1, 2), (-1, 2), (0.0078125, 3), (0.0078125, 3), (-4, 4))


@settings(deadline=None)
@given(st.lists(INSIDE, max_size=5), st.integers(800, 1000), st.integers(800, 1000))
def test_decode_undoes_encode_of_rotated_boxes(drawn: list[tuple[float, ...]], width: int, height: int) -> None:
    rotated, sent = sent_rotated(drawn, width, height)
    decoded = tags.decode(OBB, sent)
    expected = coordinates.corners_of(rotated) / (width, height)
    corners = np.array([box.outline[0] for box in decoded]).reshape(-1, 4, 2)
    np.testing.assert_allclose(corners, expected, rtol=0, atol=1e-9)
    assert [box.label for box in decoded] == [TAG.labels[place % 2] for place in range(len(drawn))]


def sent_rotated(drawn: list[tuple[float, ...]], width: int, height: int) -> tuple[Any, list[dict[str, Any]]]:
    """Return rotated boxes (n, 5), drawn as shares of the image, and their encoded regions."""
    scale = (width, height, width, height, 1)
    rotated = np.array(drawn, dtype=np.float32).reshape(-1, 5) * np.array(scale, dtype=np.float32)
    hulls: list[tuple[float, ...]] = [(0, 0, width, height)] * len(drawn)
    kinds = [place % 2 for place in range(len(drawn))]
    predicted = prediction(hulls, kinds, [0.9] * len(drawn), of=2, size=(width, height))
    predicted = dataclasses.replace(predicted, rotated=rotated)
    regions = rectanglelabels.encode(OBB, predicted, TAG.labels, 0.5, "k")
    return rotated, [json.loads(json.dumps(item.as_json())) for item in regions]


@settings(deadline=None)
@given(ANYWHERE, st.integers(1, 10_000), st.integers(1, 10_000))
def test_label_studio_would_take_any_rotated_box(drawn: tuple[float, ...], width: int, height: int) -> None:
    rotated, sent = sent_rotated([drawn], width, height)
    corners = (coordinates.corners_of(rotated)[0] / (width, height)).tolist()
    inside = coordinates.ring_area(coordinates.clip_ring(tuple((x, y) for x, y in corners)))
    assert len(sent) == (inside > 0)
    for item in sent:
        assert all(item["value"][name] <= 100 for name in ("x", "y", "width", "height"))
        assert 0 <= item["value"]["rotation"] <= 360


@pytest.mark.parametrize(
    ("box", "size", "value"),
    [
        # An upright pole, 300 px long, in a portrait of 100 × 400: its length is three times the width.
        ((50, 200, 300, 20, math.pi / 2), (100, 400), (60, 87.5, 20, 75, 180)),
        # Its first two corners are right of the image, so the third one is written as its top-left corner.
        ((195, 50, 40, 20, math.pi / 2), (200, 100), (92.5, 70, 20, 20, 270)),
        # For every corner it is longer than the image is wide, so it is cut at the border.
        ((100, 50, 400, 20, 0), (200, 100), (0, 40, 100, 20, 0)),
        # It is longer than the image and lies inside, so both ends are shortened.
        ((50, 50, 130, 1, math.pi / 4), (100, 100), (14.998, 14.291, 100, 1, 45)),
    ],
)
def test_a_rotated_box_is_written_as_label_studio_takes_it(
    box: tuple[float, ...], size: tuple[int, int], value: tuple[float, ...]
) -> None:
    width, height = size
    (sent,) = sent_rotated([tuple(np.array(box) / (width, height, width, height, 1))], width, height)[1]
    written = [sent["value"][name] for name in ("x", "y", "width", "height", "rotation")]
    assert written == pytest.approx(value, abs=1e-3)


# Round trip

edges = st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)).map(sorted).filter(lambda e: e[1] - e[0] > 1e-3)


@settings(deadline=None)
@given(st.lists(st.tuples(edges, edges, st.integers(0, 1)), max_size=5), st.integers(1, 10_000), st.integers(1, 10_000))
def test_decode_undoes_encode(drawn: list[tuple[list[float], list[float], int]], width: int, height: int) -> None:
    boxes: list[tuple[float, ...]] = [(x[0] * width, y[0] * height, x[1] * width, y[1] * height) for x, y, _ in drawn]
    predicted = prediction(boxes, [label for *_, label in drawn], [0.9] * len(drawn), of=2, size=(width, height))
    regions = rectanglelabels.encode(TAG, predicted, TAG.labels, 0.5, "k")
    decoded = tags.decode(TAG, [item.as_json() for item in regions])
    assert [box.label for box in decoded] == [TAG.labels[label] for *_, label in drawn]
    pixels = np.minimum(predicted.boxes.astype(np.float64), (width, height, width, height))
    centres, sizes = (pixels[:, :2] + pixels[:, 2:]) / 2, pixels[:, 2:] - pixels[:, :2]
    expected = np.concatenate([centres, sizes], axis=1) / (width, height, width, height)
    boxes_decoded = np.array([box.xywh for box in decoded]).reshape(-1, 4)
    np.testing.assert_allclose(boxes_decoded, expected, rtol=0, atol=1e-9)
