"""Crops of labeled images: what they show, and what they are labels of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from backend.datasets import image_crops
from backend.datasets.writer import LabeledImage, Split
from backend.types import WHOLE, LabeledBox

HERE, THERE = (0.25, 0.5, 0.1, 0.4), (0.75, 0.5, 0.2, 0.2)


def image(folder: Path, task_id: int, *boxes: LabeledBox) -> LabeledImage:
    """Return an image of 200 x 100 pixels whose red and green are the places of its pixels."""
    folder.mkdir(exist_ok=True)
    down, across = np.mgrid[0:100, 0:200]
    pixels = np.stack([across, down, np.zeros_like(down)], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{task_id}.png")
    return LabeledImage(task_id, folder / f"{task_id}.png", boxes, random=True)


def corners(crop: LabeledImage) -> list[list[int]]:
    """Return the places of the first and the last pixel of a crop."""
    pixels = np.asarray(Image.open(crop.path))
    return [pixels[0, 0, :2].tolist(), pixels[-1, -1, :2].tolist()]


def test_a_crop_shows_a_tenth_of_the_longer_side_around_its_box(tmp_path: Path) -> None:
    drawn = image(tmp_path, 5, LabeledBox("old", HERE), LabeledBox("young", THERE))
    first, second = image_crops.cut([drawn], tmp_path / "crops")
    assert (first.name, first.boxes) == ("5-1", (LabeledBox("old", WHOLE),))
    assert (second.name, second.boxes) == ("5-2", (LabeledBox("young", WHOLE),))
    assert corners(first) == [[36, 26], [63, 73]]  # the box has 40 … 60 and 30 … 70
    assert corners(second) == [[126, 36], [173, 63]]


def test_several_answers_about_one_box_are_labels_of_one_crop(tmp_path: Path) -> None:
    drawn = image(tmp_path, 5, LabeledBox("old", HERE), LabeledBox("calm", HERE))
    (crop,) = image_crops.cut([drawn], tmp_path / "crops")
    assert [box.label for box in crop.boxes] == ["old", "calm"]


def test_all_crops_of_an_image_are_in_its_part(tmp_path: Path) -> None:
    boxes = LabeledBox("old", HERE), LabeledBox("young", THERE)
    split = Split((image(tmp_path, 1, *boxes),), (image(tmp_path, 2, *boxes),), held_out=True)
    crops = image_crops.cut_split(split, tmp_path / "crops")
    assert ([crop.name for crop in crops.train], [crop.name for crop in crops.val]) == (["1-1", "1-2"], ["2-1", "2-2"])
    assert crops.learned_tasks == {1}
    assert crops.held_out_tasks == {2}
    both = image_crops.cut_split(split.whole(), tmp_path / "crops")
    assert both.val == both.train
    assert not both.held_out


def test_an_image_without_labels_has_no_crops(tmp_path: Path) -> None:
    assert image_crops.cut([image(tmp_path, 1)], tmp_path / "crops") == ()
