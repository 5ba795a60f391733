"""Classifiers of whole images: training, prediction and quality."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import MediaError, ModelError
from backend.labelstudio import tags
from backend.types import WHOLE, ControlTag, HyperParameters, LabeledBox
from backend.yolo import classifier_training, evaluate, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.classifier import Classifier
from backend.yolo.detector import load_detector
from backend.yolo.predictors import load_predictor
from tests.labelstudio.tags.test_choices import LABELS, MANY, TREE

pytestmark = pytest.mark.torch

IMGSZ = 32
SCRATCH = BaseWeights("yolo11n-cls.yaml", pretrained=False, note="", task="classify")
COLOURS = ((220, 40, 40), (50, 60, 230), (40, 200, 60))


def pictures(folder: Path, count: int, seed: int, multiple: bool = False) -> tuple[LabeledImage, ...]:
    """Draw noise, with one square for each class of a picture in the colour of the class."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    images = []
    for task_id in range(seed * 100, seed * 100 + count):
        pixels = rng.normal(120, 10, (30, 40, 3)).clip(0, 255).astype(np.uint8)
        chosen = np.flatnonzero(rng.random(3) < 0.5) if multiple else [task_id % 3]
        for index in chosen:
            top = int(rng.integers(2, 16))
            pixels[top : top + 12, 2 + 12 * index : 13 + 12 * index] = COLOURS[index]
        path = folder / f"{task_id}.png"
        Image.fromarray(pixels).save(path)
        images.append(LabeledImage(task_id, path, tuple(LabeledBox(LABELS[index], WHOLE) for index in chosen), True))
    return tuple(images)


def train(
    split: Split, folder: Path, multiple: bool, epochs: int, labels: tuple[str, ...] = LABELS
) -> tuple[Path, Path, float]:
    data_yaml = writer.write(split, labels, folder / "data", "classify", {"multiple": multiple})
    hyper = HyperParameters(epochs=epochs, batch=8, imgsz=IMGSZ, seed=0, device="cpu")
    trained = training.train(data_yaml, SCRATCH, hyper, folder / "run", lambda _: None)
    assert trained.losses_finite
    return trained.weights, data_yaml, trained.seconds


@pytest.fixture(scope="module")
def briefly(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights after one epoch, and their data set."""
    folder = tmp_path_factory.mktemp("briefly")
    images = pictures(folder / "pictures", 8, seed=1)
    empty = LabeledImage(7, images[0].path, (), random=True)
    weights, data_yaml, _ = train(Split((*images, empty), images[:4], held_out=True), folder, False, epochs=1)
    return weights, data_yaml


def test_labels_are_class_numbers(briefly: tuple[Path, Path]) -> None:
    paths, labels = classifier_training.read_part(briefly[1], "train")
    assert [int(path.stem) for path in paths] == sorted([7, *range(100, 108)], key=str)
    assert dict(zip((path.stem for path in paths), labels, strict=True))["7"] == ()
    assert dict(zip((path.stem for path in paths), labels, strict=True))["101"] == (101 % 3,)


def test_a_classifier_keeps_the_contract(briefly: tuple[Path, Path]) -> None:
    classifier = load_predictor(briefly[0], IMGSZ, "cpu")
    assert isinstance(classifier, Classifier)
    assert classifier.classes == LABELS
    paths, _ = classifier_training.read_part(briefly[1], "train")
    predictions = list(classifier.predict(paths))
    assert len(predictions) == len(paths)
    for prediction in predictions:
        assert (prediction.width, prediction.height) == (40, 30)
        assert prediction.boxes.tolist() == [[0, 0, 40, 30]]
        assert prediction.class_probs.shape == (1, 3)
        assert float(prediction.class_probs.sum()) == pytest.approx(1, abs=1e-5)
        assert prediction.confidence == pytest.approx(prediction.class_probs.max())
        assert prediction.embedding.shape == (1280,)
        assert prediction.thumbnail.shape == (192,)
    (alone,) = classifier.predict(paths[3:4])
    np.testing.assert_allclose(alone.class_probs, predictions[3].class_probs, atol=1e-5)
    assert list(classifier.predict([])) == []


def test_a_file_that_is_no_image_is_named(briefly: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("not an image")
    with pytest.raises(MediaError, match=r"x\.png"):
        list(load_predictor(briefly[0], IMGSZ, "cpu").predict([tmp_path / "x.png"]))


def test_a_classifier_finds_no_objects(briefly: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="finds no objects"):
        load_detector(briefly[0], IMGSZ, "cpu")


def test_classes_are_matched_by_name(briefly: tuple[Path, Path], tmp_path: Path) -> None:
    images = pictures(tmp_path / "pictures", 6, seed=2)
    split = Split(images, images, held_out=False)
    before = evaluate.evaluate(briefly[0], writer.write(split, LABELS, tmp_path / "a", "classify"), IMGSZ, "cpu")
    other = writer.write(split, ("new", *LABELS[::-1]), tmp_path / "b", "classify")
    assert evaluate.evaluate(briefly[0], other, IMGSZ, "cpu") == before
    assert (before.images, before.boxes, set(before.class_ap50)) == (6, 6, set(LABELS))


@pytest.mark.slow
def test_one_class_of_an_image_is_learned(tmp_path: Path) -> None:
    split = Split(pictures(tmp_path / "p", 36, seed=3), pictures(tmp_path / "p", 12, seed=4), held_out=True)
    weights, data_yaml, seconds = train(split, tmp_path, False, epochs=30)
    metrics = evaluate.evaluate(weights, data_yaml, IMGSZ, "cpu")
    print(f"top-1 {metrics.map50:.3f}, {seconds:.0f} s")
    assert metrics.map50 > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("tag", [MANY, dataclasses.replace(TREE, labels=("A", "A > B", "C"))], ids=lambda tag: tag.kind)
def test_several_classes_of_an_image_are_learned(tag: ControlTag, tmp_path: Path) -> None:
    learned, validation_images = (
        named(pictures(tmp_path / "p", count, seed, multiple=True), tag) for count, seed in ((40, 5), (24, 6))
    )
    weights, data_yaml, seconds = train(
        Split(learned, validation_images, held_out=True), tmp_path, True, 50, tag.labels
    )
    metrics = evaluate.evaluate(weights, data_yaml, IMGSZ, "cpu")
    print(f"{tag.kind}: mean average precision {metrics.map50:.3f}, {seconds:.0f} s")
    assert metrics.map50 > 0.75
    classifier = load_predictor(weights, IMGSZ, "cpu")
    exact = []
    for image, prediction in zip(
        validation_images, classifier.predict([image.path for image in validation_images]), strict=True
    ):
        sent = [region.as_json() for region in tags.encode(tag, prediction, classifier.classes, 0.5, "k")]
        assert {region["type"] for region in sent} <= {tag.kind}
        exact.append({box.label for box in tags.decode(tag, sent)} == {box.label for box in image.boxes})
    print(f"{np.mean(exact):.0%} of the images exactly right")
    assert np.mean(exact) > 0.4


def named(images: tuple[LabeledImage, ...], tag: ControlTag) -> tuple[LabeledImage, ...]:
    """Return images with the labels of a tag instead of LABELS."""
    names = dict(zip(LABELS, tag.labels, strict=True))
    return tuple(
        dataclasses.replace(image, boxes=tuple(dataclasses.replace(box, label=names[box.label]) for box in image.boxes))
        for image in images
    )
