"""Stream admission: its rate, its quota, and the setting for both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import SettingError
from backend.sampling.stream_admission import ETA, Rate, StreamState, offer, parse_rate, share


def run(
    scores: list[float], rate: Rate, every_s: float = 1.0, eta: float = ETA, threshold: float | None = None
) -> tuple[StreamState, list[bool]]:
    state, queried = StreamState(threshold), []
    for place, score in enumerate(scores):
        state, admitted = offer(state, score, rate, place * every_s, eta=eta)
        queried.append(admitted)
    return state, queried


def test_worked_example() -> None:
    """τ = .5, η = .1, ρ = .2: each query lifts τ by .08, each pass lowers it by .02."""
    state, queried = run([0.7, 0.57, 0.57, 0.1], Rate(share=0.2), eta=0.1, threshold=0.5)
    assert queried == [True, False, True, False]  # τ: .5 → .58 → .56 → .64 → .62
    assert state.threshold == pytest.approx(0.62)


@given(st.lists(st.floats(0, 1), max_size=300), st.floats(0, 1), st.floats(0.01, 0.5))
@settings(max_examples=100, deadline=None)
def test_holds_the_rate_whatever_the_scores(scores: list[float], wanted: float, eta: float) -> None:
    _, queried = run(scores, Rate(share=wanted), eta=eta)
    assert abs(sum(queried) - wanted * len(scores)) <= (1 + eta) / eta + 1e-6


@pytest.mark.parametrize("wanted", [0.05, 0.2, 0.5])
def test_takes_the_upper_share_of_a_steady_stream(wanted: float) -> None:
    scores = np.random.default_rng(0).random(4000).tolist()
    _, queried = run(scores, Rate(share=wanted))
    assert np.mean(queried) == pytest.approx(wanted, abs=0.01)
    assert np.mean(np.array(scores)[queried]) > np.mean(scores) + 0.3 * (1 - wanted)


def test_starts_at_the_quantile_that_gives_the_rate() -> None:
    assert run([0.8], Rate(share=0.2))[1] == [True]
    assert run([0.79], Rate(share=0.2))[1] == [False]
    assert run([0.0, 0.3, 0.0], Rate(share=1.0))[1] == [True, True, True]


def test_the_quota_is_never_exceeded_and_renews() -> None:
    _, queried = run([1.0] * 300, Rate(share=1.0, quota=10, period_s=3600), every_s=36.0)  # 100 per hour
    assert np.array(queried).reshape(3, 100).sum(axis=1).tolist() == [10, 10, 10]


def test_a_spent_quota_does_not_move_the_threshold() -> None:
    state, _ = run([1.0] * 3, Rate(share=0.5, quota=3))
    assert offer(state, 1.0, Rate(share=0.5, quota=3), 5.0)[0].threshold == state.threshold


def test_a_quota_alone_is_spread_over_the_next_period() -> None:
    """In the first hour the number of arrivals is unknown; in the second, the ten come from all parts of the hour."""
    scores = np.random.default_rng(1).random(2000).tolist()
    _, queried = run(scores, Rate(quota=100, period_s=3600), every_s=3.6)  # 1000 per hour
    first, second = np.array(queried).reshape(2, 1000)
    assert first.sum() == 100
    assert 60 <= second.sum() <= 100
    assert second[500:].sum() >= 25


def test_an_idle_period_is_forgotten() -> None:
    state = StreamState(period=3, arrived=500)
    rate = Rate(quota=100, period_s=3600)
    assert share(offer(state, 0.0, rate, 4 * 3600.0)[0], rate) == pytest.approx(0.2)
    assert share(offer(state, 0.0, rate, 5 * 3600.0)[0], rate) == 1.0


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_outside_0_to_1_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        offer(StreamState(), score, Rate(share=0.5), 0.0)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", None),
        (" ", None),
        ("20%", Rate(share=0.2)),
        ("0%", Rate(share=0.0)),
        ("100 %", Rate(share=1.0)),
        ("100/day", Rate(quota=100)),
        ("0/hour", Rate(quota=0, period_s=3600)),
        ("7.5%,10/hour", Rate(share=0.075, quota=10, period_s=3600)),
    ],
)
def test_rates(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["101%", "-1%", "100", "100/week", "many/day", "1/day/day", "5%,", "nan%"])
def test_an_invalid_rate_is_answered_with_the_allowed_values(text: str) -> None:
    with pytest.raises(SettingError, match=r"RATE=.*0% to 100%.*10/hour"):
        parse_rate(text)
