"""How much two orders of the same tasks differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.types import IntArray


@dataclass(frozen=True, slots=True)
class OrderAgreement:
    """The agreement of two orders over the tasks that both hold."""

    tasks: int  # in both
    spearman: float  # rank correlation: 1 same order, 0 unrelated, −1 reversed
    first: int  # length of the front that is compared
    shared: int  # tasks that are in the front of both


def agreement(current: IntArray, other: IntArray, first: int) -> OrderAgreement:
    """Compare two orders of tasks, each a permutation of task ids, the next task first: (n,), (m,).

    Spearman's ρ = 1 − 6 Σ d² / (k (k² − 1)), d the difference of a task's places among the k tasks in both orders; 1
    for fewer than two.

    >>> agreement(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1]), 2)
    OrderAgreement(tasks=4, spearman=-1.0, first=2, shared=0)
    >>> agreement(np.array([1, 2, 3, 9]), np.array([1, 3, 2]), 2)
    OrderAgreement(tasks=3, spearman=0.5, first=2, shared=1)
    """
    left, right = current[np.isin(current, other)], other[np.isin(other, current)]
    k = len(left)
    # Sorted by task id, so the rows of both belong together: the place of each task in its order.
    by_id, other_by_id = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
    squared = float(((by_id - other_by_id) ** 2).sum())
    spearman = 1.0 if k < 2 else 1.0 - 6.0 * squared / (k * (k * k - 1.0))
    shared = len(np.intersect1d(current[:first], other[:first]))
    return OrderAgreement(k, spearman, min(first, k), shared)
