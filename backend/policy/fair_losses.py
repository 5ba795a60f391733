"""How hard an image is: the loss of a model that has not learned from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from backend.acquisition.learning_loss import image_loss
from backend.geometry.coordinates import label_arrays
from backend.types import LabeledBox, Prediction

M = TypeVar("M")
A = TypeVar("A")


def fair_answers(
    models: Iterable[M],
    task_ids: Iterable[int],
    learned: Callable[[M], Collection[int]],
    answers: Callable[[M, frozenset[int]], Iterable[tuple[int, A]]],
) -> Iterator[tuple[int, M, A]]:
    """Yield each task with the newest model that has not learned from it, and that model's answer to the task.

    `models` are a tag's published models, newest first. `learned` returns the tasks that a model has learned from,
    `answers` a model's stored answers to tasks. If a model has no answer to a task, the model before it is asked.
    Tasks that no model has an answer to are left out.

    >>> learned, stored = {"v2": {1, 2}, "v1": {1}}, {"v2": {3: "c"}, "v1": {1: "A", 2: "B", 3: "C"}}
    >>> def answers(model, task_ids):
    ...     return [(task_id, answer) for task_id, answer in stored[model].items() if task_id in task_ids]
    >>> list(fair_answers(["v2", "v1"], [1, 2, 3], learned.get, answers))
    [(3, 'v2', 'c'), (2, 'v1', 'B')]
    """
    remaining = set(task_ids)
    for model in models:
        if not remaining:
            return
        for task_id, answer in answers(model, frozenset(remaining.difference(learned(model)))):
            remaining.discard(task_id)
            yield task_id, model, answer


def prediction_loss(prediction: Prediction, labels: Sequence[LabeledBox], classes: Sequence[str]) -> float:
    """Return the loss of a prediction of an image (see `learning_loss.image_loss`).

    `classes` are those of the model. Labels of other classes are ignored: it could not predict them.
    """
    boxes, class_ids = label_arrays(labels, classes, prediction.width, prediction.height)
    has_class = class_ids >= 0
    return image_loss(prediction, boxes[has_class].astype(np.float32), class_ids[has_class])
