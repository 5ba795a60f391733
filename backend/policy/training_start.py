"""Where a training starts: from the weights that serve, or from the base weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The model that serves, as a start of the next training."""

    classes: tuple[str, ...]
    base_model: str
    learned: Collection[int] | None  # the tasks that its weights have ever learned from; None: not known


def goes_on(
    served: Origin | None, *, train_from: str, classes: tuple[str, ...], base_model: str, held_out: Collection[int]
) -> bool:
    """Return whether a training starts from the weights that serve, and not from the base weights.

    It does not if these weights learned other classes, or began with another base model. Nor does it if they have
    learned from a task that is held out now: the challenger would be judged by what it knows. `held_out` are the tasks
    that the training is judged by and does not learn from.

    >>> served = Origin(("cat",), "yolo11n.pt", {1, 2})
    >>> goes_on(served, train_from="last", classes=("cat",), base_model="yolo11n.pt", held_out={3})
    True
    >>> goes_on(served, train_from="last", classes=("cat",), base_model="yolo11n.pt", held_out={2, 3})
    False
    """
    if train_from == "base" or served is None or served.learned is None:
        return False
    is_same = (served.classes, served.base_model) == (classes, base_model)
    return is_same and set(served.learned).isdisjoint(held_out)
