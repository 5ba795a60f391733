"""Thumbnails: the mean colours of an image's parts, and near-copies among real pictures by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from backend import thumbnails, yolo_data
from backend.acquisition import duplicates
from backend.letterbox import read_pixels
from backend.types import ByteArray
from tests.support import ROOT, require
from tests.test_acquisition import make_pool


def batch_of(*pictures: ByteArray) -> torch.Tensor:
    """Return pictures (h, w, 3) of one size as a model gets them."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 64), (480, 640)])
def test_the_mean_of_each_part(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    boxed = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BOX)).astype(np.int64)
    ours = thumbnails.thumbnails(batch_of(pixels)).reshape(1, 3, 8, 8)[0].transpose(1, 2, 0)
    assert np.abs(ours - boxed).max() <= 1  # they round differently


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 9)])
def test_an_image_smaller_than_its_thumbnail(size: tuple[int, int]) -> None:
    found = thumbnails.thumbnails(batch_of(np.full((*size, 3), 99, dtype=np.uint8), np.full((*size, 3), 7, np.uint8)))
    assert found.tolist() == [[99] * 192, [7] * 192]


def test_a_video_looks_like_the_mean_of_its_frames() -> None:
    assert thumbnails.mean(np.array([3, 5, 510]), 2).tolist() == [2, 2, 255]
    assert thumbnails.mean(np.zeros(0, dtype=np.int64), 0).tolist() == []


def test_of_real_pictures_those_of_one_place_are_found_and_no_others() -> None:
    """BCCD shows two places of its slides twice, taken anew with a shift; all cells look alike otherwise."""
    data_yaml = ROOT.parent / "shared/data/bccd/data.yaml"
    require(data_yaml.is_file(), "the BCCD data set is not at ../shared/data/bccd")
    data = yolo_data.read(data_yaml, "detect")
    paths = sorted(image.path for image in (*data.train, *data.val, *data.test))
    looks = np.concatenate([thumbnails.thumbnails(batch_of(read_pixels(path))) for path in paths])
    n = len(paths)
    pool = make_pool(images=n)
    pool = type(pool)(pool.task_ids, pool.offsets, pool.class_probs, thumbnails=looks)
    again = duplicates.repeats(pool, np.arange(n), -np.arange(float(n)), np.random.default_rng(0))
    assert [path.stem for path, twice in zip(paths, again, strict=True) if twice] == [
        "BloodImage_00038",
        "BloodImage_00391",
    ]
