"""One result from several people's: worked examples of the rule that the module states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.geometry import brush_rle
from backend.labelstudio import label_config, tags
from backend.labelstudio.consensus import vote, voted
from backend.types import AnnotatedTask, Json, Task

IMAGE = '<Image name="image" value="$image"/>'
BOXES = '<RectangleLabels name="label" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels>'
BRUSH = '<BrushLabels name="mask" toName="image"{}><Label value="cat"/></BrushLabels>'
CHOICES = (
    '<Choices name="kind" toName="image"{}><Choice value="day"/><Choice value="night"/><Choice value="rain"/></Choices>'
)


def parse(*controls: str) -> tuple[Any, ...]:
    return label_config.parse(f"<View>{IMAGE}{''.join(controls)}</View>")


def box(x: float, label: str = "cat", name: str = "a", width: float = 20, **value: Any) -> Json:
    value = {"x": x, "y": 10, "width": width, "height": 20, "rotation": 0, "rectanglelabels": [label], **value}
    size = {"original_width": 100, "original_height": 100}
    return {"id": name, "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value, **size}


def mask(columns: slice, name: str = "m") -> Json:
    painted = np.zeros((4, 8), np.bool_)
    painted[:, columns] = True
    value = {"format": "rle", "rle": brush_rle.encode_rle(painted), "brushlabels": ["cat"]}
    size = {"original_width": 8, "original_height": 4}
    return {"id": name, "type": "brushlabels", "from_name": "mask", "to_name": "image", "value": value, **size}


def choice(*labels: str) -> Json:
    return {"id": "c", "type": "choices", "from_name": "kind", "to_name": "image", "value": {"choices": list(labels)}}


def painted(item: Any) -> Any:
    return brush_rle.decode_rle(item["value"]["rle"], item["original_height"], item["original_width"])


def test_a_box_that_most_people_drew_is_their_mean_and_a_lone_one_is_dropped() -> None:
    (agreed,) = vote(parse(BOXES), [[box(10)], [box(12), box(60, name="lone")], [box(14)]])
    assert agreed["value"] == {"x": 12, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["cat"]}


def test_half_of_the_people_are_not_most() -> None:
    assert vote(parse(BOXES), [[box(10)], []]) == ()
    assert len(vote(parse(BOXES), [[box(10)], [], [box(10)]])) == 1


def test_the_label_of_most_people_counts_and_the_newest_among_equals() -> None:
    cat, dog = box(10, "cat"), box(10, "dog")
    labels = [
        vote(parse(BOXES), results)[0]["value"]["rectanglelabels"]
        for results in ([[cat], [cat], [dog]], [[cat], [dog]], [[dog], [cat]])
    ]
    assert labels == [["cat"], ["dog"], ["cat"]]


def test_a_person_counts_once_in_an_object() -> None:
    """Two boxes of one person on the same object are not two votes."""
    assert vote(parse(BOXES), [[box(10), box(11, name="b")], [], []]) == ()


def test_neighbours_stay_apart() -> None:
    """Each box matches the one that it overlaps best."""
    results = [[box(10), box(20, name="b")], [box(20, name="c"), box(10, name="d")]]
    assert [item["value"]["x"] for item in vote(parse(BOXES), results)] == [10, 20]


def test_of_turned_boxes_the_one_counts_that_overlaps_the_others_most() -> None:
    results = [[box(10, rotation=20)], [box(13, rotation=20, name="middle")], [box(16, rotation=20)]]
    (agreed,) = vote(parse(BOXES), results)
    assert (agreed["id"], agreed["value"]["x"]) == ("middle", 13)


def test_a_mask_keeps_the_pixels_of_most_masks() -> None:
    (agreed,) = vote(parse(BRUSH.format("")), [[mask(slice(0, 4))], [mask(slice(1, 5))], [mask(slice(2, 6))]])
    assert painted(agreed)[0].tolist() == [False, True, True, True, True, False, False, False]


def test_a_class_of_semantic_masks_is_all_that_a_person_painted() -> None:
    tag = parse(BRUSH.format(' model_semantic="true"'))
    strokes = [mask(slice(0, 2), "first"), mask(slice(4, 6), "second")]
    (agreed,) = vote(tag, [strokes, [mask(slice(0, 6))], strokes])
    assert painted(agreed)[0].tolist() == [True, True, False, False, True, True, False, False]


SPLIT = '<Labels name="names" toName="image"><Label value="cat"/><Label value="dog"/></Labels>'


def split(item: Json) -> list[Json]:
    """Return a region in the split form, as two entries of one id."""
    shape = {name: part for name, part in item["value"].items() if name != item["type"]}
    labels = {"type": "labels", "from_name": "names", "value": shape | {"labels": item["value"][item["type"]]}}
    return [item | {"type": item["type"].removesuffix("labels"), "value": shape}, item | labels]


def test_two_entries_of_one_id_are_one_region() -> None:
    tag = parse(SPLIT, '<Rectangle name="label" toName="image"/>')
    agreed = vote(tag, [split(box(10)), [*split(box(12)), *split(box(60, name="lone"))], split(box(14))])
    assert [(item["type"], item["value"]["x"]) for item in agreed] == [("rectangle", 12), ("labels", 12)]
    (drawn,) = tags.decode(tag[0], agreed)
    assert drawn.label == "cat"
    assert drawn.xywh[0] == pytest.approx(0.22)
    (cat,) = tags.decode(tag[0], vote(tag, [split(box(10)), split(box(10)), split(box(10, "dog"))]))
    assert cat.label == "cat"


def test_an_unreadable_region_in_two_entries_stays_whole() -> None:
    tag = parse(SPLIT, '<Rectangle name="label" toName="image"/>')
    broken = split(box(10, width=float("nan"), name="broken"))
    reasons = tags.unreadable(tag[0], vote(tag, [broken, split(box(10))]))
    assert reasons == ("region broken has no usable x, y, width, height or rotation",)


@pytest.mark.parametrize("semantic", ["", ' model_semantic="true"'])
def test_masks_in_two_entries_keep_their_labels(semantic: str) -> None:
    tag = parse(SPLIT, f'<Brush name="mask" toName="image"{semantic}/>')
    results = [split(mask(slice(start, start + 4))) for start in range(3)]
    agreed = vote(tag, results)
    assert [item["type"] for item in agreed] == ["brush", "labels"]
    for item in agreed:
        assert painted(item)[0].tolist() == [False, True, True, True, True, False, False, False]
    (drawn,) = tags.decode(tag[0], agreed)
    assert drawn.label == "cat"


def test_a_class_of_semantic_masks_in_two_entries_is_all_that_a_person_painted() -> None:
    tag = parse(SPLIT, '<Brush name="mask" toName="image" model_semantic="true"/>')
    strokes = [*split(mask(slice(0, 2), "first")), *split(mask(slice(4, 6), "second"))]
    agreed = vote(tag, [strokes, split(mask(slice(0, 6))), strokes])
    assert [item["type"] for item in agreed] == ["brush", "labels"]
    assert painted(agreed[0])[0].tolist() == [True, True, False, False, True, True, False, False]
    assert tags.unreadable(tag[0], agreed) == ()


@pytest.mark.parametrize(
    ("attributes", "answers", "agreed"),
    [
        ("", (["day"], ["night"], ["night"]), ["night"]),
        ("", (["day"], ["night"]), ["night"]),
        ("", (["night"], ["day"]), ["day"]),
        (' choice="multiple"', (["day", "rain"], ["rain"], ["night", "rain"]), ["rain"]),
        (' choice="multiple"', (["day", "rain"], ["day", "rain"], ["night"]), ["day", "rain"]),
    ],
)
def test_answers_for_the_whole_image(attributes: str, answers: tuple[list[str], ...], agreed: list[str]) -> None:
    (item,) = vote(parse(CHOICES.format(attributes)), [[choice(*labels)] for labels in answers])
    assert item["value"]["choices"] == agreed


def test_people_who_agree_on_nothing_give_no_answer() -> None:
    assert vote(parse(CHOICES.format(' choice="multiple"')), [[choice("day")], [choice("rain")]]) == ()


def test_what_cannot_be_read_stays_so_that_the_training_tells_why() -> None:
    broken = box(10) | {"value": {"rectanglelabels": ["cat"]}}
    results = [[broken], [box(10)], [box(10)]]
    assert tags.unreadable(parse(BOXES)[0], vote(parse(BOXES), results))


def test_items_of_other_controls_are_those_of_the_newest() -> None:
    old, new = ({"id": "t", "type": "textarea", "from_name": "note", "value": {"text": [text]}} for text in ("a", "b"))
    assert vote(parse(BOXES), [[old], [new, "no region"]]) == (new, "no region")


def test_a_task_of_a_single_person_keeps_its_result() -> None:
    task = AnnotatedTask(Task(1, {}), 5, "2026-01-01T00:00:00Z", (box(10),))
    assert voted(parse(BOXES), task) is task


def point(label: str, x: float, name: str, **item: Any) -> Json:
    value = {"x": x, "y": 20, "width": 1, "keypointlabels": [label]}
    base = {"id": name, "type": "keypointlabels", "from_name": "kp", "to_name": "image", "value": value}
    return base | {"original_width": 100, "original_height": 100} | item


POINTS = '<KeyPointLabels name="kp" toName="image"><Label value="head"/><Label value="tail"/></KeyPointLabels>'
POINT_BOXES = '<RectangleLabels name="kp_bbox" toName="image"><Label value="cat"/></RectangleLabels>'


def test_points_of_one_object_stay_together_without_boxes() -> None:
    (tag,) = parse(POINTS)
    people = [[point("head", 20 + x, f"h{x}"), point("tail", 60 + x, f"t{x}")] for x in (0, 3, 6)]
    agreed = vote([tag], people)
    (label,) = tags.decode(tag, agreed)
    assert tags.explain(tag, agreed) == ()
    assert [visible for _, _, visible in label.keypoints] == [2, 2]


def test_a_point_in_the_only_box_that_holds_it_is_voted_with_the_box() -> None:
    (tag,) = parse(POINT_BOXES, POINTS)
    people = [
        [box(10 + shift, name=f"b{shift}", width=40) | {"from_name": "kp_bbox"}, point("head", 20 + shift, f"h{shift}")]
        for shift in range(3)
    ]
    agreed = vote([tag], people)
    (label,) = tags.decode(tag, agreed)
    assert tags.explain(tag, agreed) == ()
    assert label.keypoints[0][2] == 2
