"""Coordinates in a letterboxed image are converted to those in the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import MediaError
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.runtime import quiet_ultralytics

pytestmark = pytest.mark.torch

WIDE = Letterboxed(np.zeros((64, 128, 3), dtype=np.uint8), height=100, width=200)  # no border


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    quiet_ultralytics()


def test_one_pixel_of_the_original() -> None:
    assert WIDE.gain == pytest.approx(0.64)


@pytest.mark.parametrize(
    ("boxes", "upright"),
    [
        ([[0, 0, 128, 64]], [[0, 0, 200, 100]]),
        ([[32, 16, 64, 48]], [[50, 25, 100, 75]]),
        ([[-10, 0, 200, 32]], [[0, 0, 200, 50]]),
        (np.zeros((0, 4)), np.zeros((0, 4))),
    ],
)
def test_boxes_are_scaled_back_and_clipped(boxes: list[list[float]], upright: list[list[float]]) -> None:
    letterboxed = np.asarray(boxes, dtype=np.float32)
    before = letterboxed.copy()
    np.testing.assert_allclose(WIDE.upright(letterboxed), upright, atol=1e-4)
    np.testing.assert_array_equal(letterboxed, before)


def test_borders_are_taken_off() -> None:
    square = Letterboxed(np.zeros((64, 64, 3), dtype=np.uint8), height=50, width=100)  # 16 px above and below
    np.testing.assert_allclose(square.upright(np.array([[0, 16, 64, 48]], dtype=np.float32)), [[0, 0, 100, 50]])
    np.testing.assert_allclose(square.upright_points(np.array([[32, 32]], dtype=np.float32)), [[50, 25]])
    turned = square.upright_rotated(np.array([[32, 32, 32, 16, 0.5]], dtype=np.float32))
    np.testing.assert_allclose(turned, [[50, 25, 50, 25, 0.5]])


@pytest.mark.parametrize(("columns", "visibility"), [(2, 1.0), (3, 0.25)])
def test_keypoints_without_a_visibility_are_seen(columns: int, visibility: float) -> None:
    keypoints = np.array([[[32, 16, 0.25]]], dtype=np.float32)[:, :, :columns]
    np.testing.assert_allclose(WIDE.upright_keypoints(keypoints), [[[50, 25, visibility]]], atol=1e-4)


def test_pixels_are_blue_green_red(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "image.png")
    pixels = read_pixels(tmp_path / "image.png")
    assert pixels.shape == (2, 3, 3)
    assert pixels[0, 0].tolist() == [3, 2, 1]


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    for path in (tmp_path / "text.jpg", tmp_path / "missing.png"):
        with pytest.raises(MediaError) as caught:
            read_pixels(path)
        assert str(path) in str(caught.value)
