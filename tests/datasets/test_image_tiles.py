"""Training images in tiles: their labels are where the objects are, and some tiles show none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets import image_tiles, writer
from backend.datasets.writer import LabeledImage, Split
from backend.types import LabeledBox

WIDTH, HEIGHT, SIDE = 300, 200, 100


def picture(folder: Path, *corners: tuple[int, int, int, int]) -> LabeledImage:
    """Return an image of noise, in which the objects with these corners (xyxy) are white."""
    pixels = np.random.default_rng(0).integers(0, 100, (HEIGHT, WIDTH, 3), np.uint8)
    boxes = []
    for left, top, right, bottom in corners:
        pixels[top:bottom, left:right] = 255
        centre = (left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT
        boxes.append(LabeledBox("dog", (*centre, (right - left) / WIDTH, (bottom - top) / HEIGHT)))
    path = folder / "7.png"
    Image.fromarray(pixels).save(path)
    return LabeledImage(7, path, tuple(boxes), random=True)


def cut(image: LabeledImage, folder: Path, side: int = SIDE) -> tuple[LabeledImage, ...]:
    return image_tiles.cut([image], side, 64, folder / "tiles")


def test_a_small_image_stays_as_it_is(tmp_path: Path) -> None:
    image = picture(tmp_path, (10, 10, 20, 20))
    assert cut(image, tmp_path, side=WIDTH) == (image,)


def test_labels_lie_on_their_objects(tmp_path: Path) -> None:
    """The objects are white: nothing else in a tile is, and each label is full of white."""
    parts = cut(picture(tmp_path, (10, 10, 20, 25), (90, 40, 108, 58), (140, 90, 160, 110)), tmp_path)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        with Image.open(part.path) as image:
            white = np.asarray(image).min(axis=2) == 255
        assert white.shape == (SIDE, SIDE)
        for box in part.boxes:
            x, y, across, down = np.array(box.xywh) * SIDE
            left, right, top, bottom = np.rint([x - across / 2, x + across / 2, y - down / 2, y + down / 2]).astype(int)
            assert white[top:bottom, left:right].all()
            white[top:bottom, left:right] = False
        assert not white.any()
    writer.write(Split(parts, parts, held_out=False), ("dog",), tmp_path / "data")  # which refuses labels outside
    assert sum(not part.boxes for part in parts) >= 1


def test_a_tile_with_a_sliver_of_an_object_is_not_learned(tmp_path: Path) -> None:
    """The second tile begins at 67, so it shows 1 of the 20 columns of the object."""
    parts = cut(picture(tmp_path, (48, 10, 68, 30)), tmp_path)
    assert {part.tile for part in parts if part.boxes} == {1}
    assert 2 not in {part.tile for part in parts}


def test_an_image_without_objects_gives_one_tile(tmp_path: Path) -> None:
    (part,) = cut(picture(tmp_path), tmp_path)
    assert part.boxes == ()
    assert part.tile


def test_an_object_that_no_tile_shows_whole_is_learned_from_the_whole_image_too(tmp_path: Path) -> None:
    image = picture(tmp_path, (20, 20, 280, 180))
    *parts, whole = cut(image, tmp_path)
    assert (whole.tile, whole.boxes) == (0, image.boxes)
    with Image.open(whole.path) as scaled:
        assert scaled.size == (64, 43)
    assert all(part.tile for part in parts)


@pytest.mark.parametrize(("labeled", "empty", "kept"), [(8, 100, 2), (1, 100, 1), (0, 100, 1), (8, 1, 1), (8, 0, 0)])
def test_empty_tiles_are_a_share_of_those_with_objects(labeled: int, empty: int, kept: int) -> None:
    shares = np.array([[1.0]] * labeled + [[0.0]] * empty, dtype=np.float32)
    learned = image_tiles.learned_tiles(shares, np.random.default_rng(0))
    assert len(learned) == labeled + kept
    assert learned[:labeled] == list(range(labeled))
