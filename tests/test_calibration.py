"""Calibration by temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.calibration import COLDEST, HOTTEST, calibrated, fit, scaled
from backend.pools import Pool
from backend.types import Calibration


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
    found = scaled(np.sort(p), temperature)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        scaled([0.5], temperature)


@pytest.mark.parametrize("temperature", [0.5, 0.8, 2.0, 3.0])
def test_the_temperature_is_found(temperature: float) -> None:
    found = fit(*detections(temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.nll_after < found.nll_before
    assert found.detections == 4000
    assert found.reason == ""


def test_no_other_temperature_is_better() -> None:
    p, true = detections(1.7, n=300)
    found = fit(p, true)

    def nll(temperature: float) -> float:
        q = scaled(p, temperature)
        return float(-np.log(np.clip(np.where(true, q, 1 - q), 1e-12, None)).mean())

    assert found.nll_before == pytest.approx(nll(1.0))
    assert found.nll_after == pytest.approx(nll(found.temperature))
    for other in np.geomspace(COLDEST, HOTTEST, 50):
        assert nll(float(other)) >= found.nll_after - 1e-12


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60))
@settings(max_examples=80, deadline=None)
def test_fitting_is_never_nan(rows: list[tuple[float, bool]]) -> None:
    found = fit([p for p, _ in rows], [true for _, true in rows])
    assert COLDEST <= found.temperature <= HOTTEST
    assert math.isfinite(found.nll_after)
    assert found.nll_after <= found.nll_before


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
    found = fit(confidence, correct)
    assert found.temperature == 1.0
    assert f"{len(confidence)} validation detections" in found.reason


def test_where_nothing_helps_it_stays_at_one() -> None:
    found = fit([0.5] * 40, [True, False] * 20)
    assert found == Calibration(1.0, 40, found.nll_before, found.nll_before, "no other temperature is better")
    assert found.nll_before == pytest.approx(math.log(2))


def test_scores_that_tell_perfectly_go_to_the_limit_and_no_further() -> None:
    found = fit([0.9] * 20 + [0.1] * 20, [True] * 20 + [False] * 20)
    assert found.temperature == pytest.approx(COLDEST)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.1])
def test_confidences_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        fit([bad] * 40, [True, False] * 20)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fit([0.5] * 40, [True] * 39)


@pytest.mark.parametrize("classes", [0, 1, 80])
def test_a_calibrated_pool(classes: int) -> None:
    pool = Pool(np.arange(2), np.array([0, 3, 3]), np.full((3, classes), 0.9, np.float32))
    found = calibrated(pool, 2.0)
    assert found.class_probs.dtype == np.float32
    assert found.class_probs == pytest.approx(np.full((3, classes), 0.75))
    assert (pool.class_probs == np.float32(0.9)).all()
    assert (found.offsets == pool.offsets).all()
