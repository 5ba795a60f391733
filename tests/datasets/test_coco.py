"""COCO documents: boxes, polygons, masks with holes, key points, and the order of the classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.datasets import coco
from backend.datasets.coco import CocoImage
from backend.types import WHOLE, BoolArray, ControlTag, Json, LabeledBox, YoloTask

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
HOLE = ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))


def tag(task: YoloTask, **more: tuple[str, ...]) -> ControlTag:
    return ControlTag("any", "label", "image", "image", ("dog", "cat"), {}, task=task, **more)  # type: ignore[arg-type]


def only(label: LabeledBox, task: YoloTask, **more: tuple[str, ...]) -> Json:
    image = CocoImage("images/train/7.png", 100, 40, 7, 0, (label,))
    (annotation,) = coco.document([image], tag(task, **more), "test")["annotations"]
    return dict(annotation)


def decoded(segmentation: Json) -> BoolArray:
    """Return the mask of run lengths, by COCO's definition."""
    height, width = segmentation["size"]
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(width, height).T.astype(np.bool_)


def test_a_category_has_the_number_of_its_class_and_an_image_its_task() -> None:
    image = CocoImage("images/train/7-3.png", 100, 40, 7, 3, (LabeledBox("cat", (0.5, 0.5, 0.2, 0.5)),))
    document = coco.document([image], tag("detect"), "test")
    assert [(category["id"], category["name"]) for category in document["categories"]] == [(1, "dog"), (2, "cat")]
    assert document["images"] == [
        {"id": 1, "file_name": "images/train/7-3.png", "width": 100, "height": 40, "task_id": 7, "frame": 3}
    ]
    assert document["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [40, 10, 20, 20], "area": 400, "iscrowd": 0}
        | {"segmentation": []}
    ]
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("task", ["obb", "segment", "semantic"])
def test_one_ring_is_a_polygon(task: YoloTask) -> None:
    annotation = only(LabeledBox("dog", (0.5, 0.5, 0.5, 0.5), outline=(SQUARE,)), task)
    assert annotation["segmentation"] == [[25, 10, 75, 10, 75, 30, 25, 30]]
    assert annotation["area"] == 1000


def test_what_leaves_the_image_is_cut_off() -> None:
    ring = ((-0.5, 0.25), (0.5, 0.25), (0.5, 0.75), (-0.5, 0.75))
    annotation = only(LabeledBox("dog", (0.25, 0.5, 0.5, 0.5), outline=(ring,)), "obb")
    assert annotation["segmentation"] == [[0, 10, 50, 10, 50, 30, 0, 30]]


def test_a_hole_is_no_part_of_the_mask() -> None:
    annotation = only(LabeledBox("dog", (0.5, 0.5, 0.5, 0.5), outline=(SQUARE, HOLE)), "segment")
    mask = decoded(annotation["segmentation"])
    assert mask.shape == (40, 100)
    assert (mask[12, 30], mask[20, 50], mask[0, 0]) == (True, False, False)
    assert annotation["area"] == mask.sum() == 50 * 20 - 20 * 8


@given(arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_run_lengths_give_the_mask_back(mask: BoolArray) -> None:
    assert np.array_equal(decoded(coco.run_lengths(mask)), mask)


def test_key_points_are_in_pixels_and_absent_ones_are_zeros() -> None:
    label = LabeledBox("dog", (0.5, 0.5, 0.5, 0.5), keypoints=((0.5, 0.5, 2), (0.0, 0.0, 0)))
    annotation = only(label, "pose", points=("nose", "tail"))
    assert annotation["keypoints"] == [50, 20, 2, 0, 0, 0]
    assert annotation["num_keypoints"] == 1


def test_a_class_of_the_whole_image_has_a_box_around_it() -> None:
    assert only(LabeledBox("cat", WHOLE), "classify")["bbox"] == [0, 0, 100, 40]
