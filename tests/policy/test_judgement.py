"""Which measurements decide, and what a challenger and a champion are recorded with; `judge` has tests of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backend.evaluation import matching
from backend.evaluation.bootstrap import Answers, Measured, measured
from backend.model_versions import Metrics
from backend.policy import judgement
from backend.policy.judgement import Verdict


def model(map50: float, images: int = 40) -> Measured:
    """Return a measurement in which so large a share of the images is right; it does not say what they were."""
    right = np.arange(images) < round(map50 * images)
    metrics = Metrics(map50, map50 / 2, {}, images, images, images)
    return measured(metrics, Answers(right.astype(np.int64), np.ones(images, dtype=np.int64)))


def never() -> list[Measured]:
    raise AssertionError("nobody needs to know how good they are on all labels")


def verdict(
    models: list[Measured], on_labels: Callable[[], list[Measured]] = never, *, held_out: bool = True
) -> Verdict:
    return judgement.verdict(models, on_labels, held_out=held_out, finite=True, tolerance=0.02, quality="mAP50")


def test_a_first_version_is_recorded_with_what_it_was_measured_on() -> None:
    found = verdict([model(0.5)])
    assert (found.promoted, found.champion, found.challenger.held_out) == (True, None, True)
    assert found.challenger.gained is None


@pytest.mark.parametrize(("challenger", "promoted"), [(0.7, True), (0.5, False)])
def test_enough_held_out_images_decide_alone(challenger: float, promoted: bool) -> None:
    found = verdict([model(challenger), model(0.6)])
    assert found.promoted is promoted, found.reason
    assert found.champion is not None
    assert (found.champion.map50, found.champion.held_out) == (0.6, True)
    assert found.challenger.gained is not None


@pytest.mark.parametrize(("challenger", "promoted"), [(0.7, True), (0.5, False)])
def test_with_few_held_out_images_all_labels_decide(challenger: float, promoted: bool) -> None:
    found = verdict([model(0.5, images=4), model(0.5, images=4)], lambda: [model(challenger), model(0.6)])
    assert found.promoted is promoted, found.reason
    assert "on all 40 labeled images" in found.reason
    assert found.challenger.images == 4  # recorded is what it was judged by


@pytest.mark.parametrize(("challenger", "promoted"), [(0.7, True), (0.5, False)])
def test_without_held_out_images_the_validation_set_is_all_labels_already(challenger: float, promoted: bool) -> None:
    found = verdict([model(challenger), model(0.6)], held_out=False)
    assert found.promoted is promoted, found.reason
    assert (found.challenger.held_out, "not judged yet" in found.reason) == (False, True)


def test_nothing_is_calibrated_without_held_out_images() -> None:
    found = judgement.calibration_of(None)
    assert (found.temperature, found.reason) == (1.0, judgement.NOTHING_HELD_OUT)
    assert judgement.class_quality_of(None, ("cat",)) == {}


def test_held_out_images_calibrate_and_tell_which_classes_are_known_well() -> None:
    """Cats are always right and dogs never, each time with the same confidence."""
    given = np.tile([True, False], (40, 1))
    detections = matching.answers(np.full((40, 2), 0.9, dtype=np.float32), given)
    found = judgement.calibration_of(detections)
    assert found.temperature > 1.0
    assert judgement.class_quality_of(detections, ("cat", "dog")) == {"cat": pytest.approx(0.9**0.6)}
