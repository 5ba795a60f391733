"""Semantic segmentation: the class of every pixel is predicted, measured and learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import Split
from backend.errors import LabelConfigError, MediaError, ModelError, SettingError
from backend.geometry import masks
from backend.labelstudio import label_config, tags
from backend.simulate import simulation_task
from backend.types import BoolArray, HyperParameters, Prediction
from backend.yolo import evaluate, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.detector import load_detector
from backend.yolo.predictors import Predictor, load_predictor
from backend.yolo.semantic_segmentation import Segmenter
from tests import drawings, kinds
from tests.support import CLASSES, IMGSZ, tiny_yolo

pytestmark = pytest.mark.torch

KIND = kinds.KINDS["BrushLabels model_semantic"]
TAG = drawings.control_tag("brushlabels", "semantic")
SIZES = [(64, 64), (128, 80), (50, 120), (300, 40)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_yolo(tmp_path_factory.mktemp("weights") / "tiny.pt", task="semantic")


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Predictor:
    return load_predictor(weights, IMGSZ, "cpu")


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def painted(prediction: Prediction) -> list[BoolArray]:
    assert prediction.outlines is not None
    return [masks.fill(outline, prediction.width, prediction.height) for outline in prediction.outlines]


# Config


def test_the_attribute_asks_for_masks_of_classes() -> None:
    config = KIND.label_config()
    (tag,) = label_config.parse(config)
    assert (tag.kind, tag.task, tag.labels) == ("brushlabels", "semantic", ("Road", "Water"))
    objects = config.replace('model_semantic="true"', 'model_semantic="false"')
    assert label_config.parse(objects)[0].task == "segment"
    assert label_config.config_hash(objects) != label_config.config_hash(config)
    with pytest.raises(LabelConfigError, match="model_semantic"):
        label_config.parse(config.replace('model_semantic="true"', 'model_semantic="perhaps"'))


# Predict


def test_a_prediction_has_one_object_for_each_predicted_class(segmenter: Predictor, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{n}.png", SIZES[n % 4], seed=n) for n in range(8)]
    assert segmenter.classes == CLASSES
    objects = 0
    for path, prediction in zip(paths, segmenter.predict(paths), strict=True):
        with Image.open(path) as image:
            assert (prediction.width, prediction.height) == image.size
        classes = prediction.class_probs.argmax(axis=1).tolist()
        assert len(set(classes)) == len(classes) == len(prediction.boxes)
        np.testing.assert_array_equal(prediction.confidence, prediction.class_probs.max(axis=1))
        assert prediction.thumbnail.shape == (192,)
        assert prediction.shape_confidence is not None
        for values in (prediction.confidence, prediction.class_probs, prediction.shape_confidence):
            assert ((values >= 0) & (values <= 1)).all()
        assert prediction.box_embeddings is not None
        assert prediction.box_embeddings.shape == (len(prediction.boxes), len(prediction.embedding))
        assert np.isfinite(prediction.box_embeddings).all()
        assert (np.sum(painted(prediction), axis=0) > 1).mean() < 0.02  # scaled up, borders differ by a pixel or two
        for mask, (left, top, right, bottom) in zip(painted(prediction), prediction.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert left - 1 <= columns.min() <= columns.max() <= right
            assert top - 1 <= rows.min() <= rows.max() <= bottom
        objects += len(prediction.boxes)
    assert objects > len(paths)


def test_a_prediction_is_that_of_the_pixels(segmenter: Predictor, tmp_path: Path) -> None:
    """An image of the model's own size needs no scaling: a mask has the pixels whose most likely class it is."""
    assert isinstance(segmenter, Segmenter)
    path = picture(tmp_path / "one.png", (IMGSZ, IMGSZ), seed=5)
    (prediction,) = segmenter.predict([path])
    probs, features = segmenter.forward(segmenter.stacked(segmenter.read(path)))
    assert probs.shape == (3, IMGSZ, IMGSZ)  # background is the third
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)
    top = probs.argmax(axis=0)
    entropy = -(probs * np.log(probs)).sum(axis=0) / np.log(3)
    assert prediction.shape_confidence is not None
    for row, mask in enumerate(painted(prediction)):
        kind = int(prediction.class_probs[row].argmax())
        assert np.array_equal(mask, top == kind)
        np.testing.assert_allclose(prediction.class_probs[row], probs[:2, mask].mean(axis=1), atol=1e-5)
        rows, columns = np.nonzero(mask)
        box = entropy[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert prediction.shape_confidence[row] == pytest.approx(1 - box.mean(), abs=1e-5)
    np.testing.assert_allclose(prediction.embedding, features.mean(axis=(1, 2)), atol=1e-5)


def test_a_model_of_one_class_separates_it_from_background(tmp_path: Path) -> None:
    """ultralytics gives such a model one logit, that of the class."""
    import torch

    path = tiny_yolo(tmp_path / "tiny.pt", ("cat",), task="semantic", nc=1)
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["model"].names = {0: "cat"}
    torch.save(checkpoint, path)
    segmenter = load_predictor(path, IMGSZ, "cpu")
    assert segmenter.classes == ("cat",)
    (prediction,) = segmenter.predict([picture(tmp_path / "one.png", (64, 64))])
    assert prediction.class_probs.shape == (1, 1)
    assert prediction.confidence[0] >= 0.5


def test_regions_have_the_threshold_of_the_tag(segmenter: Predictor, tmp_path: Path) -> None:
    tag = dataclasses.replace(TAG, labels=CLASSES, class_to_label={name: name for name in CLASSES})
    (prediction,) = segmenter.predict([picture(tmp_path / "one.png", (128, 80), seed=1)])
    sent = tags.encode(tag, prediction, segmenter.classes, 0.0, "k")
    assert [region.value["brushlabels"] for region in sent] == [
        [CLASSES[row.argmax()]] for row in prediction.class_probs
    ]
    assert [region.score for region in sent] == prediction.confidence.tolist()
    assert tags.encode(tag, prediction, segmenter.classes, 1.0, "k") == ()


def test_a_file_that_is_no_image_is_named(segmenter: Predictor, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(MediaError, match=r"text\.png"):
        list(segmenter.predict([tmp_path / "text.png"]))
    assert list(segmenter.predict([])) == []


def test_it_finds_no_objects_for_a_detector_or_an_experiment(weights: Path) -> None:
    with pytest.raises(ModelError, match="semantic segmentation model finds no objects"):
        load_detector(weights, IMGSZ, "cpu")
    with pytest.raises(SettingError, match=r"no experiments.*yolo11n-seg\.pt"):
        simulation_task.choose(None, weights.name, weights.parent)
    with pytest.raises(SettingError, match="no experiments"):
        simulation_task.choose("segment", "yolo26n-sem.pt", weights.parent)


# Measure


def test_the_quality_is_the_mean_iou_of_the_classes(segmenter: Predictor, weights: Path, tmp_path: Path) -> None:
    """The test counts intersection and union again, over all pixels of all pictures."""
    pictures = drawings.pictures(tmp_path / "pictures", drawings.donut, 4, seed=0)
    named = tuple(
        dataclasses.replace(
            image, boxes=tuple(dataclasses.replace(box, label=CLASSES[box.label == "blue"]) for box in image.boxes)
        )
        for image in pictures
    )
    data_yaml = writer.write(Split(named, named, held_out=False), CLASSES, tmp_path / "data", "semantic")
    metrics = evaluate.evaluate(weights, data_yaml, IMGSZ, "cpu")
    assert (metrics.images, metrics.boxes) == (4, 8)
    both, either = np.zeros(2), np.zeros(2)
    for image, prediction in zip(named, segmenter.predict([image.path for image in named]), strict=True):
        empty = np.zeros((prediction.height, prediction.width), dtype=np.bool_)
        predicted = {
            int(row.argmax()): mask for row, mask in zip(prediction.class_probs, painted(prediction), strict=True)
        }
        for box in image.boxes:
            kind = CLASSES.index(box.label)
            both[kind] += (kinds.pixels(box) & predicted.get(kind, empty)).sum()
            either[kind] += (kinds.pixels(box) | predicted.get(kind, empty)).sum()
    expected = both / either
    assert [metrics.class_ap50[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=0.01)
    assert metrics.map50 == pytest.approx(expected.mean(), abs=0.01)
    assert 0 < metrics.map50 < 1


# Learn


@pytest.mark.slow
def test_masks_of_classes_are_learned(tmp_path: Path) -> None:
    drawn = drawings.split(tmp_path / "pictures", drawings.donut)
    data_yaml = writer.write(drawn, drawings.CLASSES, tmp_path / "data", TAG.task)
    base = BaseWeights("yolo26n-sem.yaml", pretrained=False, note="", task=TAG.task)
    hyper = HyperParameters(epochs=60, batch=8, imgsz=drawings.IMGSZ, seed=0, device="cpu")
    trained = training.train(data_yaml, base, hyper, tmp_path / "run", lambda _: None)
    metrics = evaluate.evaluate(trained.weights, data_yaml, drawings.IMGSZ, "cpu")
    print(f"mIoU {metrics.map50:.3f}, {trained.seconds:.0f} s")
    assert metrics.map50 > 0.7
    assert (metrics.images, metrics.boxes) == (8, 16)
