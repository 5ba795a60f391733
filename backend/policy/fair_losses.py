"""Which model's prediction of an image tells how hard the image is: one that has not learned from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from backend.acquisition.learning_loss import image_loss
from backend.geometry.coordinates import label_arrays
from backend.types import LabeledBox, Prediction

M = TypeVar("M")
A = TypeVar("A")


def fair(
    models: Iterable[M],
    task_ids: Iterable[int],
    learned: Callable[[M], Collection[int]],
    answers: Callable[[M, frozenset[int]], Iterable[tuple[int, A]]],
) -> Iterator[tuple[int, M, A]]:
    """Yield each task with the newest model that has not learned from it, and what that model says of the task.

    `models` are a tag's published models, newest first. `answers` gives what is kept of a model's answers to tasks. A
    task of which a model says nothing is left to the model before; one of which no model says anything is left out.

    >>> learned, kept = {"v2": {1, 2}, "v1": {1}}, {"v2": {3: "c"}, "v1": {1: "A", 2: "B", 3: "C"}}
    >>> def answers(model, task_ids):
    ...     return [(task_id, answer) for task_id, answer in kept[model].items() if task_id in task_ids]
    >>> list(fair(["v2", "v1"], [1, 2, 3], learned.get, answers))
    [(3, 'v2', 'c'), (2, 'v1', 'B')]
    """
    left = set(task_ids)
    for model in models:
        if not left:
            return
        for task_id, answer in answers(model, frozenset(left.difference(learned(model)))):
            left.discard(task_id)
            yield task_id, model, answer


def loss_of(prediction: Prediction, labels: Sequence[LabeledBox], classes: Sequence[str]) -> float:
    """Return how badly a model with these classes predicted an image; a label that it never knew is not its mistake."""
    boxes, kinds = label_arrays(labels, classes, prediction.width, prediction.height)
    known = kinds >= 0
    return image_loss(prediction, boxes[known].astype(np.float32), kinds[known])
