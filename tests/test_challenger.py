"""The calibration that a training keeps; the whole of a training is told by test_loop.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend import challenger, label_config, validation
from backend.dataset import LabeledImage, Split
from backend.settings import Settings
from backend.snapshot import Plan
from backend.store import ProjectRecord
from backend.types import LabeledBox, TrainingSnapshot
from tests.support import CONFIG, IMGSZ, ImageSite


@pytest.fixture
def labeled(images: ImageSite) -> tuple[LabeledImage, ...]:
    """Twelve images whose label is the left half; what the tiny weights find there is right now and then."""
    found = []
    for number in range(12):
        images.add(f"{number}.png", number)
        box = LabeledBox("cat" if number % 2 else "dog", (0.5, 0.5, 1.0, 1.0))
        found.append(LabeledImage(number, images.folder / f"{number}.png", (box,), random=True))
    return tuple(found)


def plan(split: Split) -> Plan:
    record = ProjectRecord(7, CONFIG, "", "", "", "")
    settings = Settings(imgsz=IMGSZ, device="cpu")
    return Plan(record, settings, label_config.parse(CONFIG)[0], TrainingSnapshot(7, "hash", {}, (), ()), split)


def test_the_temperature_is_fitted_on_held_out_images(labeled: tuple[LabeledImage, ...], tiny_weights: Path) -> None:
    detected = challenger._detections(plan(Split(labeled[:2], labeled[2:], held_out=True)), tiny_weights)
    found = challenger._calibration(detected)
    assert found.detections >= 30
    assert found.reason == ""
    assert found.temperature != 1.0
    assert found.nll_after < found.nll_before
    assert detected is not None
    quality = validation.class_quality(detected, ("cat", "dog"))
    assert quality
    assert all(0 < value < 1 for value in quality.values())


def test_images_it_learned_from_say_nothing(labeled: tuple[LabeledImage, ...], tiny_weights: Path) -> None:
    detected = challenger._detections(plan(Split(labeled, labeled, held_out=False)), tiny_weights)
    found = challenger._calibration(detected)
    assert (found.temperature, found.detections) == (1.0, 0)
    assert "no validation images" in found.reason
    assert detected is None
