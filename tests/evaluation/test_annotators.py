"""How far people agree on the same task."""

from __future__ import annotations

import numpy as np

from backend.evaluation.agreement import Shown
from backend.evaluation.annotators import TaskAgreement, of_tag, on_task


def answer(*boxes: tuple[int, int]) -> Shown:
    """Return boxes of 10 x 10 at (x, class)."""
    corners = np.array([[x, 0, x + 10, 10] for x, _ in boxes], dtype=np.float64).reshape(-1, 4)
    return corners, np.array([kind for _, kind in boxes], dtype=np.int64)


def test_every_pair_of_annotators_counts() -> None:
    task = on_task(7, "label", [answer((0, 0), (50, 1)), answer((1, 0)), answer((1, 0), (51, 1))])
    assert (task.annotators, task.pairs, task.boxes) == (3, 1 + 2 + 1, 3 + 4 + 3)
    assert task.f1 == 0.8


def test_two_who_drew_nothing_agree() -> None:
    assert on_task(7, "label", [answer(), answer()]).f1 == 1.0
    assert on_task(7, "label", [answer(), answer((0, 0))]).f1 == 0.0


def test_the_worst_tasks_come_first_and_full_agreement_is_not_listed() -> None:
    tasks = [TaskAgreement(n, "label", 2, pairs, 4) for n, pairs in enumerate([2, 0, 1, 0])]
    tasks.append(TaskAgreement(9, "other", 2, 0, 4))
    agreement = of_tag(tasks, "label", shown=2)
    assert agreement is not None
    assert (agreement.tasks, agreement.same) == (4, 1)
    assert agreement.f1 == 2 * 3 / 16
    assert [task.task_id for task in agreement.worst] == [1, 3]
    assert of_tag(tasks, "third", shown=2) is None
