"""Seconds per task, corrections, and the hours that pre-annotation saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.evaluation import effort as efforts
from backend.evaluation.effort import AnnotationEffort


def effort(
    annotation: int, seconds: float | None = 10.0, version: int | None = 1, **changes: object
) -> AnnotationEffort:
    made = AnnotationEffort(annotation, annotation, 1, seconds, version, False, True, 2, 1, 0, 1, 1)
    return replace(made, **changes)  # type: ignore[arg-type]


def experiment(controls: int, others: int, blank_s: float, shown_s: float, seed: int = 0) -> list[AnnotationEffort]:
    """Return annotations with normally distributed times around the two means."""
    rng = np.random.default_rng(seed)
    blank = [effort(n, float(rng.normal(blank_s, 3)), blank=True) for n in range(controls)]
    return blank + [effort(1000 + n, float(rng.normal(shown_s, 3))) for n in range(others)]


def test_a_lunch_break_counts_as_the_fence() -> None:
    usual = [effort(n, 20.0 + n % 5) for n in range(40)]
    lunch = effort(99, 3600.0)
    longest = efforts.fence_of([*usual, lunch])
    assert longest == 29.0  # the quartiles are 21 and 23
    ids = {item.annotation_id for item in [*usual, lunch]}
    assert efforts.hours([*usual, lunch], ids, longest) == pytest.approx((40 * 22 + 29) / 3600)
    (row,) = efforts.by_version([*usual, lunch])
    assert row.seconds == 22.0


def test_rows_are_per_version_with_controls_apart() -> None:
    log = [
        effort(1),
        effort(2, None, annotator=2),
        effort(3, blank=True),
        effort(4, version=None),
        effort(5, version=0),
    ]
    rows = efforts.by_version([*log, effort(6, deleted=None), effort(7, is_copy=True, kept=50)])
    assert [(row.version, row.blank, row.annotations) for row in rows] == [
        (None, False, 1),
        (0, False, 1),
        (1, False, 4),
        (1, True, 1),
    ]
    assert (rows[2].annotators, rows[2].kept, rows[2].deleted, rows[2].uncounted) == (2, 6, 2, 1)
    assert rows[2].shown == 6 + 3 + 0 + 2


def test_the_time_of_a_task_is_that_of_all_its_annotators() -> None:
    twice = [effort(1, 10.0, task_id=7), effort(2, 14.0, task_id=7, annotator=2)]
    unknown = [effort(3, None, task_id=8), effort(4, 5.0, task_id=8, annotator=2)]
    rows = efforts.by_annotators([*twice, *unknown, effort(5, 8.0)])
    assert [(row.annotators, row.tasks, row.seconds) for row in rows] == [(1, 1, 8.0), (2, 1, 24.0)]


def test_a_saving_is_found_with_an_interval_that_excludes_zero() -> None:
    saving = efforts.saving(experiment(30, 200, blank_s=40, shown_s=25), np.random.default_rng(0))
    assert saving is not None
    assert saving.seconds == pytest.approx(15, abs=1.5)
    assert saving.interval[0] > 0
    assert saving.hours == pytest.approx(saving.seconds * 200 / 3600)
    assert (saving.images, saving.controls, saving.compared) == (200, 30, 200)


def test_the_interval_holds_the_true_saving_as_often_as_it_says() -> None:
    """With 20 controls a percentile bootstrap covers a little less than its 95%."""
    hits = 0
    for seed in range(60):
        saving = efforts.saving(experiment(20, 80, blank_s=30, shown_s=25, seed=seed), np.random.default_rng(seed))
        assert saving is not None
        hits += saving.seconds_interval[0] <= 5 <= saving.seconds_interval[1]
    assert hits >= 51


@pytest.mark.parametrize(("controls", "others"), [(0, 50), (4, 50), (50, 4), (0, 0)])
def test_without_enough_of_either_kind_there_is_no_estimate(controls: int, others: int) -> None:
    assert efforts.saving(experiment(controls, others, 40, 25), np.random.default_rng(0)) is None


def test_only_like_tasks_are_compared() -> None:
    """Tasks that a strategy picked are harder, and versions without control tasks had other annotators."""
    log = experiment(10, 10, blank_s=40, shown_s=25)
    picked = [effort(5000 + n, 300.0, chance=False) for n in range(20)]
    earlier = [effort(6000 + n, 300.0, version=0) for n in range(20)]
    copied = [effort(7000 + n, 1.0, is_copy=True) for n in range(20)]
    plain, mixed = (
        efforts.saving(entries, np.random.default_rng(0)) for entries in (log, log + picked + earlier + copied)
    )
    assert plain is not None
    assert mixed is not None
    assert mixed.compared == plain.compared == 10
    assert mixed.images == 10 + 60
    assert mixed.seconds == pytest.approx(plain.seconds, abs=2)
