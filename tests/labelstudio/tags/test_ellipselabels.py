"""EllipseLabels: boxes become the ellipses in them, and ellipses become the boxes around them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from backend.geometry import coordinates
from backend.labelstudio import label_config, tags
from backend.types import ControlTag, Prediction
from tests.support import ROOT

(TAG,) = label_config.parse((ROOT / "label_config" / "ellipselabels.xml").read_text())
TURNED = dataclasses.replace(TAG, task="obb")
WIDTH, HEIGHT = 200, 100


def prediction(boxes: object, rotated: object = None) -> Prediction:
    xyxy = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    probs = np.tile(np.array([[0.9, 0.1]], np.float32), (len(xyxy), 1))
    return Prediction(
        *(WIDTH, HEIGHT, xyxy, probs, probs.max(axis=1)),
        embedding=np.zeros(1, np.float32),
        rotated=None if rotated is None else np.array(rotated, dtype=np.float32).reshape(-1, 5),
    )


def round_trip(tag: ControlTag, predicted: Prediction) -> tuple[list[dict[str, float]], list[tuple[float, ...]]]:
    """Return the values that are sent, and the boxes around their ellipses."""
    sent = [region.as_json() for region in tags.encode(tag, predicted, tag.labels, 0.5, "k")]
    assert {item["type"] for item in sent} == {"ellipselabels"}
    return [item["value"] for item in sent], [box.xywh for box in tags.decode(tag, sent)]


def test_an_ellipse_touches_the_sides_of_its_box() -> None:
    (value,), (box,) = round_trip(TAG, prediction([(20, 10, 60, 30)]))
    assert value == {"x": 20, "y": 20, "radiusX": 10, "radiusY": 10, "rotation": 0, "ellipselabels": ["Cell"]}
    assert box == pytest.approx((0.2, 0.2, 0.2, 0.2), abs=1e-3)


def test_a_turned_ellipse_keeps_its_centre_sides_and_angle() -> None:
    rotated = (90, 45, 60, 20, 0.5)
    sent = tags.encode(TURNED, prediction([(0, 0, 9, 9)], rotated), TAG.labels, 0.5, "k")
    (box,) = tags.decode(TURNED, [region.as_json() for region in sent])
    expected = coordinates.corners_of(np.array([rotated]))[0] / (WIDTH, HEIGHT)
    np.testing.assert_allclose(np.array(box.outline[0]), expected, atol=1e-6)


def test_label_studio_takes_the_numbers_of_any_turned_ellipse() -> None:
    """It refuses a whole prediction with a centre beyond 100% or a radius beyond 50%."""
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.uniform(-100, 300, 500), rng.uniform(-50, 150, 500), *rng.uniform(5, 400, (2, 500))], axis=1)
    rotated = np.column_stack([drawn, rng.uniform(-4, 4, 500)])
    values, _ = round_trip(TURNED, prediction([(0, 0, WIDTH, HEIGHT)] * 500, rotated))
    assert len(values) > 200
    for value in values:
        assert max(value["x"], value["y"]) <= 100
        assert max(value["radiusX"], value["radiusY"]) <= 50
        assert 0 <= value["rotation"] <= 360
