"""Polygons are read, written, traced around masks, and learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from backend.datasets import writer
from backend.geometry import coordinates
from backend.labelstudio import tags
from backend.types import Outline, Prediction, Ring
from backend.yolo.decoding import SIMPLIFY, outline_of
from tests import drawings

pytestmark = pytest.mark.torch

TAG = drawings.control_tag("polygonlabels", "segment")
SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]
HOLE = [[15, 15], [20, 15], [20, 20]]


def region(points: Any = SQUARE, labels: Any = ("red",), **item: Any) -> dict[str, Any]:
    value = {"points": points, "closed": True, "polygonlabels": list(labels)}
    base = {"id": "r1", "type": "polygonlabels", "from_name": "label", "to_name": "image", "value": value}
    return base | {"original_width": 200, "original_height": 100, "image_rotation": 0} | item


def without_value(**item: Any) -> dict[str, Any]:
    return {"id": "r2", "type": "polygonlabels", "from_name": "label", "to_name": "image"} | item


def prediction(outlines: tuple[Outline, ...] | None, width: int = 200, height: int = 100, n: int = 1) -> Prediction:
    return drawings.prediction(n, width, height, outlines=outlines)


def painted(ring: Ring, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return the mask (height, width) of the pixels that a ring encloses."""
    import cv2

    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.array([(x * width, y * height) for x, y in ring]).round().astype(np.int32)], [1])
    return mask.astype(bool)


def test_decode_gives_shares_of_the_image_and_the_hull() -> None:
    (label,) = tags.decode(TAG, [region()])
    np.testing.assert_allclose(label.outline, [[(0.1, 0.1), (0.3, 0.1), (0.3, 0.3), (0.1, 0.3)]])
    assert label.xywh == pytest.approx((0.2, 0.2, 0.2, 0.2))
    assert label.label == "red"


def test_the_hull_is_that_of_the_part_inside() -> None:
    (label,) = tags.decode(TAG, [region([[-10, 10], [30, 10], [30, 30], [-10, 30]])])
    assert label.xywh == pytest.approx((0.15, 0.2, 0.3, 0.2))
    assert label.outline[0][0] == pytest.approx((-0.1, 0.1))


def test_polygons_under_a_polygon_are_parts_of_it() -> None:
    tree = [region(HOLE, id="r2", parentID="r1"), region(), region(HOLE, id="r3", parentID="r2"), region(id="r4")]
    labels = tags.decode(TAG, tree)
    assert [len(label.outline) for label in labels] == [3, 1]
    assert labels[0].outline[0] == labels[1].outline[0]
    assert tags.explain(TAG, tree) == ()


def test_a_polygon_of_another_label_under_one_is_an_object_of_its_own() -> None:
    """A window that is a child of a house is no hole in the house."""
    separate = tags.decode(
        TAG, [region(), region(HOLE, ["blue"], id="r2", parentID="r1"), region(HOLE, id="r3", parentID="r2")]
    )
    assert [(label.label, len(label.outline)) for label in separate] == [("red", 1), ("blue", 1), ("red", 1)]
    both = tags.decode(TAG, [region(labels=["red", "blue"]), region(HOLE, ["blue"], id="r2", parentID="r1")])
    assert [(label.label, len(label.outline)) for label in both] == [("red", 2), ("blue", 2)]


def test_a_part_of_a_polygon_outside_the_image_is_learned() -> None:
    (label,) = tags.decode(TAG, [region([[110, 1], [120, 2], [130, 30]]), region(id="r2", parentID="r1")])
    assert label.xywh == pytest.approx((0.2, 0.2, 0.2, 0.2))


@pytest.mark.parametrize("id_", [7, 0, None, [1], ""])
def test_a_polygon_counts_whatever_its_id_is(id_: Any) -> None:
    """Imported annotations have ids of any kind, which Label Studio keeps until someone submits them."""
    (label,) = tags.decode(TAG, [region(id=id_)])
    assert label.label == "red"
    assert tags.explain(TAG, [region(id=id_)]) == ()
    part = tags.decode(TAG, [region(id=7), region(HOLE, id=id_, parentID="7")])
    assert [len(region_label.outline) for region_label in part] == [1, 1] if id_ == 7 else [2]


