from __future__ import annotations

import math

import pytest

from backend.datasets.label_format import Lines, parse
from backend.errors import DataError
from backend.geometry.coordinates import ring_area
from backend.types import WHOLE, YoloTask

CLASSES = ("cat", "dog")
TRIANGLE = "1 0.1 0.2 0.5 0.2 0.5 0.6"
DIAMOND = "0 0.5 0.3 0.7 0.5 0.5 0.7 0.3 0.5"


def lines(task: YoloTask, kpt_shape: tuple[int, int] = (2, 3)) -> Lines:
    return Lines(task, CLASSES, kpt_shape)


def test_a_rotated_box_keeps_its_corners() -> None:
    label = parse(DIAMOND, lines("obb"), "")
    assert label is not None
    assert label.label == "cat"
    assert label.outline == (((0.5, 0.3), (0.7, 0.5), (0.5, 0.7), (0.3, 0.5)),)
    assert label.xywh == pytest.approx((0.5, 0.5, 0.4, 0.4))


def test_a_corner_may_lie_a_little_outside_but_the_hull_does_not() -> None:
    label = parse("0 -0.01 0.3 0.2 0.5 0 0.7 -0.01 0.5", lines("obb"), "")
    assert label is not None
    assert label.outline[0][0] == (-0.01, 0.3)
    assert label.xywh[0] - label.xywh[2] / 2 == pytest.approx(0)


def test_an_outline_is_cut_off_at_the_border() -> None:
    label = parse(TRIANGLE.replace("0.6", "1.01"), lines("segment"), "")
    assert label is not None
    assert label.label == "dog"
    assert max(y for _, y in label.outline[0]) == 1
    assert label.xywh[1] + label.xywh[3] / 2 == pytest.approx(1)
    assert 0.15 < ring_area(label.outline[0]) < 0.17


def test_an_outline_may_have_any_number_of_points() -> None:
    ring = [(0.5 + 0.3 * math.cos(a / 9), 0.5 + 0.3 * math.sin(a / 9)) for a in range(56)]
    label = parse("0 " + " ".join(f"{x:.6f} {y:.6f}" for x, y in ring), lines("segment"), "")
    assert label is not None
    assert len(label.outline[0]) == 56
    assert label.xywh == pytest.approx((0.5, 0.5, 0.6, 0.6), abs=0.01)


def test_points_that_are_not_labeled_have_no_place() -> None:
    label = parse("0 0.5 0.5 0.4 0.4 0.4 1.005 2 7 -7 0", lines("pose"), "")
    assert label is not None
    assert label.keypoints == ((0.4, 1.0, 2), (0.0, 0.0, 0))
    assert label.xywh == pytest.approx((0.5, 0.5, 0.4, 0.4))


def test_points_of_two_numbers_are_visible_unless_they_are_negative() -> None:
    label = parse("0 0.5 0.5 0.4 0.4 0.4 0.6 -0.005 0.3", lines("pose", (2, 2)), "")
    assert label is not None
    assert label.keypoints == ((0.4, 0.6, 2), (0.0, 0.0, 0))


def test_a_class_is_of_the_whole_image() -> None:
    label = parse(" 1 ", lines("classify"), "")
    assert label is not None
    assert (label.label, label.xywh) == ("dog", WHOLE)


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("detect", "0 0.5 0.5 0 0.4"),
        ("obb", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4"),
        ("segment", "0 0.1 0.1 0.2 0.2 0.3 0.3"),
        ("segment", "0 0 -0.01 1 -0.01 1 -0.005"),
        ("pose", "0 0.5 0.5 0 0.4 0 0 0 0 0 0"),
    ],
)
def test_what_has_no_area_is_no_label(task: YoloTask, line: str) -> None:
    assert parse(line, lines(task), "") is None


@pytest.mark.parametrize(
    ("task", "line", "reason"),
    [
        ("detect", DIAMOND, "not a box.*class x y width height"),
        ("obb", "0 0.5 0.5 0.4 0.4", "not a rotated box.*four corners"),
        ("obb", TRIANGLE, "not a rotated box"),
        ("obb", DIAMOND + " 0.1", "not a rotated box"),
        ("obb", DIAMOND.replace("0.3", "x"), "not a rotated box"),
        ("obb", "2" + DIAMOND[1:], "no class 2.*use 0 to 1"),
        ("obb", DIAMOND.replace("0.7", "1.02"), "leaves the image"),
        ("obb", DIAMOND.replace("0.7", "nan"), "leaves the image"),
        ("segment", "0 0.1 0.1 0.2 0.2", "not an outline.*three points or more"),
        ("segment", TRIANGLE + " 0.3", "not an outline"),
        ("segment", TRIANGLE.replace("0.1", "-0.02"), "leaves the image"),
        ("segment", "0.5" + TRIANGLE[1:], "no class 0.5"),
        ("pose", "0 0.5 0.5 0.4 0.4 0.4 0.5 2", "not an object with its points.*kpt_shape"),
        ("pose", "0 0.5 0.5 0.4 0.4", "not an object with its points"),
        ("pose", "0 0.5 0.5 0.4 0.4 0.4 0.5 3 0.4 0.5 2", "0, 1 or 2"),
        ("pose", "0 0.5 0.5 0.4 0.4 0.4 0.5 2 0.4 1.1 1", "leaves the image"),
        ("pose", "0 0.9 0.5 0.4 0.4 0.4 0.5 2 0.4 0.5 1", "leaves the image"),
        ("pose", "-1 0.5 0.5 0.4 0.4 0.4 0.5 2 0.4 0.5 1", "no class -1"),
        ("classify", "0 0.5 0.5 1 1", "not a class.*alone"),
        ("classify", "cat", "not a class"),
        ("classify", "2", "no class 2"),
        ("classify", "nan", "no class nan"),
    ],
)
def test_a_bad_line_is_refused(task: YoloTask, line: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        parse(line, lines(task), "labels/7.txt, line 3")
    assert caught.value.where == "labels/7.txt, line 3"
    assert caught.value.fix
