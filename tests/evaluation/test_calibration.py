"""Calibration by temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.acquisition.pool import Pool
from backend.evaluation.calibration import COLDEST, HOTTEST, calibrated, fit, fit_choice, scaled, softened
from backend.model_versions import Calibration


def detections(temperature: float, n: int = 4000, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return confidences that are right only after scaling by the temperature, and which detections are true."""
    rng = np.random.default_rng(seed)
    honest = rng.uniform(0.02, 0.98, n)
    return scaled(honest, 1 / temperature), rng.random(n) < honest


def test_worked_example() -> None:
    assert scaled([0.9], 2.0) == pytest.approx([0.75])


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(COLDEST, HOTTEST))
@settings(max_examples=80, deadline=None)
def test_scaling_is_never_nan_keeps_the_order_and_stays_a_probability(p: list[float], temperature: float) -> None:
    scaled_p = scaled(np.sort(p), temperature)
    assert ((scaled_p >= 0) & (scaled_p <= 1)).all()
    assert (np.diff(scaled_p) >= 0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_an_invalid_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        scaled([0.5], temperature)


@pytest.mark.parametrize("temperature", [0.5, 0.8, 2.0, 3.0])
def test_the_temperature_is_found(temperature: float) -> None:
    fitted = fit(*detections(temperature))
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    assert fitted.nll_after < fitted.nll_before
    assert fitted.detections == 4000
    assert fitted.reason == ""


def test_no_other_temperature_is_better() -> None:
    p, true = detections(1.7, n=300)
    fitted = fit(p, true)

    def nll(temperature: float) -> float:
        q = scaled(p, temperature)
        return float(-np.log(np.clip(np.where(true, q, 1 - q), 1e-12, None)).mean())

    assert fitted.nll_before == pytest.approx(nll(1.0))
    assert fitted.nll_after == pytest.approx(nll(fitted.temperature))
    for other in np.geomspace(COLDEST, HOTTEST, 50):
        assert nll(float(other)) >= fitted.nll_after - 1e-12


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60))
@settings(max_examples=80, deadline=None)
def test_fitting_is_never_nan(rows: list[tuple[float, bool]]) -> None:
    fitted = fit([p for p, _ in rows], [true for _, true in rows])
    assert COLDEST <= fitted.temperature <= HOTTEST
    assert math.isfinite(fitted.nll_after)
    assert fitted.nll_after <= fitted.nll_before


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([], []),
        ([0.9] * 29, [True] * 20 + [False] * 9),
        ([0.9] * 500, [True] * 500),
        ([0.9] * 500, [False] * 496 + [True] * 4),
    ],
)
def test_too_few_detections_leave_it_at_one(confidence: list[float], correct: list[bool]) -> None:
    fitted = fit(confidence, correct)
    assert fitted.temperature == 1.0
    assert f"{len(confidence)} validation detections" in fitted.reason


def test_where_nothing_helps_it_stays_at_one() -> None:
    fitted = fit([0.5] * 40, [True, False] * 20)
    assert fitted == Calibration(1.0, 40, fitted.nll_before, fitted.nll_before, "no other temperature is better")
    assert fitted.nll_before == pytest.approx(math.log(2))


def test_perfect_scores_get_the_lowest_temperature() -> None:
    fitted = fit([0.9] * 20 + [0.1] * 20, [True] * 20 + [False] * 20)
    assert fitted.temperature == pytest.approx(COLDEST)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.1])
def test_invalid_confidences_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        fit([bad] * 40, [True, False] * 20)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fit([0.5] * 40, [True] * 39)


@pytest.mark.parametrize("classes", [0, 1, 80])
def test_a_calibrated_pool(classes: int) -> None:
    pool = Pool(np.arange(2), np.array([0, 3, 3]), np.full((3, classes), 0.9, np.float32))
    result = calibrated(pool, 2.0, "objects")
    assert result.class_probs.dtype == np.float32
    assert result.class_probs == pytest.approx(np.full((3, classes), 0.75))
    assert (pool.class_probs == np.float32(0.9)).all()
    assert (result.offsets == pool.offsets).all()


