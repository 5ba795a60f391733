"""Regions as shapes over a picture."""

from __future__ import annotations

import numpy as np
import pytest

from backend.types import Json
from backend.web.page.overlays import overlay

COLOURS = {"cat": "#ff0000"}


def region(kind: str, **value: object) -> Json:
    return {"type": kind, "original_width": 200, "original_height": 100, "value": {kind: ["cat"], **value}}


def corners(shape: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in shape.split())]


def test_a_rectangle_has_the_colour_of_its_label() -> None:
    (shape,) = overlay([region("rectanglelabels", x=10, y=20, width=30, height=40, rotation=0)], COLOURS).shapes
    assert corners(shape.points) == [(10, 20), (40, 20), (40, 60), (10, 60)]
    assert (shape.label, shape.colour) == ("cat", "#ff0000")


def test_a_rotated_rectangle_turns_in_pixels() -> None:
    """20% of 200 pixels are 40 pixels; turned by 90 degrees they are 40% of 100 pixels."""
    (shape,) = overlay([region("rectanglelabels", x=50, y=10, width=20, height=10, rotation=90)], COLOURS).shapes
    assert np.array(corners(shape.points)) == pytest.approx(np.array([(50, 10), (50, 50), (45, 50), (45, 10)]))


def test_choices_belong_to_the_whole_picture() -> None:
    shown = overlay([{"type": "choices", "value": {"choices": ["day", "night"]}}], COLOURS)
    assert (shown.shapes, shown.whole) == ((), ("day", "night"))


@pytest.mark.parametrize("value", [{}, {"x": "a", "y": 1, "width": 1, "height": 1}, {"points": [[1]]}, {"points": 3}])
def test_a_region_that_cannot_be_drawn_is_left_out(value: Json) -> None:
    assert overlay([{"type": "rectanglelabels", "value": value}], COLOURS).shapes == ()


def test_two_entries_of_one_id_are_one_shape() -> None:
    shape = {"id": "r", "type": "rectangle", "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}}
    labels = {**shape, "type": "labels", "value": {**shape["value"], "labels": ["cat"]}}  # type: ignore[dict-item]
    for result in ([shape, labels], [labels, shape]):
        (drawn,) = overlay(result, COLOURS).shapes
        assert (drawn.label, drawn.colour) == ("cat", "#ff0000")
