"""Control tasks: which tasks are handed out without pre-annotation."""

from __future__ import annotations

import numpy as np

from backend.sampling.blanks import blank_tasks
from backend.types import Ranking


def order(count: int, explored: float) -> Ranking:
    ids = np.arange(1, count + 1)
    values = np.linspace(0, 1, count, dtype=np.float32)
    return Ranking(ids, values, values, ids <= explored * count, "random")


def test_only_explored_tasks_are_drawn() -> None:
    assert blank_tasks(order(1000, 0.2), 1.0, 3) == frozenset(range(1, 201))
    assert blank_tasks(order(1000, 0.2), 0.0, 3) == frozenset()
    assert blank_tasks(order(0, 1.0), 0.5, 3) == frozenset()


def test_the_share_holds_and_the_order_of_the_pool_does_not_matter() -> None:
    whole = order(10_000, 1.0)
    drawn = blank_tasks(whole, 0.1, 3)
    assert 900 < len(drawn) < 1100
    turned = Ranking(whole.task_ids[::-1], whole.priority, whole.acquisition, whole.explored, "random")
    assert blank_tasks(turned, 0.1, 3) == drawn


def test_a_larger_share_keeps_the_tasks_of_a_smaller_one() -> None:
    assert blank_tasks(order(1000, 1.0), 0.1, 3) < blank_tasks(order(1000, 1.0), 0.3, 3)
