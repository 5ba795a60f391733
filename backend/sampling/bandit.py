"""A bandit over strategies: it chooses the next strategy by the mAP50 that earlier strategies gained per label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["ucb1", "thompson"]


@dataclass(frozen=True, slots=True)
class Reward:
    """What the model gained by one round of labels that one strategy chose."""

    version: int  # number of the version that was trained with these labels
    strategy: str
    images: int  # newly labeled
    boxes: int  # labels on these images
    gain: float  # mAP50 minus that of the previous version, on the same randomly chosen validation images
    disagreement: float | None = None  # mean 1 − F1(prediction, human) over the images; high for hard and noisy images
    judged_on: int = 0  # held-out images that the gain was measured on; 0: not known
    interval: tuple[float, float] | None = None  # of the gain, 95%; None: not known

    @property
    def value(self) -> float:
        """The gain per labeled box; an image without boxes counts as one, because it costs about as much."""
        return self.gain / max(self.boxes, self.images, 1)


@dataclass(frozen=True, slots=True)
class Arm:
    """The rewards of one strategy so far."""

    strategy: str
    rounds: int
    mean: float  # of the rewards, divided by the largest absolute reward of all arms; 0 without rounds


def arms(history: Sequence[Reward], strategies: Sequence[str]) -> tuple[Arm, ...]:
    """Return the arm of each strategy, in order; rewards of other strategies and non-finite ones are left out.

    >>> history = [Reward(1, "a", 9, 10, .2), Reward(2, "a", 9, 10, .4), Reward(3, "b", 9, 10, -.1)]
    >>> [(arm.strategy, arm.rounds, round(arm.mean, 3)) for arm in arms(history, ["b", "a", "c"])]
    [('b', 1, -0.25), ('a', 2, 0.75), ('c', 0, 0.0)]
    """
    rewards = _scaled(history, strategies)
    return tuple(Arm(name, len(own), math.fsum(own) / len(own) if own else 0.0) for name, own in rewards.items())


def choose(
    history: Sequence[Reward], strategies: Sequence[str], method: Method, rng: np.random.Generator, *, c: float = 1.0
) -> str:
    """Return the strategy to use next: untried strategies first, in order, then the one with the highest index.

    UCB1 (Auer et al. 2002): r̄_k + c √(2 ln t / n_k). Thompson sampling: a draw from N(r̄_k, s²/n_k), s² the variance
    within the arms. Raises ValueError without strategies.
    """
    if not strategies:
        raise ValueError("a bandit needs at least one strategy")
    record = arms(history, strategies)
    untried = next((arm.strategy for arm in record if not arm.rounds), None)
    if untried is not None:
        return untried
    index = ucb1(record, c=c) if method == "ucb1" else _thompson(record, _scaled(history, strategies), rng)
    return max(record, key=lambda arm: index[arm.strategy]).strategy


def ucb1(record: Sequence[Arm], *, c: float = 1.0) -> dict[str, float]:
    """Return r̄_k + c √(2 ln t / n_k) of each arm, t being the sum of all rounds; every arm must have been tried.

    >>> ucb = ucb1([Arm("a", 2, .6), Arm("b", 1, .4)])  # ln 3 = 1.0986
    >>> {name: round(value, 4) for name, value in ucb.items()}  # .6 + √1.0986, .4 + √2.1972
    {'a': 1.6481, 'b': 1.8823}
    """
    total = sum(arm.rounds for arm in record)
    return {arm.strategy: arm.mean + c * math.sqrt(2 * math.log(total) / arm.rounds) for arm in record}


def _thompson(
    record: Sequence[Arm], rewards: Mapping[str, Sequence[float]], rng: np.random.Generator
) -> dict[str, float]:
    squares = math.fsum((reward - arm.mean) ** 2 for arm in record for reward in rewards[arm.strategy])
    freedom = sum(arm.rounds for arm in record) - len(record)
    spread = math.sqrt(squares / freedom) if freedom > 0 else 1.0  # with one round each the spread is unknown
    return {arm.strategy: float(rng.normal(arm.mean, spread / math.sqrt(arm.rounds))) for arm in record}


def _scaled(history: Sequence[Reward], strategies: Sequence[str]) -> dict[str, list[float]]:
    """Return the rewards by strategy, divided by the largest: gains per box are tiny, and UCB1 expects [0, 1]."""
    comparable = [reward for reward in history if reward.strategy in strategies and math.isfinite(reward.value)]
    largest = max((abs(reward.value) for reward in comparable), default=0.0) or 1.0
    return {name: [reward.value / largest for reward in comparable if reward.strategy == name] for name in strategies}
