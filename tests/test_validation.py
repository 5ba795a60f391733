"""Which detections on labeled images are true, and what they say of classes."""

from __future__ import annotations

import numpy as np
import pytest

from backend.acquisition.class_weights import match_quality
from backend.types import LabeledBox, Prediction
from backend.validation import detections, matched


def prediction(boxes: list[list[float]], classes: list[int], confidence: list[float], of: int = 2) -> Prediction:
    probs = np.full((len(boxes), of), 0.01, dtype=np.float32)
    probs[np.arange(len(boxes)), classes] = confidence
    return Prediction(
        100,
        100,
        np.array(boxes, np.float32).reshape(-1, 4),
        probs,
        np.array(confidence, np.float32),
        np.zeros(3, np.float32),
    )


def test_true_and_false_positives() -> None:
    found = prediction(
        [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [50, 50, 60, 60], [80, 80, 90, 90]],
        [0, 0, 0, 1, 1],
        [0.6, 0.9, 0.8, 0.7, 0.95],
    )
    labels = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    assert matched(found, labels, np.array([0, 1])).tolist() == pytest.approx([0, 0.9, 0, 1, 0])


def test_a_detection_takes_the_label_it_overlaps_most() -> None:
    found = prediction([[0, 0, 10, 10], [0, 0, 10, 8]], [0, 0], [0.9, 0.8])
    labels = np.array([[0, 0, 10, 7], [0, 0, 10, 10]], np.float32)
    assert matched(found, labels, np.array([0, 0])).tolist() == pytest.approx([1, 0.875])


@pytest.mark.parametrize(("width", "overlap"), [(10, 1.0), (5, 0.5), (4.9, 0.0)])
def test_half_the_overlap_is_enough(width: float, overlap: float) -> None:
    found = prediction([[0, 0, width, 10]], [0], [0.9])
    assert matched(found, np.array([[0, 0, 10, 10]], np.float32), np.array([0])).tolist() == pytest.approx([overlap])


def test_no_labels_and_no_detections() -> None:
    none = np.zeros((0, 4), np.float32)
    no_classes = np.zeros(0, np.int64)
    assert matched(prediction([[0, 0, 1, 1]], [0], [0.9]), none, no_classes).tolist() == [0.0]
    assert matched(prediction([], [], []), none, no_classes).tolist() == []
    assert matched(prediction([], [], [], of=0), np.ones((1, 4), np.float32), np.array([0])).tolist() == []


def test_the_detections_of_all_images_stand_in_one_row() -> None:
    left = LabeledBox("dog", (0.25, 0.5, 0.5, 1.0))
    found = prediction([[0, 0, 50, 100], [50, 0, 100, 100]], [1, 0], [0.9, 0.4])
    all_of_them = detections([(found, (left,)), (prediction([], [], []), (left,)), (found, ())], ("cat", "dog"))
    assert all_of_them.confidence.tolist() == pytest.approx([0.9, 0.4, 0.9, 0.4])
    assert all_of_them.classes.tolist() == [1, 0, 1, 0]
    assert all_of_them.overlap.tolist() == [1, 0, 0, 0]
    quality = match_quality(all_of_them.confidence, all_of_them.classes, all_of_them.overlap, 3)
    assert quality.tolist() == pytest.approx([np.nan, 0.9**0.6, np.nan], nan_ok=True)


def test_no_images() -> None:
    assert len(detections([], ("cat",)).confidence) == 0
