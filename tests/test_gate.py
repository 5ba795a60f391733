"""When a version is published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.gate import judge
from backend.versions import Metrics

GOOD = Metrics(map50=0.5, map50_95=0.3, class_ap50={"cat": 0.5}, images=20, boxes=40, detections=50)


@pytest.mark.parametrize(
    ("challenger", "champion", "finite", "held_out", "promoted", "reason"),
    [
        (GOOD, None, True, True, True, "first version"),
        (GOOD, None, False, True, False, "not finite"),
        (replace(GOOD, detections=0), None, True, True, False, "collapsed"),
        (replace(GOOD, detections=0, boxes=0), None, True, True, True, "first version"),  # only background images
        (replace(GOOD, map50=0.49), GOOD, True, True, True, "0.490 against 0.500"),
        (replace(GOOD, map50=0.47), GOOD, True, True, False, "worse than the tolerance 0.02"),
        (replace(GOOD, map50=0.1, images=9), GOOD, True, True, True, "too small to judge"),
        (replace(GOOD, map50=0.1), GOOD, True, False, True, "too small to judge"),
        (replace(GOOD, detections=0, images=9), GOOD, True, True, False, "collapsed"),
    ],
)
def test_judge(
    challenger: Metrics, champion: Metrics | None, finite: bool, held_out: bool, promoted: bool, reason: str
) -> None:
    verdict, said = judge(challenger, champion, finite=finite, held_out=held_out, tolerance=0.02)
    assert (verdict, reason in said) == (promoted, True), said


def test_the_reason_speaks_of_the_tasks_own_metric() -> None:
    _, said = judge(GOOD, GOOD, finite=True, held_out=True, tolerance=0.02, quality="top-1 accuracy")
    assert said == "published: top-1 accuracy 0.500 against 0.500 on 20 images"
