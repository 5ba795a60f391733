"""The boxes before NMS: those that NMS keeps are among them, with the same shapes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import MediaError, ModelError
from backend.types import FloatArray, Prediction, YoloTask
from backend.yolo.candidates import LOWEST, MOST, LastImages
from backend.yolo.detector import Detector, load_detector
from tests.support import tiny_yolo

pytestmark = pytest.mark.torch

TASKS: tuple[YoloTask, ...] = ("detect", "obb", "segment", "pose")
SHAPES = ("boxes", "class_probs", "confidence", "rotated", "keypoints")


@pytest.fixture(scope="module", params=TASKS)
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    weights = tiny_yolo(tmp_path_factory.mktemp("weights") / "tiny.pt", task=request.param)
    return load_detector(weights, 64, "cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "blobs.png"
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize((120, 80), Image.Resampling.BICUBIC).save(path)
    return path


def row_of(prediction: Prediction, row: int) -> dict[str, FloatArray]:
    parts = {name: getattr(prediction, name) for name in SHAPES}
    return {name: values[row] for name, values in parts.items() if values is not None}


def test_what_nms_keeps_is_among_the_candidates(detector: Detector, picture: Path) -> None:
    (kept,) = detector.predict([picture])
    candidates = detector.candidates(picture)
    assert len(candidates.prediction.boxes) > len(kept.boxes) > 5
    assert candidates.prediction.confidence.min() >= LOWEST
    for row in range(5):
        wanted = row_of(kept, row)
        distance = np.abs(candidates.prediction.boxes - kept.boxes[row]).max(axis=1)
        distance += np.abs(candidates.prediction.confidence - kept.confidence[row])
        chosen = candidates.object_at(int(distance.argmin()))
        assert len(chosen.boxes) == 1
        assert (chosen.width, chosen.height) == (120, 80)
        assert row_of(chosen, 0).keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_allclose(row_of(chosen, 0)[name], values, atol=1e-3)
        assert (chosen.outlines is None) == (kept.outlines is None)
        if kept.outlines is not None and chosen.outlines is not None:
            for ring, expected in zip(chosen.outlines[0], kept.outlines[row], strict=True):
                np.testing.assert_allclose(ring, expected, atol=1e-3)


def test_optional_parts_that_no_region_needs_are_left_out(detector: Detector, picture: Path) -> None:
    chosen = detector.candidates(picture).object_at(0)
    assert chosen.box_variance is None
    assert {field.name for field in fields(chosen)} >= {"embedding", "thumbnail"}
    assert (len(chosen.embedding), len(chosen.thumbnail)) == (0, 0)


def test_a_file_that_is_no_image_is_named(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "no.png"
    path.write_text("no image")
    with pytest.raises(MediaError, match=r"no\.png"):
        detector.candidates(path)


def test_a_model_that_is_not_finite_is_refused(picture: Path, tmp_path: Path) -> None:
    import torch

    detector = load_detector(tiny_yolo(tmp_path / "tiny.pt"), 64, "cpu")
    with torch.no_grad():
        detector.model.model.model[-1].cv3[0][-1].bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        detector.candidates(picture)


def test_the_last_images_are_kept_and_older_ones_are_forgotten() -> None:
    made: list[int] = []
    last: LastImages[int] = LastImages()

    def value(key: int) -> int:
        return last.get(key, lambda: made.append(key) or key * 10)  # type: ignore[func-returns-value]

    assert [value(key) for key in (1, 1, 2, 1)] == [10, 10, 20, 10]
    assert made == [1, 2]
    for key in range(3, MOST + 2):
        value(key)
    assert len(last) == MOST
    value(1)  # used after 2 was, so it is still there
    assert made.count(1) == 1
    value(2)
    assert made.count(2) == 2
    last.clear()
    assert len(last) == 0
