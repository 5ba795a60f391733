"""What is drawn of Label Studio's regions: the same area that they cover, within limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.geometry import brush_rle, masks
from backend.labelstudio import region_outlines, tags
from backend.labelstudio.region_outlines import Drawing, drawing
from backend.types import BoolArray, Json
from tests import drawings, kinds
from tests.drawings import SIZE

AREAS = (
    *("RectangleLabels model_obb", "PolygonLabels", "BrushLabels", "BrushLabels model_semantic", "Polygon", "Brush"),
    *("BitmaskLabels", "Bitmask", "VectorLabels", "Vector"),
)


def region(kind: str, **value: object) -> Json:
    return {"type": kind, "original_width": 200, "original_height": 100, "value": {kind: ["cat"], **value}}


def brush(mask: BoolArray, **value: object) -> Json:
    height, width = mask.shape
    painted = {"format": "rle", "rle": brush_rle.encode_rle(mask), "brushlabels": ["cat"], **value}
    return {"type": "brushlabels", "original_width": width, "original_height": height, "value": painted}


def covered(shown: Drawing, width: int, height: int) -> BoolArray:
    """Return the pixels inside all rings."""
    scale = np.array([width, height]) / 100
    return masks.fill([ring * scale for outline in shown.outlines for ring in outline.rings], width, height)


def overlap(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", AREAS)
def test_regions_of_people_and_of_models_cover_their_area(name: str, tmp_path: Path) -> None:
    kind = ({**kinds.KINDS, **kinds.FORMS})[name]
    tag, (picture,) = kind.tag(), drawings.pictures(tmp_path, kind.draw, 1, seed=3)
    shapes = kinds.drawn(tag, picture)
    area = np.logical_or.reduce([kinds.pixels(shape) for shape in shapes])
    sent = tags.encode(tag, kinds.prediction(tag, shapes), tag.labels, 0.1, "key")
    for result in (kind.annotate(tag, shapes), [item.as_json() for item in sent]):
        shown = drawing(result)
        assert overlap(covered(shown, *SIZE), area) > 0.9
        assert {outline.label for outline in shown.outlines} == {shape.label for shape in shapes}
        assert {outline.painted for outline in shown.outlines} == {tags.get(tag.kind).masks}


def test_a_rectangle_has_its_corners() -> None:
    (shown,) = drawing([region("rectanglelabels", x=10, y=20, width=30, height=40, rotation=0)]).outlines
    assert shown.rings[0].tolist() == [[10, 20], [40, 20], [40, 60], [10, 60]]
    assert (shown.label, shown.score) == ("cat", None)


def test_a_rotated_rectangle_turns_in_pixels() -> None:
    """20% of 200 pixels are 40 pixels; turned by 90 degrees they are 40% of 100 pixels."""
    (shown,) = drawing([region("rectanglelabels", x=50, y=10, width=20, height=10, rotation=90)]).outlines
    assert shown.rings[0] == pytest.approx(np.array([(50, 10), (50, 50), (45, 50), (45, 10)]))


def test_ellipses_and_key_points_lie_around_their_place() -> None:
    ellipse, point = drawing(
        [region("ellipselabels", x=40, y=50, radiusX=10, radiusY=20, rotation=0), region("keypointlabels", x=7, y=9)]
    ).outlines
    for shown, middle, high in ((ellipse, (40, 50), 20), (point, (7, 9), 1)):
        assert shown.rings[0].mean(axis=0) == pytest.approx(middle)
        assert np.ptp(shown.rings[0][:, 1]) == pytest.approx(2 * high)


def test_choices_belong_to_the_whole_picture() -> None:
    shown = drawing([{"type": "choices", "value": {"choices": ["day", "night"]}}])
    assert (shown.outlines, shown.whole) == ((), ("day", "night"))


@pytest.mark.parametrize(
    "value",
    [
        *({}, {"x": "a", "y": 1, "width": 1, "height": 1}, {"points": [[1]]}, {"points": 3}, "no value", None),
        *({"vertices": [{"x": 1, "y": 2}] * 3}, {"vertices": None, "closed": True}),
    ],
)
def test_what_is_no_region_on_a_picture_is_left_out(value: object) -> None:
    assert drawing([{"type": "rectanglelabels", "value": value}]) == Drawing()


def test_two_entries_of_one_id_are_one_region() -> None:
    shape = {"id": "r", "type": "rectangle", "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}}
    labels = {**shape, "type": "labels", "value": {**shape["value"], "labels": ["cat"]}}  # type: ignore[dict-item]
    for result in ([shape, labels], [labels, shape]):
        (shown,) = drawing(result).outlines
        assert shown.label == "cat"


@pytest.mark.parametrize("rle", [[1, 2, 3], "text", None, [[1]]])
def test_a_damaged_mask_is_counted(rle: object) -> None:
    assert drawing([brush(np.ones((4, 4), np.bool_), rle=rle)]).undrawn == 1
    assert drawing([region("bitmasklabels", imageDataURL=rle)]).undrawn == 1


def test_masks_beyond_the_limits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = brush(np.ones((40, 50), np.bool_))
    monkeypatch.setattr(region_outlines, "MOST_PIXELS", 4500)
    shown = drawing([mask] * 3)
    assert (len(shown.outlines), shown.undrawn) == (2, 1)
    monkeypatch.setattr(region_outlines, "MOST_RLE", 5)
    assert drawing([mask]).undrawn == 1


def test_a_large_speckled_mask_and_a_long_polygon_stay_small() -> None:
    speckles = np.random.default_rng(0).random((600, 900)) < 0.01
    line = [[n / 100, n / 100] for n in range(10_000)]
    shown = drawing([brush(speckles), region("polygonlabels", points=line)])
    assert [sum(map(len, outline.rings)) <= region_outlines.MOST_POINTS for outline in shown.outlines] == [True, True]


def test_a_thin_stroke_stays_visible() -> None:
    mask = np.zeros((2000, 3000), np.bool_)
    mask[1000, 200:2800] = True
    (shown,) = drawing([brush(mask)]).outlines
    (ring,) = shown.rings
    assert np.ptp(ring[:, 0]) == pytest.approx(100 * 2600 / 3000, abs=1)
    assert ring[:, 1] == pytest.approx(50, abs=0.6)
