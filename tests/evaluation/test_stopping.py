"""Stopping: each sign, the recommendation from all signs, and the curve of the extrapolation."""

from __future__ import annotations

import pytest

from backend.evaluation.stopping import Recommendation, RoundMeasurements, fit_power_law, mean_uncertainty, recommend
from tests.acquisition.test_contract import boxes

RISING = [
    RoundMeasurements(20, 0.2),
    RoundMeasurements(40, 0.35),
    RoundMeasurements(60, 0.45),
    RoundMeasurements(80, 0.52),
]
FLAT = [
    RoundMeasurements(20, 0.2),
    RoundMeasurements(40, 0.5),
    RoundMeasurements(60, 0.5),
    RoundMeasurements(80, 0.505),
    RoundMeasurements(100, 0.5),
]


def met(recommendation: Recommendation) -> list[str]:
    return [sign.name for sign in recommendation.signs if sign.met]


def test_nothing_is_known_yet() -> None:
    recommendation = recommend([], labels=0)
    assert not recommendation.stop
    assert met(recommendation) == []
    assert all(sign.reason for sign in recommendation.signs)


def test_a_rising_curve_goes_on() -> None:
    recommendation = recommend(RISING, labels=80)
    assert not recommendation.stop
    assert met(recommendation) == []


def test_a_flat_curve_is_reason_to_stop() -> None:
    recommendation = recommend(FLAT, labels=100)
    assert met(recommendation) == ["plateau", "extrapolation"]
    assert recommendation.stop


@pytest.mark.parametrize(("labels", "stop"), [(99, False), (100, True), (101, True)])
def test_a_spent_budget_is_enough(labels: int, stop: bool) -> None:
    recommendation = recommend(RISING, labels=labels, budget=100)
    assert recommendation.stop is stop
    assert recommendation.signs[0].reason == f"{labels} of 100 labels are used"


def test_one_sign_alone_is_not_enough() -> None:
    rounds = [RoundMeasurements(measured.labels, measured.map50, uncertainty=0.05) for measured in RISING]
    recommendation = recommend(rounds, labels=80)
    assert met(recommendation) == ["uncertainty"]
    assert not recommendation.stop


@pytest.mark.parametrize(
    ("agreed", "is_met"),
    [([0.99, 0.98, 0.985], True), ([0.99, 0.979, 0.99], False), ([None, 0.99, 0.99], False), ([0.5, 1, 1, 1], True)],
)
def test_stability_takes_three_rounds(agreed: list[float | None], is_met: bool) -> None:
    rounds = [
        RoundMeasurements(20 * (place + 1), 0.1 * place, stability=stability) for place, stability in enumerate(agreed)
    ]
    assert ("stability" in met(recommend(rounds, labels=0))) is is_met


def test_uncertainty_and_stability_together() -> None:
    rounds = [
        RoundMeasurements(measured.labels, measured.map50, uncertainty=0.09, stability=0.99) for measured in RISING
    ]
    assert met(recommend(rounds, labels=80)) == ["uncertainty", "stability"]
    assert recommend(rounds, labels=80).stop


def test_rounds_without_a_measure_are_left_out() -> None:
    assert recommend([*RISING, RoundMeasurements(100, float("nan"))], labels=100) == recommend(RISING, labels=100)


@pytest.mark.parametrize(("limit", "scale", "power"), [(0.9, 2.0, 0.5), (0.6, 30.0, 1.4), (0.95, 0.8, 0.1)])
def test_a_power_law_is_found_again(limit: float, scale: float, power: float) -> None:
    labels = [20, 40, 60, 100, 180, 300]
    law = fit_power_law(labels, [limit - scale * n**-power for n in labels])
    assert (law.limit, law.scale, law.power) == pytest.approx((limit, scale, power), rel=1e-3)
    gain = law.at(400) - law.at(300)
    assert gain == pytest.approx(scale * (300**-power - 400**-power), rel=1e-3)


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5, 0.5], [0.6, 0.5, 0.4, 0.3]])
def test_a_falling_curve_promises_no_gain(scores: list[float]) -> None:
    law = fit_power_law([20, 40, 60, 80], scores)
    assert law.at(180) - law.at(80) == 0.0


def test_no_labels_no_curve() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        fit_power_law([0, 20], [0.0, 0.1])


def test_mean_uncertainty_by_hand() -> None:
    """h(.5) = 1 bit is the most uncertain of the first image, h(.9) = .469 that of the second; the third has none."""
    pool = boxes([[0.5, 0.1], [0.99, 0.0]], [[0.0, 0.9]], [])
    assert mean_uncertainty(pool) == pytest.approx((1 + 0.4690) / 2, abs=1e-4)
    assert mean_uncertainty(boxes([], [])) is None
    assert mean_uncertainty(boxes([[1.0, 0.0]])) == pytest.approx(0.0, abs=1e-9)