# A choice among classes


def choices(temperature: float, n: int = 4000, classes: int = 5) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return distributions that are right only after softening by the temperature, and the classes that are true."""
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.full(classes, 0.7), n)
    true = (rng.random((n, 1)) > honest.cumsum(axis=1)).sum(axis=1)
    return softened(honest, 1 / temperature), np.minimum(true, classes - 1)


@pytest.mark.parametrize("temperature", [0.5, 0.8, 2.0, 3.0])
def test_the_temperature_of_a_choice_is_found(temperature: float) -> None:
    probs, chosen = choices(temperature)
    fitted = fit_choice(probs, chosen)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.nll_after < fitted.nll_before
    assert fitted.detections == 4000


def test_two_classes_are_calibrated_as_one_and_its_opposite() -> None:
    probs, chosen = choices(2.0, n=500, classes=2)
    fitted, as_detections = fit_choice(probs, chosen), fit(probs[:, 0], chosen == 0)
    assert fitted.temperature == pytest.approx(as_detections.temperature, rel=1e-3)
    assert softened(probs, 2.0)[:, 0] == pytest.approx(scaled(probs[:, 0], 2.0), abs=1e-3)


@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_choices_leave_the_temperature_at_one(n: int) -> None:
    probs, chosen = choices(2.0, n=50)
    fitted = fit_choice(probs[:n], chosen[:n])
    assert (fitted.temperature, fitted.detections) == (1.0, n)
    assert "it takes 30 and 5" in fitted.reason


def test_choices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fit_choice(np.full((40, 2), 0.5), [0] * 39)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(COLDEST, HOTTEST))
@settings(max_examples=80, deadline=None)
def test_softened_choices_keep_their_order_and_add_up_to_one(p: list[float], temperature: float) -> None:
    rows = np.sort(np.array(p) + 1e-9)[None]
    result = softened(rows / rows.sum(), temperature)
    assert result.sum() == pytest.approx(1)
    assert (np.diff(result[0]) >= -1e-12).all()


def test_a_pool_of_choices() -> None:
    pool = Pool(np.arange(2), np.arange(3), np.array([[0.9, 0.1, 0], [0.5, 0.3, 0.2]], np.float32))
    result = calibrated(pool, 2.0, "one")
    assert result.exclusive
    assert result.class_probs.dtype == np.float32
    assert result.class_probs == pytest.approx(softened(pool.class_probs, 2.0))
    assert calibrated(pool, 1.0, "one").class_probs == pytest.approx(pool.class_probs)


def test_each_label_of_a_multi_label_image_is_a_row() -> None:
    scores = np.array([[0.9, 0.5, 0.01], [0.01, 0.02, 0.03], [0.3, 0.9, 0.2]], np.float32)
    embeddings = np.arange(6, dtype=np.float32).reshape(3, 2)
    columns = {"embeddings": embeddings, "box_embeddings": embeddings}
    pool = Pool(np.arange(3), np.arange(4), scores, columns)
    result = calibrated(pool, 1.0, "several")
    assert result.offsets.tolist() == [0, 2, 3, 6]
    rows = [[0.9, 0, 0], [0, 0.5, 0], [0, 0, 0.03], [0.3, 0, 0], [0, 0.9, 0], [0, 0, 0.2]]
    np.testing.assert_allclose(result.class_probs, np.array(rows, np.float32))
    assert result.columns["box_embeddings"][:, 0].tolist() == [0, 0, 2, 4, 4, 4]
    assert not result.exclusive
    soft = calibrated(pool, 2.0, "several")
    assert soft.class_probs[:2].max(axis=1) == pytest.approx([0.75, 0.5])


def test_a_pool_of_nothing_has_no_labels() -> None:
    pool = Pool(np.arange(0), np.zeros(1, np.int64), np.zeros((0, 0), np.float32))
    assert len(calibrated(pool, 2.0, "several")) == len(calibrated(pool, 2.0, "one")) == 0
