"""Tiles cover an image, and the boxes that they show are put together to the objects of the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.geometry import tiles

SIDES = st.integers(64, 700)
LENGTHS = st.integers(1, 5000)


@given(LENGTHS, LENGTHS, SIDES)
def test_tiles_cover_the_image_and_have_one_size(width: int, height: int, side: int) -> None:
    places = tiles.grid(width, height, side)
    size = [min(side, width), min(side, height)]
    assert (places[:, 2:] - places[:, :2] == size).all()
    assert places.min() == 0
    assert places.max(axis=0)[2:].tolist() == [width, height]
    for low, high in ((0, 2), (1, 3)):
        pairs = np.unique(places[:, [low, high]], axis=0)
        assert (pairs[:-1, 1] - pairs[1:, 0] >= tiles.common(side)).all()
        assert len(pairs) < 2 + pairs[-1, 1] / (side - tiles.common(side))


@given(st.data(), st.integers(100, 3000), st.integers(100, 3000), st.integers(64, 300))
def test_a_box_that_is_no_larger_than_the_common_part_lies_in_a_tile(
    data: st.DataObject, width: int, height: int, side: int
) -> None:
    across, down = (data.draw(st.integers(1, min(tiles.common(side), length))) for length in (width, height))
    left, top = data.draw(st.integers(0, width - across)), data.draw(st.integers(0, height - down))
    box = [left, top, left + across, top + down]
    assert max(tiles.parts([box], place)[1][0] for place in tiles.grid(width, height, side)) == 1


@given(st.data(), st.integers(100, 600), st.integers(100, 600), st.integers(64, 300))
def test_what_all_tiles_show_of_separate_objects_is_put_together(
    data: st.DataObject, width: int, height: int, side: int
) -> None:
    """A detector that boxes every visible part of every object gives each object once, with its whole box."""
    cell, common = 40, tiles.common(side)
    sizes = st.tuples(*[st.integers(5, min(common, cell - 1))] * 2)
    objects = []
    for x in range(0, width - cell, cell):
        for y in range(0, height - cell, cell):
            if data.draw(st.booleans()):
                across, down = data.draw(sizes)
                objects.append([x, y, x + across, y + down])
    rows = []
    for number, place in enumerate(tiles.grid(width, height, side)):
        inside, share = tiles.parts(objects, place)
        shown = inside[share > 0] + np.tile(place[:2], 2)
        cut = tiles.are_cut(shown, place, width, height)
        rows += [(*box, number, is_cut) for box, is_cut in zip(shown.tolist(), cut.tolist(), strict=True)]
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    scores = np.random.default_rng(0).random(len(table))
    kept, best = tiles.merged(table[:, :4], scores, np.zeros(len(table)), table[:, 4], table[:, 5])
    assert sorted(table[kept, :4].tolist()) == sorted(objects)
    assert (np.diff(scores[best]) <= 0).all()
    assert (scores[best] >= scores[kept]).all()


WHOLE, PART = [100, 100, 140, 120], [100, 100, 110, 120]


@pytest.mark.parametrize(
    ("boxes", "classes", "places", "cut", "kept"),
    [
        ([WHOLE, PART], [0, 0], [0, 1], [False, True], [0]),
        ([WHOLE, PART], [0, 1], [0, 1], [False, True], [0, 1]),  # other classes
        ([WHOLE, PART], [0, 0], [0, 0], [False, True], [0, 1]),  # one tile tells its own objects apart
        ([WHOLE, PART], [0, 0], [0, 1], [False, False], [0, 1]),  # a whole object before another one
        ([WHOLE, WHOLE], [0, 0], [0, 1], [False, False], [0]),
        ([WHOLE, PART], [0, 0], [0, 1], [True, True], [0]),
        ([], [], [], [], []),
    ],
)
def test_boxes_of_one_object(
    boxes: list[list[int]], classes: list[int], places: list[int], cut: list[bool], kept: list[int]
) -> None:
    rows, best = tiles.merged(boxes, [0.9, 0.8][: len(boxes)], classes, places, cut)
    assert rows.tolist() == best.tolist() == kept


def test_an_object_keeps_the_confidence_of_its_clearest_part() -> None:
    rows, best = tiles.merged([PART, WHOLE], [0.9, 0.3], [0, 0], [0, 1], [True, False])
    assert (rows.tolist(), best.tolist()) == ([1], [0])
