"""The gain that more labels promise."""

from __future__ import annotations

import numpy as np
import pytest

from backend.evaluation.projection import MORE, project_gain
from backend.evaluation.stopping import fit_power_law

COUNTS = [20, 40, 80, 160]


def scores(noise: float = 0.0, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [0.9 - 2 * count**-0.5 + noise * float(rng.normal()) for count in COUNTS]


def spans(values: list[float], half: float) -> list[tuple[float, float] | None]:
    return [(value - half, value + half) for value in values]


@pytest.mark.parametrize("values", [scores(), scores(0.03), scores(0.1, 2), [0.5] * 4, [0.6, 0.5, 0.4, 0.3]])
def test_the_gain_is_that_of_the_power_law(values: list[float]) -> None:
    law = fit_power_law(COUNTS, values)
    projected = project_gain(COUNTS, values, spans(values, 0.05), np.random.default_rng(0))
    assert projected is not None
    assert projected.labels == 160
    assert projected.gain == pytest.approx(law.at(160 + MORE) - law.at(160), abs=1e-9)


def test_the_interval_is_wider_the_less_the_qualities_are_known() -> None:
    def width(half: float) -> float:
        projected = project_gain(COUNTS, scores(), spans(scores(), half), np.random.default_rng(0))
        assert projected is not None
        assert projected.interval is not None
        return projected.interval[1] - projected.interval[0]

    assert 0 < width(0.002) < width(0.02)


def test_without_intervals_there_is_a_gain_alone() -> None:
    projected = project_gain(COUNTS, scores(), [None] * 4, np.random.default_rng(0))
    assert projected is not None
    assert projected.interval is None


@pytest.mark.parametrize("counts", [[], [20, 40, 80], [20, 40, 80, 80, 80]])
def test_fewer_than_four_sizes_promise_nothing(counts: list[int]) -> None:
    values = [0.5] * len(counts)
    assert project_gain(counts, values, spans(values, 0.05), np.random.default_rng(0)) is None
