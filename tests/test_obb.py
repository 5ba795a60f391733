"""Rotated boxes: what is written for ultralytics, and that it learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from backend import dataset, evaluation, tags, training
from backend.dataset import LabeledImage, Split
from backend.inference import load_detector
from backend.pretrained import BaseWeights
from backend.shapes import hulls
from backend.training import Hyper
from backend.types import ControlTag, LabeledBox, Ring
from tests import drawings

IMGSZ = 96
SCRATCH = BaseWeights("yolo11n-obb.yaml", pretrained=False, note="", task="obb")
TAG = ControlTag(
    kind="rectanglelabels",
    from_name="label",
    to_name="image",
    data_key="image",
    labels=drawings.CLASSES,
    class_to_label={name: name for name in drawings.CLASSES},
    task="obb",
)


def test_corners_are_written_and_cut_off_at_the_border(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"pixels")
    inside = LabeledBox("red", (0.5, 0.5, 0.2, 0.2), outline=(((0.4, 0.5), (0.5, 0.4), (0.6, 0.5), (0.5, 0.6)),))
    outside = LabeledBox("blue", (0.05, 0.5, 0.1, 0.2), outline=(((-0.1, 0.5), (0.0, 0.4), (0.1, 0.5), (0.0, 0.6)),))
    one = LabeledImage(7, path, (inside, outside), random=True)
    dataset.write(Split((one,), (one,), held_out=False), ("red", "blue"), tmp_path / "data", "obb")
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
    found = hulls(np.array([[50, 50, 20, 10, 0], [50, 50, 20, 10, np.pi / 2]], np.float32))
    np.testing.assert_allclose(found, [[40, 45, 60, 55], [45, 40, 55, 60]], atol=1e-4)


@pytest.mark.slow
def test_rotated_boxes_are_learned(tmp_path: Path) -> None:
    split = drawings.split(tmp_path / "pictures", drawings.bar)
    data_yaml = dataset.write(split, drawings.CLASSES, tmp_path / "data", "obb")
    hyper = Hyper(epochs=60, batch=8, imgsz=IMGSZ, seed=0, device="cpu")
    trained = training.train(data_yaml, SCRATCH, hyper, tmp_path / "run", lambda _: None)
    metrics = evaluation.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    print(f"mAP50 {metrics.map50:.3f}, {trained.seconds:.0f} s")
    assert metrics.map50 > 0.5
    assert (metrics.images, metrics.boxes) == (8, 16)

    detector = load_detector(trained.weights, IMGSZ, "cpu")
    errors = []
    for image, found in zip(split.val, detector.predict([image.path for image in split.val]), strict=True):
        sent = tags.encode(TAG, found, detector.classes, 0.3, "k")
        errors += [_error(label.outline[0], tags.decode(TAG, [one.as_json() for one in sent])) for label in image.boxes]
    print(f"median error of the corners {np.median(errors):.2f} px")
    assert np.median(errors) < 4


def _error(ring: Ring, found: Sequence[LabeledBox]) -> float:
    """Return the mean distance in pixels of true corners to the nearest of the nearest box found."""
    true = np.array(ring) * drawings.SIZE
    boxes = [np.array(each.outline[0]) * drawings.SIZE for each in found]
    distances = [np.linalg.norm(true[:, None] - box[None], axis=2).min(axis=1).mean() for box in boxes]
    return float(min(distances, default=np.inf))
