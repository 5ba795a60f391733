"""The choice of one box among many, by clicks or by a rough rectangle."""

from __future__ import annotations

import numpy as np
import pytest

from backend.geometry.pointing import Click, Pointing, best, fit, holds, turned
from backend.types import FloatArray

WIDTH, HEIGHT = 200, 100
# A big box, a small one inside it, and one beside them, in an image of 200 x 100 pixels.
BIG, SMALL, BESIDE = [0, 0, 100, 100], [40, 40, 60, 60], [120, 20, 180, 80]
BOXES = turned([BIG, SMALL, BESIDE])
BOTH = np.array([True, True])


def chosen(pointing: Pointing, scores: FloatArray, *wanted: bool) -> tuple[int, float]:
    """Return the row and the rounded score of the box that is chosen."""
    choice = best(fit(BOXES, pointing, WIDTH, HEIGHT), scores, np.array(wanted))
    assert choice is not None
    return choice[0], round(choice[1], 3)


def at(*places: tuple[float, float], away: tuple[tuple[float, float], ...] = ()) -> Pointing:
    """Return clicks at places in pixels, those beside the object first."""
    clicks = [*((place, False) for place in away), *((place, True) for place in places)]
    return Pointing(tuple(Click(x / WIDTH, y / HEIGHT, on_object) for (x, y), on_object in clicks))


def around(left: float, top: float, right: float, bottom: float) -> Pointing:
    return Pointing(rectangle=(left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT))


@pytest.mark.parametrize(
    ("pointing", "fits"),
    [
        (at((50, 50)), [1, 1, 0]),
        (at((10, 10)), [1, 0, 0]),
        (at((110, 50)), [0, 0, 0]),  # nothing is there
        (at((10, 10), (50, 50)), [1, 0.5, 0]),  # the big box holds both clicks
        (at((150, 50), (50, 50)), [0.5, 0.5, 0]),  # the older click is on something else
        (at((50, 50), away=((10, 10),)), [0, 1, 0]),  # "not here" leaves out the big box
        (at(away=((10, 10),)), [0, 0, 0]),  # a click beside the object alone points at nothing
        (Pointing(), [0, 0, 0]),
        (around(120, 20, 180, 80), [0, 0, 1]),
        (around(38, 40, 60, 60), [0, 20 / 22, 0]),
        (around(180, 0, 200, 100), [0, 0, 0]),  # touches a box, and is something else
    ],
)
def test_the_fit_of_boxes(pointing: Pointing, fits: list[float]) -> None:
    np.testing.assert_allclose(fit(BOXES, pointing, WIDTH, HEIGHT), fits, rtol=1e-5)


def test_a_rotated_box_is_entered_between_its_own_sides() -> None:
    bar = np.array([[50, 50, 80, 10, np.pi / 4]])  # runs from the upper left to the lower right
    assert holds(bar, 70, 70).tolist() == [True]
    assert holds(bar, 70, 30).tolist() == [False]  # inside its upright hull
    assert fit(bar, around(20, 20, 80, 80), WIDTH, HEIGHT)[0] > 0.8


def test_the_chosen_label_decides_between_objects_that_overlap() -> None:
    scores = np.array([[0.9, 0.1], [0.1, 0.4], [0.8, 0.8]], dtype=np.float32)
    assert chosen(at((50, 50)), scores, True, False) == (0, 0.9)
    assert chosen(at((50, 50)), scores, False, True) == (1, 0.4)


@pytest.mark.parametrize("score", [0.0, 0.04])
def test_an_object_that_the_model_calls_by_another_name_is_still_chosen(score: float) -> None:
    scores = np.array([[0.9, score], [0.1, 0.0], [0.0, 0.9]], dtype=np.float32)
    assert chosen(at((50, 50)), scores, False, True) == (0, 0.9)


def test_a_label_without_a_class_gets_the_object_too() -> None:
    scores = np.array([[0.1, 0.0], [0.3, 0.2], [0.0, 0.9]], dtype=np.float32)
    assert chosen(at((50, 50)), scores, False, False) == (1, 0.3)


def test_a_rectangle_weighs_how_sure_the_model_is_against_how_well_the_box_fits() -> None:
    scores = np.array([[0.9, 0.0], [0.3, 0.0], [0.0, 0.0]], dtype=np.float32)
    assert chosen(around(38, 38, 62, 62), scores, True, True) == (1, 0.3)


@pytest.mark.parametrize("rows", [0, 3])
def test_no_box_is_chosen_where_none_fits(rows: int) -> None:
    scores = np.full((rows, 2), 0.9, dtype=np.float32)
    assert best(fit(BOXES[:rows], at((110, 50)), WIDTH, HEIGHT), scores, BOTH) is None
