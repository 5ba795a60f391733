"""COCO files: what they hold becomes labels, and an image with what cannot be read is left out with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.datasets import coco, coco_reader
from backend.datasets.coco import CocoImage
from backend.errors import DataError
from backend.labelstudio import label_config
from backend.types import Json, LabeledBox

CLASSES = ("cat", "dog")
CONFIG = (
    '<View><Image name="image" value="$image"/><{0} name="label" toName="image">'
    '<Label value="cat"/><Label value="dog"/></{0}></View>'
)


def written(folder: Path, **changes: Any) -> Path:
    """Write a COCO file of one image, as Label Studio exports it."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a.jpg").write_bytes(b"")
    document: Json = {
        "images": [{"id": 0, "width": 200, "height": 100, "file_name": "images\\a.jpg"}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "segmentation": [], "bbox": [20, 10, 40, 50]}],
        **changes,
    }
    path = folder / "result.json"
    path.write_text(json.dumps(document))
    return path


def test_boxes(tmp_path: Path) -> None:
    data = coco_reader.read(written(tmp_path), "detect")
    assert data.classes == CLASSES
    (file,) = data.files
    assert file.path == tmp_path / "images" / "a.jpg"
    (box,) = file.boxes
    assert box.label == "dog"
    assert box.xywh == pytest.approx((0.2, 0.35, 0.2, 0.5))
    assert data.notes == ()


def test_outlines_and_boxes_in_their_place(tmp_path: Path) -> None:
    triangle = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 100, 50], "segmentation": [[0, 0, 100, 0, 100, 50]]}
    bare = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 100, 50]}
    (file,) = coco_reader.read(written(tmp_path, annotations=[triangle, bare]), "segment").files
    assert [box.outline for box in file.boxes] == [
        (((0, 0), (0.5, 0), (0.5, 0.5)),),
        (((0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)),),
    ]


def test_what_our_own_export_writes_is_read_again(tmp_path: Path) -> None:
    (tag,) = label_config.parse(CONFIG.format("PolygonLabels"))
    ring = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.5))
    label = LabeledBox("dog", (0.5, 0.375, 0.5, 0.25), outline=(ring,))
    (tmp_path / "b.jpg").write_bytes(b"")
    document = coco.document([CocoImage("b.jpg", 200, 100, 1, 0, (label,))], tag, "")
    (tmp_path / "coco.json").write_text(json.dumps(document))
    (file,) = coco_reader.read(tmp_path / "coco.json", "segment").files
    assert file.boxes == (label,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": [{"id": 0, "width": 200, "height": 100, "file_name": "b.jpg"}]}, "the image is missing"),
        ({"images": [{"id": 0, "width": 0, "height": 100, "file_name": "a.jpg"}]}, "width or height"),
        ({"categories": []}, "has the category 1"),
    ],
)
def test_an_image_with_what_cannot_be_read_is_left_out(tmp_path: Path, changes: Json, reason: str) -> None:
    data = coco_reader.read(written(tmp_path, **changes), "detect")
    assert data.files == ()
    (note,) = data.notes
    assert reason in note


def test_no_file_outside_of_the_folder_is_taken(tmp_path: Path) -> None:
    """The name leads to a file that exists above the folder; only the folder's own files count."""
    folder = tmp_path / "export"
    folder.mkdir()
    for name in ("a.jpg", "secret.jpg"):
        (tmp_path / name).write_bytes(b"")
    images = [
        {"id": place, "width": 9, "height": 9, "file_name": f"../{name}"}
        for place, name in enumerate(("a.jpg", "secret.jpg"))
    ]
    data = coco_reader.read(written(folder, images=images, annotations=[]), "detect")
    assert [file.path for file in data.files] == [folder / "images" / "a.jpg"]
    (note,) = data.notes
    assert "secret.jpg" in note


def test_a_mask_in_run_lengths_is_told(tmp_path: Path) -> None:
    mask = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9], "segmentation": {"counts": [1], "size": [1, 1]}}
    data = coco_reader.read(written(tmp_path, annotations=[mask]), "segment")
    assert data.files == ()
    assert "a mask in run lengths" in data.notes[0]


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', "{"])
def test_another_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a COCO file"):
        coco_reader.read(path, "detect")
