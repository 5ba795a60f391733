from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.errors import MediaError, ModelError
from backend.types import Prediction
from backend.yolo.detector import BATCH, KEEP_CONFIDENCE, Detector, load_detector
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.runtime import quiet_ultralytics

pytestmark = pytest.mark.torch

IMGSZ = 96
CLASSES = ("red", "green", "blue")
WIDTH = {"yolo11n": 64 + 128 + 256, "yolo26n": 64 + 128 + 256}


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    quiet_ultralytics()


@pytest.fixture(scope="module", params=["yolo11n", "yolo26n"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def weights(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights whose boxes differ from anchor to anchor and often pass KEEP_CONFIDENCE."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(f"{architecture}.yaml", nc=len(CLASSES), verbose=False)
    model.names = dict(enumerate(CLASSES))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average, so that batch norm adapts in a few passes
    with torch.no_grad():
        model.train()
        for _ in range(3):
            model.predict(torch.nn.functional.interpolate(torch.rand(16, 3, 6, 6), (IMGSZ, IMGSZ), mode="bicubic"))
        for branch in model.model[-1].cv3:
            branch[-1].weight.normal_(0, 0.2)
            branch[-1].bias.fill_(-2.0)
        for branch in model.model[-1].cv2:
            branch[-1].weight.normal_(0, 0.5)
    path = tmp_path_factory.mktemp("weights") / f"{architecture}.pt"
    torch.save({"model": model, "train_args": {}}, path)
    return path


@pytest.fixture(scope="module")
def detector(weights: Path) -> Detector:
    return load_detector(weights, IMGSZ, "cpu")


def picture(path: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> Path:
    """Save smooth random blobs, different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """More than two batches, three shapes in turn, names that do not sort in this order."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(96, 96), (200, 100), (50, 120)]
    return [picture(folder / f"{99 - i}.png", *sizes[i % 3], seed=i) for i in range(2 * BATCH + 3)]


def raw_predict(weights: Path, paths: list[Path], iou: float = 0.7) -> Iterator[Any]:
    from ultralytics import YOLO

    model = YOLO(weights)
    for path in paths:
        yield model.predict(path, imgsz=IMGSZ, conf=KEEP_CONFIDENCE, iou=iou, device="cpu", verbose=False)[0]


def assert_valid(prediction: Prediction, architecture: str) -> None:
    n = len(prediction.boxes)
    assert prediction.boxes.shape == (n, 4)
    assert prediction.class_probs.shape == (n, len(CLASSES))
    assert prediction.confidence.shape == (n,)
    assert prediction.embedding.shape == (WIDTH[architecture],)
    assert prediction.box_embeddings is not None
    assert prediction.box_embeddings.shape == (n, 64)
    arrays = [prediction.boxes, prediction.class_probs, prediction.embedding, prediction.box_embeddings]
    if architecture == "yolo26n":
        assert prediction.box_variance is None
    else:
        assert prediction.box_variance is not None
        assert prediction.box_variance.shape == (n, 4)
        assert (prediction.box_variance >= 0).all()
        arrays.append(prediction.box_variance)
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in arrays)
    assert prediction.thumbnail.shape == (192,)
    assert prediction.thumbnail.dtype == np.uint8
    assert (prediction.confidence > KEEP_CONFIDENCE).all()
    assert (prediction.boxes >= 0).all()
    assert (prediction.boxes <= [prediction.width, prediction.height] * 2).all()


def test_every_prediction_keeps_the_contract(detector: Detector, pictures: list[Path], architecture: str) -> None:
    assert detector.classes == CLASSES
    predictions = list(detector.predict(pictures))
    assert len(predictions) == len(pictures)
    assert sum(len(prediction.boxes) for prediction in predictions) > len(pictures)
    for prediction, path in zip(predictions, pictures, strict=True):
        assert_valid(prediction, architecture)
        with Image.open(path) as image:
            assert (prediction.width, prediction.height) == image.size


def test_boxes_are_those_of_plain_ultralytics(weights: Path, pictures: list[Path]) -> None:
    import torch

    raw_predictions = list(raw_predict(weights, pictures))
    detector = load_detector(weights, IMGSZ, "cpu", torch.get_num_threads())  # ultralytics has set its own number
    for path, raw in zip(pictures, raw_predictions, strict=True):
        (ours,) = detector.predict([path])
        np.testing.assert_array_equal(ours.confidence, raw.boxes.conf.numpy())
        np.testing.assert_array_equal(ours.boxes, raw.boxes.xyxy.numpy())
        np.testing.assert_array_equal(ours.class_probs.argmax(1), raw.boxes.cls.numpy())
        np.testing.assert_allclose(ours.class_probs.max(1, initial=0), ours.confidence, atol=1e-6)


def test_boxes_of_a_video_overlap_as_far_as_plain_ultralytics_lets_them(weights: Path, pictures: list[Path]) -> None:
    import torch

    raw = {iou: list(raw_predict(weights, pictures[:3], iou=iou)) for iou in (0.2, 0.9)}
    detector = load_detector(weights, IMGSZ, "cpu", torch.get_num_threads())
    counts = []
    for iou, wanted in raw.items():
        predictions = list(detector.predict_frames((read_pixels(path) for path in pictures[:3]), iou))
        for prediction, raw_prediction in zip(predictions, wanted, strict=True):
            np.testing.assert_array_equal(prediction.boxes, raw_prediction.boxes.xyxy.numpy())
        counts.append(sum(len(prediction.boxes) for prediction in predictions))
    assert counts[0] < counts[1]


def test_predictions_come_in_order_and_do_not_depend_on_other_images(detector: Detector, pictures: list[Path]) -> None:
    for path, together in zip(pictures, detector.predict(pictures), strict=True):
        (alone,) = detector.predict([path])
        np.testing.assert_allclose(together.embedding, alone.embedding, atol=1e-3)  # sums in another order differ
        assert together.confidence[:5] == pytest.approx(alone.confidence[:5], abs=1e-3)


def test_embeddings_tell_pictures_and_boxes_apart(detector: Detector, pictures: list[Path]) -> None:
    first, second, *_ = detector.predict([pictures[0], pictures[3]])
    assert not np.allclose(first.embedding, second.embedding, atol=1e-3)
    assert first.box_embeddings is not None
    assert len(np.unique(first.box_embeddings.round(4), axis=0)) > 1


def test_no_paths_no_predictions(detector: Detector) -> None:
    assert list(detector.predict([])) == []


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_pixel_format(detector: Detector, tmp_path: Path, mode: str, architecture: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(np.arange(80 * 60, dtype=np.uint16).reshape(60, 80) * 13).save(path)
    else:
        picture(path, 80, 60, mode=mode)
    (prediction,) = detector.predict([path])
    assert (prediction.width, prediction.height) == (80, 60)
    assert_valid(prediction, architecture)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (9, 700)])
def test_extreme_shapes(detector: Detector, tmp_path: Path, size: tuple[int, int], architecture: str) -> None:
    (prediction,) = detector.predict([picture(tmp_path / "image.png", *size)])
    assert (prediction.width, prediction.height) == size
    assert_valid(prediction, architecture)


def test_a_rotated_photo_is_predicted_upright(detector: Detector, tmp_path: Path) -> None:
    upright = picture(tmp_path / "upright.png", 120, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to view"
    with Image.open(upright) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    turned, expected = detector.predict([tmp_path / "turned.jpg", upright])
    assert (turned.width, turned.height) == (120, 60)
    np.testing.assert_allclose(turned.embedding, expected.embedding, atol=0.2)


def test_unreadable_files_are_named(detector: Detector, tmp_path: Path, pictures: list[Path]) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    (tmp_path / "empty.png").touch()
    for path in (text, tmp_path / "empty.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(MediaError) as caught:
            list(detector.predict([*pictures[:3], path]))
        assert str(path) in str(caught.value)


def test_threads_may_share_a_detector(detector: Detector, pictures: list[Path]) -> None:
    expected = [next(detector.predict([path])) for path in pictures]
    wrong: list[str] = []

    def work(start: int) -> None:
        for path, want in zip(pictures[start:], expected[start:], strict=True):
            (got,) = detector.predict([path])
            if got.boxes.shape != want.boxes.shape or not np.allclose(got.boxes, want.boxes, atol=1e-2):
                wrong.append(path.name)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_iterator_reads_two_batches_ahead_at_most(
    detector: Detector, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = Detector.read

    def count(self: Detector, path: Path) -> Letterboxed:
        read.append(path)
        return original(self, path)

    monkeypatch.setattr(Detector, "read", count)
    predictions = detector.predict(pictures * 3)
    next(predictions)
    assert len(read) <= 2 * BATCH
    predictions.close()  # type: ignore[attr-defined]
    assert len(read) <= 2 * BATCH


def test_boxes_and_their_variance_are_in_pixels_of_the_original(detector: Detector, tmp_path: Path) -> None:
    small = picture(tmp_path / "small.png", IMGSZ, IMGSZ)
    with Image.open(small) as image:  # scaled by whole pixels, so that letterboxing gives back the same picture
        image.resize((4 * IMGSZ, 4 * IMGSZ), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    of_small, of_large = detector.predict([small, tmp_path / "large.png"])
    np.testing.assert_allclose(of_large.boxes, of_small.boxes * 4, atol=0.5)
    if of_small.box_variance is not None:  # YOLO26 has none
        assert of_large.box_variance is not None
        np.testing.assert_allclose(of_large.box_variance, of_small.box_variance * 16, rtol=1e-2)


def test_weights_that_are_not_finite_are_refused(weights: Path, pictures: list[Path]) -> None:
    import torch

    detector = load_detector(weights, IMGSZ, "cpu")
    with torch.no_grad():
        next(detector.model.model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        list(detector.predict(pictures[:1]))
