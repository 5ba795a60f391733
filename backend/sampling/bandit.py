"""Which strategy to use next: a bandit over strategies, rewarded by what their labels did for the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["ucb1", "thompson"]


@dataclass(frozen=True, slots=True)
class Reward:
    """What one round of labels, chosen by one strategy, was worth."""

    version: int  # that was trained with them
    strategy: str
    images: int  # newly labeled
    boxes: int  # on them
    gain: float  # mAP50 over the version before, on the same randomly chosen validation images
    disagreement: float | None = None  # mean 1 − F1(prediction, human) over the images; favours hard and noisy ones
    judged_on: int = 0  # held-out images that the gain was measured on; 0: not known
    interval: tuple[float, float] | None = None  # of the gain, 95%; None: not known

    @property
    def value(self) -> float:
        """The gain per labeled box; an image without any cost about as much as one box."""
        return self.gain / max(self.boxes, self.images, 1)


@dataclass(frozen=True, slots=True)
class Arm:
    """One strategy's record."""

    strategy: str
    rounds: int
    mean: float  # of the rewards, scaled so that the largest of all arms has size 1; 0 without rounds


def arms(history: Sequence[Reward], strategies: Sequence[str]) -> tuple[Arm, ...]:
    """Return the record of each strategy, in order; rewards of other strategies and non-finite ones are left out.

    >>> history = [Reward(1, "a", 9, 10, .2), Reward(2, "a", 9, 10, .4), Reward(3, "b", 9, 10, -.1)]
    >>> [(arm.strategy, arm.rounds, round(arm.mean, 3)) for arm in arms(history, ["b", "a", "c"])]
    [('b', 1, -0.25), ('a', 2, 0.75), ('c', 0, 0.0)]
    """
    rewards = _scaled(history, strategies)
    return tuple(Arm(name, len(own), math.fsum(own) / len(own) if own else 0.0) for name, own in rewards.items())


def choose(
    history: Sequence[Reward], strategies: Sequence[str], method: Method, rng: np.random.Generator, *, c: float = 1.0
) -> str:
    """Return the strategy to use next: an untried one first, in order; then the one with the highest index.

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
    """Return r̄_k + c √(2 ln t / n_k) of arms that were all tried, t being all rounds.

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
    spread = math.sqrt(squares / freedom) if freedom > 0 else 1.0  # one round each says nothing of the spread
    return {arm.strategy: float(rng.normal(arm.mean, spread / math.sqrt(arm.rounds))) for arm in record}


def _scaled(history: Sequence[Reward], strategies: Sequence[str]) -> dict[str, list[float]]:
    """Return the rewards by strategy over the size of the largest: gains per box are tiny, the index expects [0, 1]."""
    known = [one for one in history if one.strategy in strategies and math.isfinite(one.value)]
    largest = max((abs(one.value) for one in known), default=0.0) or 1.0
    return {name: [one.value / largest for one in known if one.strategy == name] for name in strategies}
