"""Which measurements decide, and which metrics are recorded; `promotion.judge` has its own tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backend.evaluation import matching
from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.samples import Answers
from backend.model_versions import Metrics
from backend.policy import judgement
from backend.policy.judgement import Judgement


def model(map50: float, images: int = 40) -> Measured:
    """Return a measurement in which the share `map50` of the images is right."""
    right = np.arange(images) < round(map50 * images)
    metrics = Metrics(map50, map50 / 2, {}, images, images, images)
    return measured(metrics, Answers(right.astype(np.int64)[:, None], np.ones((images, 1), dtype=np.int64)))


def never() -> list[Measured]:
    raise AssertionError("the measurement on all labels is not needed")


def judge(
    models: list[Measured], on_labels: Callable[[], list[Measured]] = never, *, held_out: bool = True
) -> Judgement:
    return judgement.judge_challenger(
        models, on_labels, held_out=held_out, finite=True, tolerance=0.02, quality="mAP50"
    )


def test_the_metrics_of_a_first_version_say_that_its_images_were_held_out() -> None:
    outcome = judge([model(0.5)])
    assert (outcome.promoted, outcome.champion, outcome.challenger.held_out) == (True, None, True)
    assert outcome.challenger.gained is None


@pytest.mark.parametrize(("challenger", "promoted"), [(0.7, True), (0.5, False)])
def test_enough_held_out_images_decide_alone(challenger: float, promoted: bool) -> None:
    outcome = judge([model(challenger), model(0.6)])
    assert outcome.promoted is promoted, outcome.reason
    assert outcome.champion is not None
    assert (outcome.champion.map50, outcome.champion.held_out) == (0.6, True)
    assert outcome.challenger.gained is not None


@pytest.mark.parametrize(("challenger", "promoted"), [(0.7, True), (0.5, False)])
def test_with_few_held_out_images_all_labels_decide(challenger: float, promoted: bool) -> None:
    outcome = judge([model(0.5, images=4), model(0.5, images=4)], lambda: [model(challenger), model(0.6)])
    assert outcome.promoted is promoted, outcome.reason
    assert "on all 40 labeled images" in outcome.reason
    assert outcome.challenger.images == 4  # the recorded metrics stay those of the validation set


@pytest.mark.parametrize(("challenger", "promoted"), [(0.7, True), (0.5, False)])
def test_without_held_out_images_the_validation_set_is_all_labels_already(challenger: float, promoted: bool) -> None:
    outcome = judge([model(challenger), model(0.6)], held_out=False)
    assert outcome.promoted is promoted, outcome.reason
    assert (outcome.challenger.held_out, "not judged yet" in outcome.reason) == (False, True)


def test_nothing_is_calibrated_without_held_out_images() -> None:
    calibration = judgement.calibration_of(None)
    assert (calibration.temperature, calibration.reason) == (1.0, judgement.NOTHING_HELD_OUT)
    assert judgement.class_quality_of(None, ("cat",)) == {}


def test_held_out_images_give_the_temperature_and_the_quality_of_each_class() -> None:
    """All cats are right and no dogs, all with the same confidence."""
    labels = np.tile([True, False], (40, 1))
    detections = matching.answers(np.full((40, 2), 0.9, dtype=np.float32), labels)
    calibration = judgement.calibration_of(detections)
    assert calibration.temperature > 1.0
    assert judgement.class_quality_of(detections, ("cat", "dog")) == {"cat": pytest.approx(0.9**0.6)}
