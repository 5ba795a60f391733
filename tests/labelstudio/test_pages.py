"""Tasks with several images: an Image with a valueList."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.errors import LabelConfigError, MediaError
from backend.labelstudio import label_config, pages, tags, task_fields
from backend.labelstudio.consensus import vote
from backend.loop.scoring.page_predictions import of_pages
from backend.types import ControlTag, Json, LabeledBox, Prediction, Task
from tests.support import CONFIG

PAGES = CONFIG.replace('value="$image"', 'valueList="$doc.pages"')
CHOICES = '<Choices name="kind" toName="image" {}><Choice value="letter"/><Choice value="bill"/></Choices>'


def tag_of(config: str) -> ControlTag:
    return label_config.parse(config)[0]


TAG = tag_of(PAGES)
ASKED = tag_of(PAGES[: PAGES.index("<Rect")] + CHOICES.format('perItem="true"') + "</View>")


def page(*scores: float, classes: int = 2) -> Prediction:
    probs = np.zeros((len(scores), classes), np.float32)
    probs[:, 0] = scores
    boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (len(scores), 1))
    return Prediction(100, 200, boxes, probs, probs.max(axis=1, initial=0))


def drawn(label: str, index: int | None, **item: Any) -> Json:
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [label]}
    base = {
        "id": f"{label}{index}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "value": value,
    }
    return base | ({} if index is None else {"item_index": index}) | item


def test_a_tag_has_pages_where_its_image_has_a_list() -> None:
    assert (TAG.pages, TAG.data_key, TAG.one_image) == (True, "doc.pages", False)
    assert (tag_of(CONFIG).pages, tag_of(CONFIG).one_image) == (False, True)
    assert label_config.warnings(PAGES) == ()


@pytest.mark.parametrize(
    ("data", "shown"),
    [({"doc": {"pages": ["a", "b"]}}, ["a", "b"]), ({"doc.pages": ["a"]}, ["a"]), ({"doc": {"pages": "a"}}, ["a"])],
)
def test_a_task_names_its_pages(data: Json, shown: list[str]) -> None:
    assert pages.of_task(TAG, Task(1, data)) == shown


@pytest.mark.parametrize("value", [[], None, "", {"a": 1}, 7, ["a"] * 1001])
def test_a_task_without_usable_pages_is_an_error_of_its_own(value: Any) -> None:
    with pytest.raises(MediaError, match=r"list of images|1001 pages") as caught:
        pages.of_task(TAG, Task(5, {"doc.pages": value}))
    assert "task 5" in str(caught.value)
    assert caught.value.fix


def test_a_page_is_shown_by_its_number() -> None:
    task = Task(1, {"doc.pages": ["a", "b"]})
    assert [pages.shown(TAG, task, number) for number in (0, 1, 2, 3)] == ["a", "a", "b", "a"]


def test_regions_are_read_by_page() -> None:
    result = [drawn("cat", 2), drawn("dog", 0), drawn("cat", None), drawn("dog", 2)]
    assert sorted((box.frame, box.label) for box in tags.decode(TAG, result)) == [
        (1, "cat"),
        (1, "dog"),
        (3, "cat"),
        (3, "dog"),
    ]
    assert tags.explain(TAG, result) == ()


def test_ids_that_two_pages_share_are_two_objects() -> None:
    """A polygon under one of another page is a whole object: a parentID does not cross pages."""
    tag = tag_of(PAGES.replace("RectangleLabels", "PolygonLabels"))
    value = {"points": [[0, 0], [10, 0], [10, 10]], "closed": True, "polygonlabels": ["cat"]}
    first = drawn("cat", 0, type="polygonlabels", value=value)
    assert len(tags.decode(tag, [first, drawn("cat", 1, type="polygonlabels", value=value, parentID=first["id"])])) == 2


def test_each_page_has_its_regions_in_a_prediction() -> None:
    whole = of_pages(TAG, [page(0.9), page(), page(0.8, 0.6)])
    regions = [region.as_json() for region in tags.encode(TAG, whole, ("cat", "dog"), 0.5, "k")]
    assert [region["item_index"] for region in regions] == [0, 2, 2]
    assert len({region["id"] for region in regions}) == 3
    assert sorted(box.frame for box in tags.decode(TAG, regions)) == [1, 3, 3]
    (single,) = tags.encode(tag_of(CONFIG), page(0.9), ("cat", "dog"), 0.5, "k")
    assert "item_index" not in single.as_json()


def test_the_least_sure_page_stands_for_the_task() -> None:
    whole = of_pages(TAG, [page(0.99), page(0.5, 0.6), page(0.9)])
    assert whole.confidence.tolist() == pytest.approx([0.5, 0.6])
    assert whole.pages is not None
    assert [len(part.boxes) for part in whole.pages] == [1, 2, 1]
    assert not whole.one_image


def test_choices_per_page_are_answered_per_page() -> None:
    whole = of_pages(ASKED, [page(0.9), page(0.6)])
    regions = [region.as_json() for region in tags.encode(ASKED, whole, ("letter", "bill"), 0.5, "k")]
    assert [(region["item_index"], region["value"]) for region in regions] == [
        (0, {"choices": ["letter"]}),
        (1, {"choices": ["letter"]}),
    ]
    assert [(box.frame, box.label) for box in tags.decode(ASKED, regions)] == [(1, "letter"), (2, "letter")]
    assert tags.unreadable(ASKED, regions) == ()


def test_choices_about_all_pages_are_left_alone() -> None:
    (warning,) = label_config.warnings(PAGES.replace("</View>", f"{CHOICES.format('')}</View>"))
    assert 'Choices "kind" is about all pages at once, and models see one page' in warning
    with pytest.raises(LabelConfigError, match="is about all pages at once"):
        tag_of(PAGES[: PAGES.index("<Rect")] + CHOICES.format("") + "</View>")


def test_of_several_people_the_newest_decides_about_pages() -> None:
    older, newest = [drawn("cat", 0)], [drawn("dog", 1)]
    assert list(vote([TAG], [older, older, newest])) == newest


def test_the_pages_are_a_part_of_what_a_prediction_is_valid_for() -> None:
    first, second = (Task(1, {"doc": {"pages": shown}}) for shown in (["a", "b"], ["a", "c"]))
    assert task_fields.source(TAG, first) != task_fields.source(TAG, second)
    assert task_fields.source(replace(TAG), first) == task_fields.source(TAG, first)


def test_a_label_has_no_page_in_a_task_of_one_image() -> None:
    boxes = tags.decode(tag_of(CONFIG), [drawn("cat", 3)])
    assert [box.frame for box in boxes] == [0]
    assert isinstance(boxes[0], LabeledBox)
