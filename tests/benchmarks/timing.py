"""Timing of contenders that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np


def interleaved(rounds: int, *contenders: Callable[[], object]) -> list[list[float]]:
    """Return the seconds of each contender in each round, after one round that does not count.

    Every other round runs in the opposite order, so that no contender always follows the same one.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds + 1):
        order = list(range(len(contenders)))
        for index in order if number % 2 else reversed(order):
            started = time.perf_counter()
            contenders[index]()
            if number:
                seconds[index].append(time.perf_counter() - started)
    return seconds


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how many times faster ours is, as the median of the ratios of the rounds.

    >>> speedup([1.0, 1.0, 2.0], [2.0, 2.0, 2.0])
    2.0
    """
    return median(their / our for our, their in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that at least q percent of `values` do not exceed.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 99)
    4.0
    """
    return float(np.percentile(values, q, method="inverted_cdf"))
