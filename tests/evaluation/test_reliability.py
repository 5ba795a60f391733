"""The reliability diagram, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from backend.evaluation.matching import Choices, Detections
from backend.evaluation.reliability import BINS, calibration_error, reliability, reliability_bins

RNG = np.random.default_rng(0)
CONFIDENCE = RNG.random(400).astype(np.float32)
RIGHT = RNG.random(400) < CONFIDENCE**2


def test_bins_are_those_of_scikit_learn() -> None:
    bins = reliability_bins(CONFIDENCE, RIGHT)
    accuracy, confidence = calibration_curve(RIGHT, CONFIDENCE, n_bins=BINS)
    assert [part.accuracy for part in bins] == pytest.approx(accuracy, abs=1e-5)
    assert [part.confidence for part in bins] == pytest.approx(confidence, abs=1e-5)
    assert sum(part.count for part in bins) == 400


def test_a_temperature_brings_the_bins_nearer_to_the_diagonal() -> None:
    detections = Detections(CONFIDENCE, np.zeros(400, np.int64), RIGHT.astype(np.float32))
    fitted = detections.calibration().temperature
    before, after = (calibration_error(reliability(detections, temperature)) for temperature in (1.0, fitted))
    assert before is not None
    assert after is not None
    assert after < before


def test_the_detection_of_a_single_choice_is_its_most_likely_class() -> None:
    choices = Choices(np.array([[0.9, 0.1], [0.4, 0.6]], np.float32), np.array([0, 0]))
    detections = Detections(np.array([0.9, 0.6], np.float32), np.array([0, 1]), np.array([1, 0], np.float32), choices)
    assert [(part.accuracy, part.count) for part in reliability(detections, 1.0)] == [(0.0, 1), (1.0, 1)]
    assert reliability(detections, 10.0)[0].confidence < 0.6


def test_without_a_detection_there_is_no_bin() -> None:
    none = np.zeros(0, np.float32)
    assert reliability(Detections(none, np.zeros(0, np.int64), none), 1.0) == ()
    assert reliability(Detections(none, np.zeros(0, np.int64), none, Choices(np.zeros((0, 2)), np.zeros(0))), 1.0) == ()  # type: ignore[arg-type]
    assert calibration_error(()) is None


def test_the_highest_confidence_has_a_bin() -> None:
    assert reliability_bins([1.0, 0.0], [True, False])[-1].confidence == 1.0
