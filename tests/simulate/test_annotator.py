"""The results of the scripted annotator are read back as the original labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets.reader import LabeledFile
from backend.errors import NotFoundError
from backend.labelstudio import tags
from backend.simulate import annotator
from backend.simulate.annotator import Oracle
from backend.types import WHOLE, ControlTag, LabeledBox, Task, YoloTask
from tests import drawings

SIZE = (400, 100)  # width, height
TAG = ControlTag(
    kind="rectanglelabels",
    from_name="label",
    to_name="image",
    data_key="image",
    labels=("red", "blue"),
    class_to_label={"red": "red", "blue": "blue"},
)
BOX = LabeledBox("blue", (0.5, 0.5, 0.25, 0.5))
KINDS: dict[YoloTask, str] = {"segment": "polygonlabels", "pose": "keypointlabels", "classify": "choices"}


def tag(task: YoloTask) -> ControlTag:
    points = ("head", "tail") if task == "pose" else ()
    kind = KINDS.get(task, TAG.kind)
    return dataclasses.replace(TAG, kind=kind, task=task, points=points, parent="box", multiple=task == "classify")


def back(task: YoloTask, *boxes: LabeledBox) -> tuple[LabeledBox, ...]:
    """Return the annotator's labels as they are read back from Label Studio's format."""
    result = json.loads(json.dumps(annotator.as_result(tag(task), boxes, SIZE)))
    assert tags.explain(tag(task), result) == ()
    return tags.decode(tag(task), result)


def test_boxes_come_back() -> None:
    assert back("detect", BOX, dataclasses.replace(BOX, label="red")) == (BOX, dataclasses.replace(BOX, label="red"))
    assert back("detect") == ()


@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_rotated_boxes_come_back(degrees: int) -> None:
    angle = np.radians(degrees)
    across, down = np.array([np.cos(angle), np.sin(angle)]) * 30, np.array([-np.sin(angle), np.cos(angle)]) * 10
    middle = np.array([200, 50])
    corners = np.array([middle - across - down, middle + across - down, middle + across + down, middle - across + down])
    outline = tuple((float(x), float(y)) for x, y in corners / SIZE)
    (label,) = back("obb", dataclasses.replace(BOX, outline=(outline,)))
    assert label.label == "blue"
    distances = np.linalg.norm(corners[:, None] - (np.array(label.outline[0]) * SIZE)[None], axis=2)
    assert distances.min(axis=0).max() < 1e-3  # pixels; in another order perhaps
    assert distances.min(axis=1).max() < 1e-3


def test_another_quadrilateral_becomes_the_smallest_rectangle_around_it() -> None:
    crooked = ((0.25, 0.25), (0.5, 0.25), (0.5, 0.75), (0.3, 0.75))
    (label,) = back("obb", dataclasses.replace(BOX, outline=(crooked,)))
    np.testing.assert_allclose(label.xywh, (0.375, 0.5, 0.25, 0.5), atol=1e-5)
    assert len(label.outline[0]) == 4


def test_outlines_come_back() -> None:
    ring = ((0.1, 0.2), (0.6, 0.2), (0.6, 0.9), (0.3, 0.4))
    (label,) = back("segment", dataclasses.replace(BOX, outline=(ring,)))
    np.testing.assert_allclose(label.outline[0], ring)
    np.testing.assert_allclose(label.xywh, (0.35, 0.55, 0.5, 0.7))


def test_points_come_back_under_their_own_boxes() -> None:
    first = dataclasses.replace(BOX, keypoints=((0.5, 0.25, 2), (0.25, 0.75, 1)))
    second = dataclasses.replace(BOX, label="red", keypoints=((0.0, 0.0, 0), (0.5, 0.5, 2)))
    assert back("pose", first, second) == (first, second)


def test_classes_come_back() -> None:
    chosen = (LabeledBox("blue", WHOLE), LabeledBox("red", WHOLE))
    assert back("classify", *chosen) == chosen
    assert back("classify", chosen[0]) == chosen[:1]
    assert annotator.as_result(tag("classify"), ()) == []


@pytest.mark.parametrize("turned", [False, True])
def test_a_rotated_box_is_drawn_on_the_image_as_it_is_shown(turned: bool, tmp_path: Path) -> None:
    (picture,) = drawings.pictures(tmp_path, drawings.bar, 1, seed=0)
    path = tmp_path / "shown.jpg"
    with Image.open(picture.path) as image:
        exif = Image.Exif()
        exif[0x0112] = 6 if turned else 1  # the camera was held upright
        stored = image.transpose(Image.Transpose.ROTATE_90) if turned else image
        stored.save(path, exif=exif)
    (region, _) = annotator.annotated(tag("obb"), LabeledFile(path, picture.boxes))
    assert (region["original_width"], region["original_height"]) == drawings.SIZE
    true = np.array(picture.boxes[0].outline[0]) * drawings.SIZE
    corners = np.array(tags.decode(tag("obb"), [region])[0].outline[0]) * drawings.SIZE
    assert np.linalg.norm(true[:, None] - corners[None], axis=2).min(axis=1).max() < 1e-3


def test_tasks_are_known_by_file_name() -> None:
    oracle = Oracle([LabeledFile(Path("pool/a.png"), (BOX,))])
    task = Task(7, {"image": "/data/upload/1/0a1b2c3d-a.png"})
    assert oracle.boxes(TAG, task) == (BOX,)
    assert tags.decode(TAG, oracle.answer(TAG, task)) == (BOX,)
    with pytest.raises(NotFoundError, match=r"no true labels are known for b\.png"):
        oracle.answer(TAG, Task(8, {"image": "/data/b.png"}))
