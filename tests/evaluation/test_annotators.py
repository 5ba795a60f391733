"""How far people agree on the same task."""

from __future__ import annotations

import numpy as np

from backend.evaluation.agreement import Shown
from backend.evaluation.annotators import AgreedBoxes, GroupAgreement, TaskAgreement, of_tag, on_task

LABELS = ("cat", "dog")


def answer(*boxes: tuple[int, int]) -> Shown:
    """Return boxes of 10 x 10 at (x, class)."""
    corners = np.array([[x, 0, x + 10, 10] for x, _ in boxes], dtype=np.float64).reshape(-1, 4)
    return corners, np.array([kind for _, kind in boxes], dtype=np.int64)


def test_every_pair_of_annotators_counts() -> None:
    people = {4: answer((0, 0), (50, 1)), 5: answer((1, 0)), 6: answer((1, 0), (51, 1))}
    task = on_task(7, "label", people, LABELS)
    assert (task.annotators, task.pairs, task.boxes) == (3, 1 + 2 + 1, 3 + 4 + 3)
    assert task.f1 == 0.8
    assert task.people == (
        AgreedBoxes("4", 1 + 2, 3 + 4),
        AgreedBoxes("5", 1 + 1, 3 + 3),
        AgreedBoxes("6", 2 + 1, 4 + 3),
    )
    assert task.labels == (AgreedBoxes("cat", 3, 6), AgreedBoxes("dog", 1, 4))


def test_two_who_drew_nothing_agree() -> None:
    assert on_task(7, "label", {1: answer(), 2: answer()}, LABELS).f1 == 1.0
    assert on_task(7, "label", {1: answer(), 2: answer((0, 0))}, LABELS).f1 == 0.0


def test_the_worst_tasks_come_first_and_full_agreement_is_not_listed() -> None:
    tasks = [TaskAgreement(n, "label", 2, pairs, 4) for n, pairs in enumerate([2, 0, 1, 0])]
    tasks.append(TaskAgreement(9, "other", 2, 0, 4))
    agreement = of_tag(tasks, "label", shown=2)
    assert agreement is not None
    assert (agreement.tasks, agreement.same) == (4, 1)
    assert agreement.f1 == 2 * 3 / 16
    assert [task.task_id for task in agreement.worst] == [1, 3]
    assert of_tag(tasks, "third", shown=2) is None


def test_the_agreement_has_an_interval_over_the_tasks() -> None:
    few = of_tag([TaskAgreement(n, "label", 2, n % 2, 2) for n in range(20)], "label", 3)
    many = of_tag([TaskAgreement(n, "label", 2, n % 2, 2) for n in range(200)], "label", 3)
    assert few is not None
    assert many is not None
    assert few.interval is not None
    assert many.interval is not None
    assert few.interval[0] < many.interval[0] < 0.5 < many.interval[1] < few.interval[1]
    for tasks in ([TaskAgreement(1, "label", 2, 3, 6)], [TaskAgreement(n, "label", 2, 0, 0) for n in range(5)]):
        alone = of_tag(tasks, "label", 3)
        assert alone is not None
        assert alone.interval is None


def test_the_person_and_the_label_with_the_least_agreement_come_first() -> None:
    careful, careless = answer((0, 0), (50, 1)), answer((0, 0), (80, 1))
    tasks = [
        on_task(1, "label", {4: careful, 5: careful, 6: careless}, LABELS),
        on_task(2, "label", {4: careful, 5: careful}, LABELS),
    ]
    agreement = of_tag(tasks, "label", shown=2)
    assert agreement is not None
    assert agreement.people[0] == GroupAgreement("6", tasks=1, boxes=8, f1=0.5)
    assert [person.of for person in agreement.people] == ["6", "4", "5"]
    assert agreement.labels == (
        GroupAgreement("dog", tasks=2, boxes=8, f1=0.5),
        GroupAgreement("cat", tasks=2, boxes=8, f1=1.0),
    )