def test_a_parent_of_another_tag_is_none() -> None:
    (label,) = tags.decode(TAG, [region(parentID="box")])
    assert len(label.outline) == 1


def test_polygons_that_are_each_others_parts_are_one_object() -> None:
    (label,) = tags.decode(TAG, [region(id="a", parentID="b"), region(HOLE, id="b", parentID="a")])
    assert len(label.outline) == 2


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([region([[1, 1], [2, 2]])], "region r1 has fewer than 3 points"),
        ([region(None)], "fewer than 3 points"),
        ([region([[1, 1], [2, 2], [3, "x"]])], "not two numbers"),
        ([region([[1, 1], [2, 2], 3])], "not two numbers"),
        ([region([[1, 1], [2, 2], [3, float("nan")]])], "not two numbers"),
        ([region([[1, 1], [2, 2], [3, 3]])], "no area"),
        ([region([[110, 1], [120, 2], [130, 30]])], "no area"),
        ([region(labels=["green"])], "the label 'green', which is not in the label config"),
        ([region(labels=[])], "has no label"),
        ([region(value=None)], "has no label"),
        ([region(), region([[1, 1]], id="r2", parentID="r1")], "its part region r2 has fewer than 3 points"),
        ([region(), without_value(parentID="r1")], "its part region r2 has fewer than 3 points"),
        ([region([[1, 1], [2, 2], [1e308, -1e308]])], "not two numbers"),
    ],
)
def test_what_is_left_out_is_explained(items: list[dict[str, Any]], reason: str) -> None:
    assert tags.decode(TAG, items) == ()
    (explained,) = tags.explain(TAG, items)
    assert reason in explained


def test_an_object_without_an_outline_is_not_sent() -> None:
    assert tags.encode(TAG, prediction(((),)), TAG.labels, 0.5, "k") == ()


def test_a_model_for_boxes_answers_with_boxes_meanwhile() -> None:
    (sent,) = tags.encode(TAG, prediction(None), TAG.labels, 0.5, "k")
    assert sent.value["points"] == [[0, 0], [100, 0], [100, 100], [0, 100]]


rings = st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=3, max_size=9).filter(
    lambda points: coordinates.ring_area(tuple(points)) > 1e-3
)


@settings(deadline=None)
@given(st.lists(st.lists(rings, min_size=1, max_size=3), max_size=3), st.integers(1, 10_000), st.integers(1, 10_000))
def test_decode_undoes_encode(drawn: list[list[list[tuple[float, float]]]], width: int, height: int) -> None:
    outlines = tuple(
        tuple(np.array(ring, np.float32) * np.array([width, height], np.float32) for ring in rings) for rings in drawn
    )
    shapes = prediction(outlines, width, height, len(drawn))
    sent = [json.loads(json.dumps(region.as_json())) for region in tags.encode(TAG, shapes, TAG.labels, 0.5, "k")]
    decoded = {item["id"]: tags.decode(TAG, [item]) for item in sent}
    assert len(decoded) == len(drawn)
    for place, (outline, labels) in enumerate(zip(outlines, decoded.values(), strict=True)):
        pixels = [tuple((float(x), float(y)) for x, y in ring) for ring in outline]
        expected = np.array(coordinates.bridged(pixels)) / (width, height)
        for label in labels:  # none where the bridges cancel the area
            np.testing.assert_allclose(label.outline[0], expected, rtol=0, atol=1e-9)
            assert label.label == TAG.labels[place % 2]
        assert labels or len(outline) > 1


def test_one_ring_encloses_what_parts_and_holes_do() -> None:
    body, hole = ((0.1, 0.1), (0.6, 0.1), (0.6, 0.9), (0.1, 0.9)), ((0.2, 0.3), (0.5, 0.3), (0.5, 0.6), (0.2, 0.6))
    apart = ((0.7, 0.2), (0.9, 0.2), (0.9, 0.8))
    joined = painted(coordinates.bridged([body, hole, apart]), 400, 400)
    expected = (painted(body, 400, 400) ^ painted(hole, 400, 400)) | painted(apart, 400, 400)
    assert (joined != expected).sum() < 0.02 * expected.sum()  # the borders and the bridges, a pixel wide


