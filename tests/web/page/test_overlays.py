"""Outlines of regions as shapes over a picture."""

from __future__ import annotations

from backend.labelstudio.region_outlines import Drawing, outline
from backend.web.page.overlays import UNKNOWN_COLOUR, corners, overlay

SQUARE = [(10, 20), (40, 20), (40, 60), (10, 60)]
HOLE = [(20, 30), (30, 30), (25, 50)]


def test_a_shape_has_the_colour_of_its_label_and_its_holes() -> None:
    drawing = Drawing((outline([SQUARE, HOLE], "cat", 0.5, painted=True), outline([SQUARE], "cow")), ("day",), 3)
    shown = overlay(drawing, {"cat": "#ff0000"}, "model")
    cat, cow = shown.shapes
    assert cat.path == ("M10.00,20.00 40.00,20.00 40.00,60.00 10.00,60.00Z M20.00,30.00 30.00,30.00 25.00,50.00Z")
    assert (cat.label, cat.colour, cat.score, cat.kind, cat.painted) == ("cat", "#ff0000", 0.5, "model", True)
    assert (cow.colour, cow.score, cow.painted) == (UNKNOWN_COLOUR, None, False)
    assert (shown.whole, shown.undrawn) == (("day",), 3)


def test_a_box_is_a_ring_too() -> None:
    assert list(corners(10, 20, 40, 60)) == SQUARE
