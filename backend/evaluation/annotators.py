"""How far people agree on the same task: one number per control tag, and the tasks on which they agree least."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from backend.evaluation.agreement import Shown, agreement


@dataclass(frozen=True, slots=True)
class TaskAgreement:
    """How far the annotators of one task agree on the labels of one control tag."""

    task_id: int
    tag: str  # name of the control tag
    annotators: int
    pairs: int  # boxes of the same class with IoU >= .5, over all pairs of annotators
    boxes: int  # boxes of both annotators, over all pairs

    @property
    def f1(self) -> float:
        """2 · pairs / boxes; 1 where nobody drew a box."""
        return 2 * self.pairs / self.boxes if self.boxes else 1.0


@dataclass(frozen=True, slots=True)
class TagAgreement:
    """How far people agree on one control tag, over all tasks that several of them annotated."""

    tasks: int
    f1: float  # of all boxes together
    same: int  # tasks on which all agree in every box
    worst: tuple[TaskAgreement, ...]  # the lowest F1 first, without full agreement


def on_task(task_id: int, tag: str, answers: Sequence[Shown]) -> TaskAgreement:
    """Return the agreement of two or more annotators of a task, each with boxes (n, 4) and classes (n,).

    >>> import numpy as np
    >>> box, cat, dog = np.array([[0, 0, 9, 9]]), np.array([0]), np.array([1])
    >>> agreement_of_three = on_task(7, "label", [(box, cat), (box, cat), (box, dog)])
    >>> agreement_of_three.pairs, agreement_of_three.boxes, round(agreement_of_three.f1, 2)
    (1, 6, 0.33)
    """
    counts = [agreement(*first, *second) for first, second in combinations(answers, 2)]
    return TaskAgreement(
        task_id, tag, len(answers), sum(pairs for pairs, _ in counts), sum(boxes for _, boxes in counts)
    )


def of_tag(tasks: Iterable[TaskAgreement], tag: str, shown: int) -> TagAgreement | None:
    """Return the agreement on a control tag, with at most `shown` of its worst tasks; None if no task overlaps."""
    chosen = [task for task in tasks if task.tag == tag]
    if not chosen:
        return None
    boxes = sum(task.boxes for task in chosen)
    disputed = sorted((task for task in chosen if task.f1 < 1), key=lambda task: (task.f1, task.task_id))
    return TagAgreement(
        tasks=len(chosen),
        f1=2 * sum(task.pairs for task in chosen) / boxes if boxes else 1.0,
        same=len(chosen) - len(disputed),
        worst=tuple(disputed[:shown]),
    )