def test_the_outline_of_a_mask_is_near_its_border_with_few_points() -> None:
    picture = Image.new("L", (160, 120))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((10, 10, 110, 100), fill=1)
    pen.ellipse((40, 40, 70, 70), fill=0)
    pen.rectangle((130, 20, 150, 60), fill=1)
    mask = np.array(picture, np.uint8)
    outline = outline_of(mask)
    assert len(outline) == 3
    assert sum(map(len, outline)) < 80  # of 480 pixels at the border
    ring = coordinates.bridged(
        [tuple((float(x) / 160, float(y) / 120) for x, y in ring_pixels - 0.5) for ring_pixels in outline]
    )
    again = painted(ring, 160, 120)
    assert (again & mask.astype(bool)).sum() / (again | mask.astype(bool)).sum() > 0.98


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_an_outline_is_simplified_by_no_more_than_is_said(seed: int, blobs: int) -> None:
    """docs/label_config.md promises 1.3 pixels, except where a mask is one pixel wide."""
    import cv2

    rng, square = np.random.default_rng(seed), np.ones((2, 2), np.uint8)
    rows, columns = np.mgrid[:48, :64]
    mask = np.zeros((48, 64), np.uint8)
    for x, y, a, b in rng.uniform((5, 5, 4, 4), (59, 43, 25, 18), (blobs, 4)):  # pixels in two ellipses are a hole
        mask ^= (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1).astype(np.uint8)
    for wide in (cv2.MORPH_OPEN, cv2.MORPH_CLOSE):
        mask = cv2.morphologyEx(mask, wide, square).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [ring - np.float32(0.5) for ring in outline_of(mask)]
    for border in sorted(contours, key=len, reverse=True)[: len(rings)]:
        if len(cv2.approxPolyDP(border, SIMPLIFY, True)) >= 3:
            assert min(farthest(border[:, 0], ring) for ring in rings) <= 1.3


def farthest(border: npt.NDArray[np.int32], ring: npt.NDArray[np.float32]) -> float:
    """Return the largest distance of a point of a border (k, 2) from a ring (n, 2)."""
    points, along = border[:, None].astype(np.float64), np.roll(ring, -1, axis=0) - ring
    share = ((points - ring) * along).sum(axis=2) / (along**2).sum(axis=1)
    nearest = ring + share.clip(0, 1)[..., None] * along
    return float(np.linalg.norm(points - nearest, axis=2).min(axis=1).max())


def test_holes_reach_the_label_file(tmp_path: Path) -> None:
    split = drawings.split(tmp_path / "pictures", drawings.donut, train=2, val=1)
    writer.write(split, drawings.CLASSES, tmp_path / "data", "segment")
    first, second = (tmp_path / "data/labels/val/1000.txt").read_text().splitlines()
    assert {first.split()[0], second.split()[0]} == {"0", "1"}
    assert all(len(line.split()) == 1 + 2 * (24 + 24 + 2) for line in (first, second))


@pytest.mark.slow
def test_masks_are_learned(tmp_path: Path) -> None:
    metrics, pictures = drawings.learn(tmp_path, drawings.donut, TAG, epochs=40)
    assert metrics.map50 > 0.5
    assert (metrics.images, metrics.boxes) == (8, 16)

    overlaps = []
    for image, predicted in pictures:
        masks = [painted(coordinates.bridged(label.outline), *drawings.SIZE) for label in predicted]
        for label in image.boxes:
            true = painted(coordinates.bridged(label.outline), *drawings.SIZE)
            overlaps.append(max(((true & mask).sum() / (true | mask).sum() for mask in masks), default=0.0))
    print(f"median IoU of the polygons {np.median(overlaps):.2f}")
    assert np.median(overlaps) > 0.6
