from __future__ import annotations

import math

import numpy as np
import pytest

from backend.simulate import curves
from backend.simulate.curves import Curve

IMAGES = np.array([[60.0, 120.0, 180.0]] * 3)


def curve(*rows: list[float]) -> Curve:
    return Curve(IMAGES[: len(rows)], np.array(rows))


RANDOM = curve([0.4, 0.5, 0.6], [0.4, 0.52, 0.58], [0.4, 0.48, 0.62])


def test_a_strategy_that_is_better_in_every_seed() -> None:
    comparison = curves.compare(curve([0.4, 0.7, 0.8], [0.4, 0.7, 0.8], [0.4, 0.7, 0.8]), RANDOM)
    assert comparison.final.value == pytest.approx(0.8)
    assert comparison.final_gain.value == pytest.approx(0.2)
    assert comparison.final_gain.sign == 1
    assert comparison.area.value == pytest.approx((0.55 + 0.75) / 2)
    assert comparison.area_gain.value == pytest.approx(0.65 - 0.5)
    assert comparison.share.value == pytest.approx(100 / 180)  # mean of random ends at .6: two thirds of the way to 120
    assert comparison.share.low <= comparison.share.value <= comparison.share.high < 1


def test_random_against_itself_is_no_difference() -> None:
    comparison = curves.compare(RANDOM, RANDOM)
    assert (
        comparison.final_gain.value,
        comparison.final_gain.low,
        comparison.final_gain.high,
        comparison.final_gain.sign,
    ) == (0, 0, 0, 0)
    assert (comparison.share.value, comparison.share.low, comparison.share.high) == (1, 1, 1)


def test_a_gain_in_some_seeds_only_is_noise() -> None:
    comparison = curves.compare(curve([0.4, 0.6, 0.7], [0.4, 0.5, 0.5], [0.4, 0.6, 0.7]), RANDOM)
    assert comparison.final_gain.value > 0
    assert comparison.final_gain.low < 0 < comparison.final_gain.high
    assert comparison.final_gain.sign == 0


def test_a_target_that_is_never_reached() -> None:
    comparison = curves.compare(curve([0.4, 0.4, 0.4], [0.4, 0.4, 0.4], [0.4, 0.4, 0.4]), RANDOM)
    assert math.isinf(comparison.share.value)
    assert math.isinf(comparison.share.high)
    assert comparison.final_gain.sign == -1


def test_one_seed_has_no_interval() -> None:
    comparison = curves.compare(curve([0.4, 0.7, 0.8]), curve([0.4, 0.5, 0.6]))
    assert math.isnan(comparison.final_gain.low)
    assert comparison.final_gain.sign == 0
    assert comparison.share.value == pytest.approx(100 / 180)


def test_many_seeds_are_resampled_and_always_the_same() -> None:
    gains = np.random.default_rng(1).normal(0.1, 0.05, 12)
    first = curves.bootstrap(lambda drawn: float(gains[drawn].mean()), 12)
    assert first == curves.bootstrap(lambda drawn: float(gains[drawn].mean()), 12)
    error = gains.std() / math.sqrt(12)
    assert first.low == pytest.approx(gains.mean() - 1.96 * error, abs=error / 3)
    assert first.high == pytest.approx(gains.mean() + 1.96 * error, abs=error / 3)


@pytest.mark.parametrize(
    ("labels", "quality"),
    [(np.zeros((0, 0)), np.zeros((0, 0))), (np.zeros(3), np.zeros(3)), (np.zeros((1, 3)), np.zeros((1, 2)))],
)
def test_shapes_that_do_not_fit_are_refused(labels: curves.Floats, quality: curves.Floats) -> None:
    with pytest.raises(ValueError, match="seeds by rounds"):
        Curve(labels, quality)
