from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.types import LabeledBox
from backend.yolo import evaluate
from backend.yolo.detector import KEEP_CONFIDENCE, load_detector
from backend.yolo.training import Trained
from tests.squares import CLASSES, IMGSZ, Learned

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def split(learned: Learned) -> Split:
    return learned.split


@pytest.fixture(scope="module")
def data_yaml(learned: Learned) -> Path:
    return learned.data_yaml


@pytest.fixture(scope="module")
def trained(learned: Learned) -> Trained:
    return learned.trained


def test_evaluation_is_ultralytics_own(trained: Trained, data_yaml: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    ours = evaluate.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    theirs = YOLO(trained.weights).val(
        data=str(data_yaml), imgsz=IMGSZ, device="cpu", plots=False, verbose=False, workers=0, save_dir=str(tmp_path)
    )
    assert ours.map50 == pytest.approx(theirs.box.map50, abs=1e-6)
    assert ours.map50_95 == pytest.approx(theirs.box.map, abs=1e-6)


def test_a_model_is_judged_by_the_names_of_its_classes(trained: Trained, split: Split, tmp_path: Path) -> None:
    expected = evaluate.evaluate(trained.weights, writer.write(split, CLASSES, tmp_path / "a"), IMGSZ, "cpu")
    more = writer.write(split, ("green", "blue", "red"), tmp_path / "b")  # another order, and a new label
    metrics = evaluate.evaluate(trained.weights, more, IMGSZ, "cpu")
    assert metrics.class_ap50 == expected.class_ap50
    # Another order of the classes rounds their mean differently.
    assert replace(metrics, map50_95=0) == replace(expected, map50_95=0)
    assert metrics.map50_95 == pytest.approx(expected.map50_95, abs=1e-12)


def test_a_class_the_model_lacks_counts_as_zero(trained: Trained, split: Split, tmp_path: Path) -> None:
    def renamed(images: tuple[LabeledImage, ...]) -> tuple[LabeledImage, ...]:
        name = {"red": "scarlet", "blue": "blue"}
        return tuple(
            LabeledImage(
                image.task_id, image.path, tuple(LabeledBox(name[box.label], box.xywh) for box in image.boxes), True
            )
            for image in images
        )

    before = evaluate.evaluate(trained.weights, writer.write(split, CLASSES, tmp_path / "a"), IMGSZ, "cpu")
    newer = Split(renamed(split.train), renamed(split.val), held_out=True)
    data = writer.write(newer, ("scarlet", "blue"), tmp_path / "b")
    metrics = evaluate.evaluate(trained.weights, data, IMGSZ, "cpu")
    assert metrics.class_ap50 == {"scarlet": 0, "blue": pytest.approx(before.class_ap50["blue"], abs=1e-6)}
    assert metrics.map50 == pytest.approx(before.class_ap50["blue"] / 2, abs=1e-6)


def test_a_model_that_finds_nothing_has_no_detections(data_yaml: Path, tmp_path: Path) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    torch.save({"model": DetectionModel("yolo11n.yaml", nc=2, verbose=False)}, tmp_path / "blind.pt")
    metrics = evaluate.evaluate(tmp_path / "blind.pt", data_yaml, IMGSZ, "cpu")
    assert (metrics.map50, metrics.map50_95, metrics.detections, metrics.boxes) == (0, 0, 0, 12)


def test_a_validation_set_of_background_images_gives_zero(trained: Trained, split: Split, tmp_path: Path) -> None:
    empty = tuple(LabeledImage(image.task_id, image.path, (), random=True) for image in split.val)
    data = writer.write(Split(split.train, empty, held_out=True), CLASSES, tmp_path)
    metrics = evaluate.evaluate(trained.weights, data, IMGSZ, "cpu")
    assert (metrics.map50, metrics.boxes, metrics.images, metrics.class_ap50) == (0, 0, 6, {})


def test_detections_are_counted_at_the_confidence_that_is_kept(trained: Trained, data_yaml: Path, split: Split) -> None:
    detector = load_detector(trained.weights, IMGSZ, "cpu")
    probs = [prediction.class_probs for prediction in detector.predict([image.path for image in split.val])]
    metrics = evaluate.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    confident = sum(int((image_probs >= KEEP_CONFIDENCE).sum()) for image_probs in probs)
    assert metrics.detections == pytest.approx(confident, rel=0.5)
