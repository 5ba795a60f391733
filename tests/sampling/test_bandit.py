"""The bandit: worked examples of its indexes, and simulations in which it finds the best strategy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.sampling import bandit
from backend.sampling.bandit import Arm, Method, Reward, arms, choose

METHODS: list[Method] = ["ucb1", "thompson"]


def reward(strategy: str, value: float, version: int = 1) -> Reward:
    return Reward(version, strategy, images=20, boxes=100, gain=value * 100)


def test_the_reward_is_the_gain_per_box() -> None:
    assert Reward(1, "a", images=20, boxes=100, gain=0.05).value == pytest.approx(0.0005)
    assert Reward(1, "a", images=20, boxes=0, gain=0.05).value == pytest.approx(0.0025)  # background images
    assert Reward(1, "a", images=0, boxes=0, gain=0.0).value == 0.0


def test_ucb1_by_hand() -> None:
    """a: .8 and .4 of the largest; b: 1. ln 3 = 1.0986."""
    history = [reward("a", 0.008), reward("a", 0.004), reward("b", 0.010)]
    assert arms(history, ["a", "b"]) == (Arm("a", 2, pytest.approx(0.6)), Arm("b", 1, pytest.approx(1.0)))  # type: ignore[arg-type]
    index = bandit.ucb1(arms(history, ["a", "b"]))
    assert index == pytest.approx({"a": 0.6 + math.sqrt(math.log(3)), "b": 1 + math.sqrt(2 * math.log(3))})
    assert choose(history, ["a", "b"], "ucb1", np.random.default_rng(0)) == "b"


def test_rarely_tried_strategies_are_tried_again() -> None:
    history = [reward("a", 0.01)] * 30 + [reward("b", 0.008)]
    assert choose(history, ["a", "b"], "ucb1", np.random.default_rng(0)) == "b"
    assert choose(history, ["a", "b"], "ucb1", np.random.default_rng(0), c=0.0) == "a"


@pytest.mark.parametrize("method", METHODS)
def test_every_strategy_is_tried_first_in_order(method: Method) -> None:
    rng = np.random.default_rng(0)
    history: list[Reward] = []
    for expected in ("c", "a", "b"):
        assert choose(history, ["c", "a", "b"], method, rng) == expected
        history.append(reward(expected, 0.001))


@pytest.mark.parametrize("method", METHODS)
def test_finds_the_best_arm(method: Method) -> None:
    rng = np.random.default_rng(0)
    means = {"good": 0.006, "fair": 0.003, "bad": 0.0}
    history: list[Reward] = []
    for version in range(200):
        chosen = choose(history, list(means), method, rng)
        history.append(reward(chosen, rng.normal(means[chosen], 0.002), version))
    picks = [past.strategy for past in history[50:]]
    assert picks.count("good") > 0.5 * len(picks)
    assert picks.count("good") > picks.count("fair") > picks.count("bad") or picks.count("good") > 0.8 * len(picks)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, -0.01])
def test_one_equal_reward_each(method: Method, value: float) -> None:
    history = [reward("a", value), reward("b", value)]
    assert choose(history, ["a", "b"], method, np.random.default_rng(0)) in ("a", "b")


def test_unknown_strategies_and_broken_rewards_are_left_out() -> None:
    history = [reward("a", 0.01), reward("gone", 1.0), reward("a", math.nan)]
    assert arms(history, ["a", "b"]) == (Arm("a", 1, 1.0), Arm("b", 0, 0.0))


def test_thompson_is_the_same_for_a_seed() -> None:
    history = [reward(name, value) for name in "ab" for value in (0.01, 0.02, 0.015)]
    picks = [[choose(history, ["a", "b"], "thompson", np.random.default_rng(seed)) for seed in range(20)] for _ in "xy"]
    assert picks[0] == picks[1]
    assert len(set(picks[0])) == 2


def test_no_strategies() -> None:
    with pytest.raises(ValueError, match="at least one"):
        choose([], [], "ucb1", np.random.default_rng(0))
