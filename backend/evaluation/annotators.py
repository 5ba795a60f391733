"""How far people agree on the same task: one number per control tag, per person and per label, and the worst tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from backend.evaluation import bootstrap
from backend.evaluation.agreement import Shown, agreement


@dataclass(frozen=True, slots=True)
class AgreedBoxes:
    """The boxes of one person, or of one label, on one task, over all pairs of annotators that they are in."""

    of: str  # id of the annotator, or the label
    pairs: int  # boxes of the same class with IoU >= .5
    boxes: int  # of both annotators


@dataclass(frozen=True, slots=True)
class TaskAgreement:
    """How far the annotators of one task agree on the labels of one control tag."""

    task_id: int
    tag: str  # name of the control tag
    annotators: int
    pairs: int  # boxes of the same class with IoU >= .5, over all pairs of annotators
    boxes: int  # boxes of both annotators, over all pairs
    people: tuple[AgreedBoxes, ...] = ()  # empty for a task that an earlier release measured
    labels: tuple[AgreedBoxes, ...] = ()

    @property
    def f1(self) -> float:
        """2 · pairs / boxes; 1 where nobody drew a box."""
        return _f1(self.pairs, self.boxes)


@dataclass(frozen=True, slots=True)
class GroupAgreement:
    """How far one person agrees with the others, or how far people agree on one label."""

    of: str  # id of the annotator, or the label
    tasks: int
    boxes: int
    f1: float


@dataclass(frozen=True, slots=True)
class TagAgreement:
    """How far people agree on one control tag, over all tasks that several of them annotated."""

    tasks: int
    f1: float  # of all boxes together
    same: int  # tasks on which all agree in every box
    interval: tuple[float, float] | None  # 95%, of f1 over the tasks; None: fewer than 2, or nobody drew a box
    worst: tuple[TaskAgreement, ...]  # the lowest F1 first, without full agreement
    people: tuple[GroupAgreement, ...] = ()  # the lowest F1 first
    labels: tuple[GroupAgreement, ...] = ()  # the lowest F1 first


def on_task(task_id: int, tag: str, answers: Mapping[int, Shown], labels: Sequence[str]) -> TaskAgreement:
    """Return the agreement of two or more annotators of a task, by their ids; each has boxes (n, 4) and classes (n,).

    The classes are places in `labels`.

    >>> import numpy as np
    >>> box, cat, dog = np.array([[0, 0, 9, 9]]), np.array([0]), np.array([1])
    >>> three = on_task(7, "label", {1: (box, cat), 2: (box, cat), 3: (box, dog)}, ("cat", "dog"))
    >>> three.pairs, three.boxes, round(three.f1, 2), three.labels[1]
    (1, 6, 0.33, AgreedBoxes(of='dog', pairs=0, boxes=2))
    """
    by_person, by_label, total = (Counter[tuple[str, str]]() for _ in range(3))
    for (first, boxes), (second, others) in combinations(answers.items(), 2):
        for place, label in enumerate(labels):
            pairs, count = agreement(*_of_class(boxes, place), *_of_class(others, place))
            for counter, names in ((by_person, (str(first), str(second))), (by_label, (label,)), (total, ("",))):
                for name in names:
                    counter.update({(name, "pairs"): pairs, (name, "boxes"): count})
    people, on_labels = _agreed(by_person, map(str, answers)), _agreed(by_label, labels)
    return TaskAgreement(
        *(task_id, tag, len(answers), total["", "pairs"], total["", "boxes"]),
        people,
        tuple(of_label for of_label in on_labels if of_label.boxes),
    )


def _of_class(shown: Shown, kind: int) -> Shown:
    boxes, classes = shown
    return boxes[classes == kind], classes[classes == kind]


def _agreed(counts: Counter[tuple[str, str]], names: Iterable[str]) -> tuple[AgreedBoxes, ...]:
    return tuple(AgreedBoxes(name, counts[name, "pairs"], counts[name, "boxes"]) for name in names)


def _f1(pairs: int, boxes: int) -> float:
    return 2 * pairs / boxes if boxes else 1.0


def of_tag(tasks: Iterable[TaskAgreement], tag: str, shown: int) -> TagAgreement | None:
    """Return the agreement on a control tag, with at most `shown` of its worst tasks; None if no task overlaps."""
    chosen = [task for task in tasks if task.tag == tag]
    if not chosen:
        return None
    boxes = sum(task.boxes for task in chosen)
    disputed = sorted((task for task in chosen if task.f1 < 1), key=lambda task: (task.f1, task.task_id))
    return TagAgreement(
        tasks=len(chosen),
        f1=_f1(sum(task.pairs for task in chosen), boxes),
        same=len(chosen) - len(disputed),
        interval=bootstrap.ratio_interval(
            [2 * task.pairs for task in chosen], [task.boxes for task in chosen], np.random.default_rng(0)
        ),
        worst=tuple(disputed[:shown]),
        people=_groups(chosen, lambda task: task.people),
        labels=_groups(chosen, lambda task: task.labels),
    )


def _groups(
    tasks: Sequence[TaskAgreement], parts: Callable[[TaskAgreement], tuple[AgreedBoxes, ...]]
) -> tuple[GroupAgreement, ...]:
    """Return the agreement of each person or label over all tasks, the lowest F1 first."""
    by_name: dict[str, list[AgreedBoxes]] = {}
    for part in (part for task in tasks for part in parts(task)):
        by_name.setdefault(part.of, []).append(part)
    groups = []
    for name, agreed in by_name.items():
        boxes = sum(part.boxes for part in agreed)
        groups.append(GroupAgreement(name, len(agreed), boxes, _f1(sum(part.pairs for part in agreed), boxes)))
    return tuple(sorted(groups, key=lambda group: (group.f1, group.of)))
