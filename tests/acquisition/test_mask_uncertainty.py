"""The shape strategy, and the confidence of masks and points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend import acquisition
from backend.acquisition.pool import Pool
from backend.errors import ModelError
from backend.types import FloatArray
from backend.yolo.decoding import mask_confidence, points_confidence
from backend.yolo.detector import load_detector
from backend.yolo.runtime import quiet_ultralytics
from tests import drawings

pytestmark = pytest.mark.torch


def pool(*images: list[tuple[float, float]]) -> Pool:
    """Return a pool of boxes (score, confidence of the shape)."""
    flat = np.array([box for image in images for box in image], np.float32).reshape(-1, 2)
    offsets = np.cumsum([0, *map(len, images)], dtype=np.int64)
    return Pool(np.arange(len(images)), offsets, flat[:, :1], {"shape_confidence": flat[:, 1]})


def test_unsure_shapes_of_likely_objects_come_first() -> None:
    scores = acquisition.get("shape")(
        pool([(0.9, 1.0)], [(0.9, 0.5)], [(0.1, 0.5)], [(0.9, 0.5), (0.8, 0.25)], []), np.random.default_rng(0)
    )
    np.testing.assert_allclose(scores, [0, 0.45, 0.05, 1.05, 0.25], atol=1e-6)


def test_a_model_of_boxes_has_no_shapes() -> None:
    with pytest.raises(ModelError, match=r"'shape' needs shape_confidence.*PolygonLabels"):
        acquisition.get("shape")(replace(pool([(0.5, 0.5)]), columns={}), np.random.default_rng(0))


@pytest.mark.parametrize("bad", [np.ones(2), np.ones((1, 1)), np.array([np.nan])])
def test_confidences_that_do_not_fit_are_refused(bad: FloatArray) -> None:
    with pytest.raises(ValueError, match="shape_confidence"):
        replace(pool([(0.5, 0.5)]), columns={"shape_confidence": bad.astype(np.float32)})


def test_mask_confidence_counts_pixels_inside_the_box() -> None:
    import torch

    protos = torch.zeros(2, 8, 16)
    protos[0, 2:4, 4:8] = 20.0  # sure of it
    protos[1] = np.log(3)  # p = 3/4 everywhere
    coefficients = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    boxes = torch.tensor([[16, 8, 32, 16], [16, 8, 32, 24], [0, 0, 64, 32], [70, 40, 99, 50], [17, 9, 17, 9]]).float()
    confidence = mask_confidence(protos, coefficients, boxes, (32, 64))
    np.testing.assert_allclose(confidence, [1, 0.5, 0.5, 0.5, 1], atol=1e-5)
    assert mask_confidence(protos, coefficients[:0], boxes[:0], (32, 64)).shape == (0,)


def test_points_are_certain_if_clearly_visible_or_hidden() -> None:
    points = np.zeros((3, 2, 3), np.float32)
    points[:, :, 2] = np.array([[1, 0], [0.5, 0.5], [1, 0.75]])
    np.testing.assert_allclose(points_confidence(points), [1, 0, 0.75])
    assert points_confidence(np.zeros((0, 2, 3), np.float32)).shape == (0,)


@pytest.mark.parametrize(("task", "model"), [("seg", "SegmentationModel"), ("pose", "PoseModel"), ("obb", "OBBModel")])
def test_models_of_masks_and_points_predict_shape_confidence(tmp_path: Path, task: str, model: str) -> None:
    quiet_ultralytics()
    import torch
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    made = getattr(tasks, model)(f"yolo11n-{task}.yaml", nc=2, verbose=False)
    for branch in made.model[-1].cv3:
        branch[-1].bias.data.fill_(0.0)  # sure enough to be kept
    torch.save({"model": made, "train_args": {}}, tmp_path / "tiny.pt")
    images = drawings.pictures(tmp_path / "pictures", drawings.donut, 2, seed=0)
    for prediction in load_detector(tmp_path / "tiny.pt", 64, "cpu").predict([image.path for image in images]):
        assert len(prediction.boxes)
        if task == "obb":
            assert prediction.shape_confidence is None
            continue
        assert prediction.shape_confidence is not None
        assert prediction.shape_confidence.shape == (len(prediction.boxes),)
        assert ((prediction.shape_confidence >= 0) & (prediction.shape_confidence <= 1)).all()
