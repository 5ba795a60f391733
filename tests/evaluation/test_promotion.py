"""The rule of promotion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.promotion import Contest, judge, needs_labels
from backend.evaluation.samples import Answers
from backend.model_versions import Metrics

GOOD = Metrics(0.5, 0.3, {"cat": 0.5}, images=20, boxes=40, detections=50, held_out=True)


def of(metrics: Metrics = GOOD, **changed: Any) -> Measured:
    """Return a measurement in which the share of right images is the metrics' quality."""
    changed_metrics = replace(metrics, **changed)
    right = np.arange(changed_metrics.images) < round(changed_metrics.map50 * changed_metrics.images)
    return measured(
        changed_metrics, Answers(right.astype(np.int64)[:, None], np.ones((changed_metrics.images, 1), dtype=np.int64))
    )


@pytest.mark.parametrize(
    ("challenger", "champion", "finite", "promoted", "reason"),
    [
        (of(), None, True, True, "first version"),
        (of(), None, False, False, "not finite"),
        (of(detections=0), None, True, False, "collapsed"),
        (of(detections=0, boxes=0), None, True, True, "first version"),  # only background images
        (of(map50=0.49), of(), True, True, "0.490 [0.300, 0.726] against 0.500 ["),
        (of(map50=0.47), of(), True, False, "worse than the tolerance 0.02"),
        (of(detections=0, images=9), of(), True, False, "collapsed"),
    ],
)
def test_judge(challenger: Measured, champion: Measured | None, finite: bool, promoted: bool, reason: str) -> None:
    verdict, explanation = judge(challenger, champion, finite=finite, tolerance=0.02)
    assert (verdict, reason in explanation) == (promoted, True), explanation


def few(map50: float, **changed: Any) -> Measured:
    return of(map50=map50, images=4, boxes=9, **changed)


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize(
    ("challenger", "champion", "promoted"), [(0.75, 0.8, False), (0.79, 0.8, True), (0.9, 0.8, True)]
)
def test_without_enough_held_out_images_all_labels_decide(
    held_out: bool, challenger: float, champion: float, promoted: bool
) -> None:
    """A spoiled training replaced a good version once: "too small to judge, no collapse"."""
    on_labels = Contest(*(of(map50=map50, images=40, held_out=False) for map50 in (challenger, champion)))
    better, worse = few(0.9, held_out=held_out), few(0.1, held_out=held_out)
    assert needs_labels(better, worse)
    verdict, reason = judge(better, worse, finite=True, tolerance=0.02, on_labels=on_labels)
    assert verdict == promoted, reason
    assert "mAP50 is not judged yet" in reason
    assert "on all 40 labeled images" in reason
    assert "0.900 on" not in reason


@pytest.mark.parametrize(("images", "promoted"), [(40, False), (400, True)])
def test_a_version_chosen_by_rollback_is_only_replaced_by_a_better_one(images: int, promoted: bool) -> None:
    """0.84 against 0.8 is not significant on 40 images, but on 400."""
    contest = Contest(*(of(map50=map50, images=images, held_out=False) for map50 in (0.84, 0.8)))
    verdict, explanation = judge(few(0.9), few(0.1), finite=True, tolerance=0.02, on_labels=contest, chosen=True)
    assert (verdict, "rolled back" in explanation) == (promoted, not promoted), explanation


@pytest.mark.parametrize(("map50", "promoted"), [(0.49, False), (0.5, True), (0.55, True)])
def test_there_is_no_tolerance_against_a_version_chosen_by_rollback(map50: float, promoted: bool) -> None:
    verdict, explanation = judge(of(map50=map50), of(), finite=True, tolerance=0.02, chosen=True)
    assert verdict == promoted, explanation


def test_enough_held_out_images_need_no_other_labels() -> None:
    assert not needs_labels(of(), of())
    assert not needs_labels(few(0.5), None)


def test_the_reason_names_the_metric_and_its_images() -> None:
    _, reason = judge(of(), of(), finite=True, tolerance=0.02, quality="top-1 accuracy")
    figure = "0.500 [0.300, 0.726]"
    assert reason == f"published: top-1 accuracy {figure} against {figure} on 20 held-out images, 40 labels"
