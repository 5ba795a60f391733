"""Rotated boxes are written for ultralytics, and learned by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.types import LabeledBox, Ring
from backend.yolo.decoding import hulls
from tests import drawings

pytestmark = pytest.mark.torch

TAG = drawings.control_tag("rectanglelabels", "obb")


def test_corners_are_written_and_cut_off_at_the_border(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"pixels")
    inside = LabeledBox("red", (0.5, 0.5, 0.2, 0.2), outline=(((0.4, 0.5), (0.5, 0.4), (0.6, 0.5), (0.5, 0.6)),))
    outside = LabeledBox("blue", (0.05, 0.5, 0.1, 0.2), outline=(((-0.1, 0.5), (0.0, 0.4), (0.1, 0.5), (0.0, 0.6)),))
    image = LabeledImage(7, path, (inside, outside), random=True)
    writer.write(Split((image,), (image,), held_out=False), ("red", "blue"), tmp_path / "data", "obb")
    first, second = (tmp_path / "data/labels/train/7.txt").read_text().splitlines()
    assert first == "0 0.400000 0.500000 0.500000 0.400000 0.600000 0.500000 0.500000 0.600000"
    kind, *numbers = second.split()
    assert kind == "1"
    assert sorted(zip(numbers[::2], numbers[1::2], strict=True)) == [
        ("0.000000", "0.400000"),
        ("0.000000", "0.400000"),
        ("0.000000", "0.600000"),
        ("0.000000", "0.600000"),
        ("0.100000", "0.500000"),
    ]


def test_the_hull_of_a_quarter_turn_has_its_sides_exchanged() -> None:
    boxes = hulls(np.array([[50, 50, 20, 10, 0], [50, 50, 20, 10, np.pi / 2]], np.float32))
    np.testing.assert_allclose(boxes, [[40, 45, 60, 55], [45, 40, 55, 60]], atol=1e-4)


@pytest.mark.slow
def test_rotated_boxes_are_learned(tmp_path: Path) -> None:
    metrics, pictures = drawings.learn(tmp_path, drawings.bar, TAG, epochs=60)
    assert metrics.map50 > 0.5
    assert (metrics.images, metrics.boxes) == (8, 16)

    errors = [_error(label.outline[0], predicted) for image, predicted in pictures for label in image.boxes]
    print(f"median error of the corners {np.median(errors):.2f} px")
    assert np.median(errors) < 4


def _error(ring: Ring, predicted: Sequence[LabeledBox]) -> float:
    """Return the mean distance in pixels of the true corners from the corners of the nearest predicted box."""
    true = np.array(ring) * drawings.SIZE
    boxes = [np.array(label.outline[0]) * drawings.SIZE for label in predicted]
    distances = [np.linalg.norm(true[:, None] - box[None], axis=2).min(axis=1).mean() for box in boxes]
    return float(min(distances, default=np.inf))
