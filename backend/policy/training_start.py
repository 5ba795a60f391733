"""Where a training starts: from the served weights, or from the base weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The served model, as a possible start of the next training."""

    classes: tuple[str, ...]
    base_model: str
    learned: Collection[int] | None  # ids of the tasks that its weights have ever learned from; None: not known


def starts_from_served(
    served: Origin | None, *, train_from: str, classes: tuple[str, ...], base_model: str, held_out: Collection[int]
) -> bool:
    """Return whether a training starts from the served weights, and not from the base weights.

    It starts from the base weights if the served weights have other classes or another base model. It also does if the
    served weights have learned from a task that is held out now: the challenger would be judged on images that it has
    learned. `held_out` are the ids of the tasks that the training is judged on and does not learn from.

    >>> served = Origin(("cat",), "yolo11n.pt", {1, 2})
    >>> starts_from_served(served, train_from="last", classes=("cat",), base_model="yolo11n.pt", held_out={3})
    True
    >>> starts_from_served(served, train_from="last", classes=("cat",), base_model="yolo11n.pt", held_out={2, 3})
    False
    """
    if train_from == "base" or served is None or served.learned is None:
        return False
    is_same = (served.classes, served.base_model) == (classes, base_model)
    return is_same and set(served.learned).isdisjoint(held_out)
