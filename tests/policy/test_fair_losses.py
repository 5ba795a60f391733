from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from backend.acquisition.learning_loss import image_loss
from backend.policy.fair_losses import fair_answers, prediction_loss
from backend.types import LabeledBox, Prediction


@dataclass(frozen=True)
class Version:
    learned: frozenset[int]
    answers: Mapping[int, str]


NEW = Version(frozenset({1, 2, 3}), {1: "new", 2: "new", 3: "new", 4: "new"})
OLD = Version(frozenset({1, 2}), {1: "old", 3: "old", 4: "old", 5: "old"})
OLDEST = Version(frozenset({1}), {2: "oldest", 5: "oldest"})


def test_the_newest_version_that_has_not_learned_from_a_task_answers() -> None:
    requests: list[frozenset[int]] = []

    def answers(version: Version, task_ids: frozenset[int]) -> list[tuple[int, str]]:
        requests.append(task_ids)
        return [(task_id, answer) for task_id, answer in version.answers.items() if task_id in task_ids]

    judged = list(fair_answers((NEW, OLD, OLDEST), range(1, 7), lambda version: version.learned, answers))
    assert [(task_id, answer) for task_id, _, answer in judged] == [
        *((4, "new"), (3, "old"), (5, "old"), (2, "oldest")),  # all have learned from 1, and none has an answer to 6
    ]
    assert [version for _, version, _ in judged] == [NEW, OLD, OLD, OLDEST]
    assert requests == [{4, 5, 6}, {3, 5, 6}, {2, 6}]


def test_without_tasks_no_version_is_asked() -> None:
    def never(version: Version, task_ids: frozenset[int]) -> list[tuple[int, str]]:
        raise AssertionError(task_ids)

    assert list(fair_answers((NEW,), (), lambda version: version.learned, never)) == []


@pytest.mark.parametrize(("label", "boxes"), [("cat", 1), ("horse", 0)])
def test_a_label_of_a_class_that_the_model_lacks_costs_no_loss(label: str, boxes: int) -> None:
    box = np.array([[0, 0, 50, 50]], dtype=np.float32)
    probs = np.array([[0.2, 0.0]], dtype=np.float32)
    prediction = Prediction(100, 50, box, probs, probs.max(axis=1), np.zeros(2, np.float32))
    labels = (LabeledBox(label, (0.25, 0.5, 0.5, 1.0)),)
    expected = image_loss(prediction, box[:boxes], np.zeros(boxes, dtype=np.int64))
    assert prediction_loss(prediction, labels, ("cat", "dog")) == pytest.approx(expected)
