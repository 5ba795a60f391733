"""The calibration and the qualities that a training keeps; the judgement itself is gate's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import MediaError
from backend.evaluation import matching
from backend.geometry import masks
from backend.labelstudio import label_config
from backend.loop.training import verdict
from backend.policy.judgement import calibration_of
from backend.types import WHOLE, LabeledBox, Prediction
from backend.yolo.predictors import load_predictor
from backend.yolo.training import Trained
from tests import squares
from tests.loop.training.test_tag_training import halves, plan
from tests.squares import Learned
from tests.support import CLASSES, IMGSZ, ImageSite, tiny_yolo

QUALITY = label_config.parse(
    '<View><Image name="image" value="$image"/><Choices name="quality" toName="image"><Choice value="cat"/>'
    '<Choice value="dog"/></Choices></View>'
)[0]


@pytest.fixture
def labeled(images: ImageSite) -> tuple[LabeledImage, ...]:
    return halves(images)


def test_the_temperature_is_fitted_on_held_out_images(labeled: tuple[LabeledImage, ...], tiny_weights: Path) -> None:
    detected = verdict.validation_detections(plan(Split(labeled[:2], labeled[2:], held_out=True)), tiny_weights)
    found = calibration_of(detected)
    assert found.detections >= 30
    assert found.reason == ""
    assert found.temperature != 1.0
    assert found.nll_after < found.nll_before
    assert detected is not None
    quality = matching.class_quality(detected, ("cat", "dog"))
    assert quality
    assert all(0 < value < 1 for value in quality.values())


def test_classes_of_pixels_are_calibrated_by_their_pixels(labeled: tuple[LabeledImage, ...], tmp_path: Path) -> None:
    """What the model itself sees, drawn as three strips, is right; no strip has the box of the whole."""
    weights = tiny_yolo(tmp_path / "tiny.pt", task="semantic")
    found = load_predictor(weights, IMGSZ, "cpu").predict([image.path for image in labeled])
    drawn = [replace(image, boxes=strips(seen)) for image, seen in zip(labeled, found, strict=True)]
    made = plan(Split(labeled, tuple(drawn), held_out=True))
    detected = verdict.validation_detections(replace(made, tag=replace(made.tag, task="semantic")), weights)
    assert detected is not None
    assert len(detected.overlap) > len(labeled)
    assert detected.overlap.min() > 0.9
    boxes = verdict.validation_detections(made, weights)
    assert boxes is not None
    assert (boxes.overlap == 0).mean() > 0.5


def strips(seen: Prediction) -> tuple[LabeledBox, ...]:
    """Return each class that is seen as three regions beside each other."""
    found, thirds, size = [], np.arange(seen.width) * 3 // seen.width, (seen.width, seen.height)
    for row, outline in enumerate(seen.outlines or ()):
        mask = masks.fill(outline, *size)
        for rings in (masks.trace(mask & (thirds == third)) for third in range(3)):
            if rings:
                points = np.concatenate(rings) / size
                low, high = points.min(axis=0), points.max(axis=0)
                box = (*((low + high) / 2).tolist(), *(high - low).tolist())
                shares = tuple(tuple(map(tuple, (ring / size).tolist())) for ring in rings)
                found.append(LabeledBox(CLASSES[int(seen.class_probs[row].argmax())], box, outline=shares))
    return tuple(found)


def test_each_tag_has_the_temperature_of_its_own_detections(
    labeled: tuple[LabeledImage, ...], tiny_weights: Path, tmp_path: Path
) -> None:
    """Boxes and a choice on the same images: a detection each of the choice, whatever the boxes are."""
    chosen = (LabeledBox("cat", (0.5, 0.5, 1.0, 1.0)), LabeledBox("dog", (0.5, 0.5, 1.0, 1.0)))
    answered = tuple(replace(one, boxes=(chosen[number % 2],)) for number, one in enumerate(labeled * 4))
    boxes = plan(Split(labeled[:2], labeled[2:], held_out=True))
    choice = replace(boxes, tag=QUALITY, split=Split(labeled[:2], answered, held_out=True))
    classifier = tiny_yolo(tmp_path / "tiny-cls.pt", task="classify")
    first, second = (
        calibration_of(verdict.validation_detections(one, weights))
        for one, weights in ((boxes, tiny_weights), (choice, classifier))
    )
    assert first.detections != second.detections == len(answered)
    assert first.reason == second.reason == ""
    assert first.temperature != second.temperature


@pytest.mark.parametrize(("multiple", "each"), [(False, 1), (True, 2)])
def test_where_an_image_may_have_several_labels_each_of_them_is_calibrated(
    labeled: tuple[LabeledImage, ...], tmp_path: Path, multiple: bool, each: int
) -> None:
    """Half of the images have both labels, so the likeliest one of those is always right."""
    both = tuple(LabeledBox(name, WHOLE) for name in CLASSES)
    answered = tuple(replace(one, boxes=both[: 1 + number % 2]) for number, one in enumerate(labeled))
    made = replace(plan(Split(labeled, answered, held_out=True)), tag=replace(QUALITY, multiple=multiple))
    found = verdict.validation_detections(made, tiny_yolo(tmp_path / "tiny-cls.pt", task="classify"))
    assert found is not None
    assert len(found.confidence) == each * len(answered)
    if multiple:
        assert found.classes.tolist() == [0, 1] * len(answered)
        assert found.overlap.tolist() == [1, 0, 1, 1] * (len(answered) // 2)


@pytest.mark.parametrize(("chosen", "images"), [(False, 6), (True, 3)])
def test_a_spoiled_training_does_not_replace_a_good_version(
    learned: Learned, tmp_path: Path, chosen: bool, images: int
) -> None:
    """A model that finds anything anywhere took a good one's place: its held-out images "are too few to judge"."""
    spoiled = Trained(tiny_yolo(tmp_path / "tiny.pt", squares.CLASSES), epochs=1, seconds=1.0, losses_finite=True)
    split = Split(learned.split.train, learned.split.val[:images], held_out=True)
    made = replace(plan(split), tag=replace(plan(split).tag, labels=squares.CLASSES))
    data_yaml = writer.write(split, squares.CLASSES, tmp_path / "data")
    judged = verdict.evaluate_challenger(
        made, spoiled, learned.trained.weights, data_yaml, nobody, chosen=chosen
    ).verdict
    assert not judged.promoted
    assert "on all" in judged.reason
    assert judged.challenger.held_out
    back = verdict.evaluate_challenger(made, learned.trained, spoiled.weights, data_yaml, nobody, chosen=chosen).verdict
    assert back.promoted, back.reason
    same = verdict.evaluate_challenger(
        made, learned.trained, learned.trained.weights, data_yaml, nobody, chosen=chosen
    ).verdict
    assert same.promoted is not chosen, same.reason


def nobody(task_id: int, error: MediaError) -> None:
    raise AssertionError(task_id) from error


def test_images_it_learned_from_say_nothing(labeled: tuple[LabeledImage, ...], tiny_weights: Path) -> None:
    detected = verdict.validation_detections(plan(Split(labeled, labeled, held_out=False)), tiny_weights)
    found = calibration_of(detected)
    assert (found.temperature, found.detections) == (1.0, 0)
    assert "no validation images" in found.reason
    assert detected is None
