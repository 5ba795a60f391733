"""Thumbnails are the mean colours of an image's parts, and find near-duplicates among real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backend.acquisition import duplicates
from backend.acquisition.pool import Pool
from backend.datasets import reader, synthetic
from backend.types import ByteArray
from backend.yolo import thumbnails
from backend.yolo.letterbox import read_pixels
from tests.support import ROOT, require

pytestmark = pytest.mark.torch


def batch_of(*pictures: ByteArray) -> torch.Tensor:
    """Return pictures (h, w, 3) of one size as a batch (B, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 64), (480, 640)])
def test_the_mean_of_each_part(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    boxed = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BOX)).astype(np.int64)
    ours = thumbnails.thumbnails(batch_of(pixels)).reshape(1, 3, 8, 8)[0].transpose(1, 2, 0)
    assert np.abs(ours - boxed).max() <= 1  # they round differently


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 9)])
def test_an_image_smaller_than_its_thumbnail(size: tuple[int, int]) -> None:
    values = thumbnails.thumbnails(batch_of(np.full((*size, 3), 99, dtype=np.uint8), np.full((*size, 3), 7, np.uint8)))
    assert values.tolist() == [[99] * 192, [7] * 192]


def test_a_video_looks_like_the_mean_of_its_frames() -> None:
    assert thumbnails.mean(np.array([3, 5, 510]), 2).tolist() == [2, 2, 255]
    assert thumbnails.mean(np.zeros(0, dtype=np.int64), 0).tolist() == []


def again(paths: Sequence[Path]) -> list[bool]:
    """Return for each image whether it is a near-duplicate of an earlier one."""
    looks = np.concatenate([thumbnails.thumbnails(batch_of(read_pixels(path))) for path in paths])
    n = len(paths)
    pool = Pool(np.arange(n), np.zeros(n + 1, np.int64), np.zeros((0, 1), np.float32), {"thumbnails": looks})
    repeats = duplicates.repeats(pool, np.arange(n), -np.arange(float(n)), np.random.default_rng(0))
    return [bool(repeat) for repeat in repeats]


def test_of_repeated_scenes_nearly_all_copies_are_found(tmp_path: Path) -> None:
    """The pool has five copies of each scene, moved, lighter or darker, and noisy; then images without a copy."""
    root = synthetic.generate(tmp_path, pool=400, test=1, seed=3, copies=5, foreign=0.1).parent
    repeats = again([root / line for line in (root / "pool.txt").read_text().splitlines()])
    copies, strangers = np.array(repeats[:360]).reshape(72, 5), repeats[360:]
    assert not copies[:, 0].any()
    assert not any(strangers)
    assert copies[:, 1:].mean() > 0.9


def test_of_real_pictures_those_of_one_place_are_found_and_no_others() -> None:
    """BCCD has two places of its slides twice, photographed again with a shift; other images only look alike."""
    data_yaml = ROOT.parent / "shared/data/bccd/data.yaml"
    require(data_yaml.is_file(), "the BCCD data set is not at ../shared/data/bccd")
    data = reader.read(data_yaml, "detect")
    paths = sorted(image.path for image in (*data.train, *data.val, *data.test))
    twice = [path.stem for path, repeat in zip(paths, again(paths), strict=True) if repeat]
    assert twice == ["BloodImage_00038", "BloodImage_00391"]
