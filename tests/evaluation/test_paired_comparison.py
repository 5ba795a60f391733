"""Two models compared on the tasks that both were judged by."""

from __future__ import annotations

import numpy as np

from backend.evaluation.paired_comparison import TaskSample, compare_samples
from backend.evaluation.samples import Answers


def sample(right: list[int], tasks: list[int], classes: tuple[str, ...] = ("cat",)) -> TaskSample:
    values = np.array(right)[:, None]
    return TaskSample(tuple(map(str, tasks)), classes, Answers(values, np.ones_like(values)))


def test_only_common_tasks_count_in_whatever_order() -> None:
    before = sample([1, 0, 0], [1, 2, 3])
    after = sample([0, 1, 1], [9, 3, 2])
    comparison = compare_samples(before, after)
    assert comparison.images == 2
    overall, cat = comparison.qualities
    assert (overall.label, overall.before, overall.after) == ("", 0.0, 1.0)
    assert (cat.label, cat.before, cat.after, cat.interval) == ("cat", 0.0, 1.0, (1.0, 1.0))


def test_the_interval_is_that_of_the_paired_difference() -> None:
    """Both models fail on the same half of the tasks, so the difference does not vary with the draw."""
    right = [index % 2 for index in range(40)]
    overall = compare_samples(sample(right, list(range(40))), sample(right, list(range(40)))).qualities[0]
    assert overall.interval == (0.0, 0.0)


def test_classes_are_matched_by_name() -> None:
    before, after = sample([1, 0], [1, 2], ("cat",)), sample([1, 1], [1, 2], ("dog",))
    assert [quality.label for quality in compare_samples(before, after).qualities] == [""]


def test_without_a_common_task_there_is_nothing_to_compare() -> None:
    assert compare_samples(sample([1], [1]), sample([1], [2])).qualities == ()
    (overall, _) = compare_samples(sample([1], [1]), sample([0], [1])).qualities
    assert (overall.after - overall.before, overall.interval) == (-1.0, None)
