"""Samples: the quality of draws of images, whose predictions were matched once."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from backend.evaluation import samples
from backend.evaluation.samples import Answers, Matches, Mean


def test_a_mean_of_samples_is_drawn_as_one() -> None:
    """mAP50-95 is the mean over ten overlaps on the same images."""
    labeled = np.ones((2, 1), dtype=np.int64)
    both = Mean((Answers(np.array([[1], [0]]), labeled), Answers(np.array([[0], [0]]), labeled)))
    assert both.quality(np.array([[1, 1], [2, 0]])).tolist() == [0.25, 0.5]
    assert both.by_class(np.array([[1, 1], [2, 0]])).tolist() == [[0.25, 0.5]]
    assert both.size == 2


def test_frames_of_one_video_count_as_one() -> None:
    """Twenty frames of two videos are two draws, not twenty."""
    place, size = samples.places([f"{video}-{frame}" for video in (3, 4) for frame in range(1, 11)])
    assert size == 2
    assert place.tolist() == [0] * 10 + [1] * 10


def test_average_precision_is_that_of_scikit_learn() -> None:
    """Also where scores are equal, and where an image is drawn several times or never."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, 60).astype(np.float32) / 12
    true = rng.random(60) < 0.3
    times = rng.integers(0, 4, (20, 60))
    expected = [average_precision_score(true, scores, sample_weight=drawn) for drawn in times]
    assert samples.average_precision(scores, true, times) == pytest.approx(expected)


def test_detections_after_the_last_right_one_do_not_change_the_area() -> None:
    rng = np.random.default_rng(0)
    right = np.array([True, False, True, False, False])
    labels = np.array([[2], [1]])
    images, confidence = np.array([0, 1, 0, 1, 1]), np.array([0.9, 0.8, 0.7, 0.2, 0.1], np.float32)
    whole = Matches(images, np.zeros(5, np.int64), confidence, right, labels)
    cut = Matches(images[:3], np.zeros(3, np.int64), confidence[:3], right[:3], labels)
    counts = rng.integers(0, 3, (20, 2))
    assert np.array_equal(whole.quality(counts), cut.quality(counts), equal_nan=True)


def test_a_class_without_a_right_detection_has_the_quality_0() -> None:
    wrong = Matches(np.array([0]), np.array([0]), np.array([0.9], np.float32), np.array([False]), np.array([[1]]))
    assert wrong.quality(np.array([[1]])).tolist() == [0.0]
