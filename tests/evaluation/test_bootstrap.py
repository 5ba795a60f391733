"""The bootstrap interval of a quality."""

from __future__ import annotations

import numpy as np
import pytest

from backend.evaluation import bootstrap
from backend.evaluation.samples import Answers, Matches
from backend.yolo import evaluate
from tests.squares import IMGSZ, Learned


def matches(rng: np.random.Generator, images: int, right: float = 0.6) -> Matches:
    """Return matches with three detections and two labels on each of `images` images."""
    count = 3 * images
    return Matches(
        images=np.repeat(np.arange(images), 3),
        classes=rng.integers(0, 2, count),
        confidence=rng.random(count).astype(np.float32),
        right=rng.random(count) < right,
        labels=np.ones((images, 2), dtype=np.int64),
    )


def test_the_sample_has_the_map_of_ultralytics(learned: Learned) -> None:
    measurement = evaluate.measure(learned.trained.weights, learned.data_yaml, IMGSZ, "cpu")
    once = np.ones((1, measurement.sample.size), dtype=np.int64)
    assert measurement.sample.quality(once)[0] == pytest.approx(measurement.metrics.map50, abs=1e-6)
    assert measurement.metrics.interval is not None
    low, high = measurement.metrics.interval
    assert low <= measurement.metrics.map50 <= high
    assert measurement.metrics.interval_50_95 is not None
    low, high = measurement.metrics.interval_50_95
    assert low <= measurement.metrics.map50_95 <= high
    assert high < measurement.metrics.interval[1]


def test_95_percent_of_intervals_hold_the_true_quality() -> None:
    """Of 200 sets of 60 answers, each right with 70%, about 95% of the intervals hold 70%."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        answers = Answers(right=(rng.random((60, 1)) < 0.7).astype(np.int64), labeled=np.ones((60, 1), dtype=np.int64))
        span = bootstrap.interval(answers, rng)
        assert span is not None
        hits += span[0] <= 0.7 <= span[1]
    assert 180 <= hits <= 198


def test_more_images_make_it_narrower() -> None:
    def width(images: int) -> float:
        span = bootstrap.interval(matches(np.random.default_rng(1), images), np.random.default_rng(0))
        assert span is not None
        return span[1] - span[0]

    assert width(400) < width(100) < width(25)


def test_two_models_on_the_same_images_are_compared_image_by_image() -> None:
    """The interval of the difference is narrower, because a hard image is hard for both models."""
    rng = np.random.default_rng(2)
    hard = rng.random((80, 1)) < 0.5
    both = [
        Answers((~hard | (rng.random((80, 1)) < 0.1)).astype(np.int64), np.ones((80, 1), dtype=np.int64))
        for _ in range(2)
    ]
    span = bootstrap.difference(both[0], both[1], np.random.default_rng(0))
    single = bootstrap.interval(both[0], np.random.default_rng(0))
    assert span is not None
    assert single is not None
    assert span[0] <= 0 <= span[1]
    assert span[1] - span[0] < single[1] - single[0]
    with pytest.raises(ValueError, match="same ones"):
        bootstrap.difference(matches(rng, 3), matches(rng, 4), rng)


@pytest.mark.parametrize("images", [0, 1])
def test_of_one_image_there_is_no_interval(images: int) -> None:
    assert bootstrap.interval(matches(np.random.default_rng(0), images), np.random.default_rng(0)) is None


def test_images_without_labels_give_no_interval() -> None:
    empty = Matches(
        *(np.zeros(0, dtype=np.int64),) * 2, np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros((5, 2), np.int64)
    )
    assert bootstrap.interval(empty, np.random.default_rng(0)) is None
