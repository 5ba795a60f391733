"""What an annotator did with the regions of a pre-annotation."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labelstudio.region_changes import RegionChanges, changes
from backend.types import Json


def box(region: str, label: str = "cat", x: float = 10.0, **more: Any) -> Json:
    value = {"x": x, "y": 5, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [label]}
    return {"id": region, "type": "rectanglelabels", "from_name": "label", "value": value, **more}


def rle(region: str, pixels: list[int], **more: Any) -> Json:
    value = {"format": "rle", "rle": pixels, "brushlabels": ["cat"]}
    return {"id": region, "type": "brushlabels", "value": value, **more}


PREDICTION: dict[str, Any] = {"origin": "prediction"}
CHANGED: dict[str, Any] = {"origin": "prediction-changed"}


@pytest.mark.parametrize(
    ("predicted", "submitted", "expected"),
    [
        ([], [], RegionChanges(0, 0, 0, 0, 0)),
        ([box("a")], [], RegionChanges(0, 0, 0, 1, 0)),
        ([], [box("a", origin="manual")], RegionChanges(0, 0, 0, 0, 1)),
        ([box("a")], [box("a", x=10.001)], RegionChanges(1, 0, 0, 0, 0)),
        ([box("a")], [box("a", x=10.5, **CHANGED)], RegionChanges(0, 1, 0, 0, 0)),
        ([box("a")], [box("a", label="dog", **PREDICTION)], RegionChanges(0, 0, 1, 0, 0)),
        ([box("a")], [box("a", label="dog", x=50)], RegionChanges(0, 0, 1, 0, 0)),
        ([box("a"), box("b")], [box("b"), box("c")], RegionChanges(1, 0, 0, 1, 1)),
        ([rle("a", [1, 2])], [rle("a", [1, 3], **PREDICTION)], RegionChanges(1, 0, 0, 0, 0)),
        ([rle("a", [1, 2])], [rle("a", [1, 3], **CHANGED)], RegionChanges(0, 1, 0, 0, 0)),
    ],
)
def test_the_fates_of_regions(predicted: list[Json], submitted: list[Json], expected: RegionChanges) -> None:
    assert changes(predicted, submitted) == expected


def test_without_the_prediction_the_origin_decides() -> None:
    drawn = [box("a", **PREDICTION), box("b", **CHANGED), box("c", origin="manual"), box("d")]
    assert changes(None, drawn) == RegionChanges(1, 1, 0, None, 2)


def test_a_region_with_several_results_counts_once() -> None:
    choice = {"id": "a", "type": "choices", "value": {"choices": ["small"]}}
    assert changes([box("a"), choice], [box("a"), choice]) == RegionChanges(1, 0, 0, 0, 0)
    other = {"id": "a", "type": "choices", "value": {"choices": ["large"]}}
    assert changes([box("a"), choice], [box("a"), other]) == RegionChanges(0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    "item", [None, 3, "text", [], {}, {"id": "a"}, {"id": None, "value": {}}, {"type": "relation"}]
)
def test_items_that_are_no_regions_do_not_count(item: Any) -> None:
    assert changes([item], [item]) == RegionChanges(0, 0, 0, 0, 0)


@pytest.mark.parametrize("value", [{}, {"x": None}, {"x": "wide"}, {"rectanglelabels": 5}, {"x": [1, [2]]}])
def test_damaged_values_raise_nothing(value: Json) -> None:
    assert changes([box("a")], [{"id": "a", "type": "rectanglelabels", "value": value}]).added == 0


def split(label: str = "cat", **value: float) -> list[Json]:
    """Return a box in the split form, as two entries of one id."""
    shape = {"id": "a", "type": "rectangle", "value": {"x": 1, "y": 2, "width": 3, "height": 4} | value}
    return [shape, {**shape, "type": "labels", "value": {**shape["value"], "labels": [label]}}]  # type: ignore[dict-item]


def test_two_entries_of_one_region_are_one_region() -> None:
    assert changes(split(), split()) == RegionChanges(1, 0, 0, 0, 0)
    assert changes(split(), split(x=9)) == RegionChanges(0, 1, 0, 0, 0)
    assert changes(split(), split("dog", x=9)) == RegionChanges(0, 0, 1, 0, 0)
    assert changes(split(), []) == RegionChanges(0, 0, 0, 1, 0)
