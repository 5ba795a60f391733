"""Regions of another label config or image: their task is left out of the training, not learned as background."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from backend.datasets import writer
from backend.errors import TrainingError
from backend.labelstudio import label_config, tags
from backend.loop.context import Context
from backend.loop.training import label_reading, snapshot
from backend.types import AnnotatedTask, Json, Task
from tests import drawings, kinds
from tests.drawings import SIZE
from tests.kinds import KINDS, Kind
from tests.support import CONFIG, ImageSite

OBJECTS = [name for name, kind in KINDS.items() if kind.task != "classify"]


def region(name: str, kind: str = "rectanglelabels", label: str = "cat", **more: object) -> Json:
    value = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0, kind: [label]}
    return {"id": "r1", "from_name": name, "to_name": "image", "type": kind, "value": value} | more


def annotated(task_id: int, image: str, *result: Json) -> AnnotatedTask:
    return AnnotatedTask(Task(task_id, {"image": image}), task_id, "2026-01-01T00:00:00Z", result)


SPLIT = (
    region("rect", "rectangle"),
    {"id": "r1", "from_name": "labels", "to_name": "image", "type": "labels", "value": {"labels": ["cat"]}},
)
IMPORTED: dict[str, tuple[Json, ...]] = {
    "imported from another project": (region("bbox"),),
    "the split form": SPLIT,
    "the split form under one name": tuple(item | {"from_name": "label"} for item in SPLIT),
    "of another tag": (region("outline", "polygonlabels", "horse"),),
    "a control that became another": (region("label", "polygonlabels"),),
    "a choice that became boxes": (region("label", "choices"),),
    "without a name": ({name: part for name, part in region("").items() if name != "from_name"},),
    "a renamed control beside the new": (region("label"), region("old name")),
    "a known control of another type": (region("note", "rectanglelabels"),),
}


@pytest.mark.parametrize("result", IMPORTED.values(), ids=IMPORTED)
def test_regions_of_another_config_are_no_background(
    context: Context, images: ImageSite, result: tuple[Json, ...]
) -> None:
    config = CONFIG.replace("</View>", '<TextArea name="note" toName="image"/></View>')
    (tag,) = label_config.parse(config)
    labeled = (
        annotated(1, images.add("1.png"), region("label")),
        annotated(2, images.add("2.png"), *result),
        annotated(3, images.add("3.png")),
    )
    (read,) = label_reading.labeled_images(context, 7, (tag,), labeled, frozenset())
    assert [(image.task_id, len(image.boxes)) for image in read.images] == [(1, 1), (3, 0)]
    ((task_id, reason),) = context.progress.failures(7).items()
    assert task_id == 2
    assert reason.startswith("left out of training: its regions ")
    assert "import them" in reason


def test_six_imported_tasks_and_three_good_ones_make_three_images(context: Context, images: ImageSite) -> None:
    (tag,) = label_config.parse(CONFIG)
    labeled = tuple(
        annotated(number, images.add(f"{number}.png"), region("label" if number < 3 else "bbox")) for number in range(9)
    )
    (read,) = label_reading.labeled_images(context, 7, (tag,), labeled, frozenset())
    assert [(image.task_id, len(image.boxes)) for image in read.images] == [(0, 1), (1, 1), (2, 1)]
    failures = context.progress.failures(7)
    assert sorted(failures) == list(range(3, 9))
    assert "its regions are of 'bbox', which the label config does not have" in failures[3]


def test_where_imported_tasks_leave_no_box_the_advice_is_not_to_draw_one(context: Context, images: ImageSite) -> None:
    (tag,) = label_config.parse(CONFIG)
    labeled = [annotated(n, images.add(f"{n}.png"), *([region("bbox")] if n < 2 else [])) for n in range(4)]
    (read,) = label_reading.labeled_images(context, 7, (tag,), tuple(labeled), frozenset())
    with pytest.raises(TrainingError) as caught:
        snapshot.split_of(read, 0.2, 7)
    assert "none of the 2 labeled images has a box, and 2 labeled tasks were left out" in caught.value.what
    assert "'bbox', which the label config does not have" in caught.value.fix
    with pytest.raises(TrainingError, match="draw at least one box"):
        writer.split(read.images, val_share=0.2, project_id=7)
    with pytest.raises(TrainingError, match=r"no labeled task could be read.*'bbox'"):
        label_reading.labeled_images(context, 7, (tag,), tuple(labeled[:2]), frozenset())


BESIDE: dict[str, Json] = {
    "a note": {"id": "n", "from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": ["hi"]}},
    "a note of a config before": {
        "from_name": "old",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": ["hi"]},
    },
    "a choice": {"from_name": "kind", "to_name": "image", "type": "choices", "value": {"choices": ["day"]}},
    "a choice of a config before": {"from_name": "old", "type": "choices", "value": {"choices": ["day"]}},
    "a relation": {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": []},
    "a rating": {"from_name": "stars", "to_name": "image", "type": "rating", "value": {"rating": 3}},
    "another tag's region": region("outline", "polygonlabels"),
    "a region of a Repeater": region("page_3", "rectanglelabels"),
    "a plain shape of the config": region("rect", "rectangle"),
    "its label": {"from_name": "labels", "to_name": "image", "type": "labels", "value": {"labels": ["cat"]}},
    "nothing": {},
}
EVERYTHING = CONFIG.replace(
    "</View>",
    '<TextArea name="note" toName="image"/><Rating name="stars" toName="image"/>'
    '<Choices name="kind" toName="image"><Choice value="day"/></Choices>'
    '<PolygonLabels name="outline" toName="image"><Label value="cat"/></PolygonLabels>'
    '<RectangleLabels name="page_{{idx}}" toName="image" model_skip="true"><Label value="cat"/></RectangleLabels>'
    '<Rectangle name="rect" toName="image"/><Labels name="labels" toName="image"><Label value="cat"/></Labels></View>',
)


@pytest.mark.parametrize("own", [True, False], ids=["beside boxes", "alone"])
@pytest.mark.parametrize("item", BESIDE.values(), ids=BESIDE)
def test_what_is_no_region_of_this_tag_costs_no_task(item: Json, own: bool) -> None:
    tag = label_config.parse(EVERYTHING)[0]
    result = [*([region("label")] if own else []), item]
    assert tags.unreadable(tag, result) == ()
    assert len(tags.decode(tag, result)) == own


def test_the_boxes_of_a_removed_tag_with_labels_of_its_own_leave_the_others_complete() -> None:
    (tag,) = label_config.parse(CONFIG)
    assert tags.unreadable(tag, [region("label"), region("scratches", label="scratch")]) == ()
    assert len(tags.unreadable(tag, [region("scratches", label="scratch")])) == 1


def test_an_answer_of_a_config_before_is_no_answer_to_the_question_of_today() -> None:
    choices = '<Choices name="kind" toName="image" choice="multiple"><Choice value="day"/></Choices>'
    tag = label_config.parse(CONFIG.replace("</View>", choices + "</View>"))[1]
    old = region("weather", "choices", "day")
    assert len(tags.unreadable(tag, [old])) == 1
    assert tags.unreadable(tag, [region("kind", "choices", "day"), old]) == ()
    assert tags.unreadable(tag, [region("bbox")]) == (), "a box is no answer"


def test_many_foreign_names_make_a_short_reason() -> None:
    (tag,) = label_config.parse(CONFIG)
    reasons = tags.unreadable(tag, [region(f"tag {number}" * 50) for number in range(500)])
    assert len(reasons) == 4
    assert reasons[-1].startswith("497 more")
    assert len("; ".join(reasons)) < 2000


# Another image


@pytest.fixture(params=OBJECTS)
def of_objects(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def left_out(
    context: Context, images: ImageSite, kind: Kind, folder: Path, stated: tuple[int, int], actual: tuple[int, int]
) -> str:
    """Return why a task is left out whose regions state one size and whose image has another; empty where it is not."""
    tag = kind.tag()
    (picture,) = drawings.pictures(folder / "pictures", kind.draw, 1, 3)
    result = kind.annotate(tag, kinds.drawn(tag, picture))
    result = [item | {"original_width": stated[0], "original_height": stated[1]} for item in result]
    tasks = [
        AnnotatedTask(Task(number, {tag.data_key: images.add(f"{number}.png", size=size)}), number, "then", regions)
        for number, (size, regions) in enumerate([(actual, tuple(result)), (SIZE, ())])
    ]
    label_reading.labeled_images(context, 7, (tag,), tuple(tasks), frozenset())
    return context.progress.failures(7).get(0, "")


def test_a_turned_image_is_not_learned(of_objects: Kind, context: Context, images: ImageSite, tmp_path: Path) -> None:
    reason = left_out(context, images, of_objects, tmp_path, stated=SIZE, actual=SIZE[::-1])
    assert reason.startswith("left out of training: region ")
    assert (
        f"drawn on {SIZE[0]} x {SIZE[1]} pixels, and the image has {SIZE[1]} x {SIZE[0]}: one of the two is" in reason
    )
    assert "give the task the image that was annotated" in reason


def test_a_mask_with_width_and_height_exchanged_is_not_learned(
    of_objects: Kind, context: Context, images: ImageSite, tmp_path: Path
) -> None:
    assert left_out(context, images, of_objects, tmp_path, stated=SIZE[::-1], actual=SIZE)


def test_an_image_of_its_own_size_is_learned(
    of_objects: Kind, context: Context, images: ImageSite, tmp_path: Path
) -> None:
    assert left_out(context, images, of_objects, tmp_path, stated=SIZE, actual=SIZE) == ""


@pytest.mark.parametrize("scale", [0.5, 2, 3.01])
def test_percent_fit_the_same_image_in_any_size_and_a_mask_its_own(
    of_objects: Kind, scale: float, context: Context, images: ImageSite, tmp_path: Path
) -> None:
    actual = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    is_mask = of_objects.tag().kind == "brushlabels"
    assert bool(left_out(context, images, of_objects, tmp_path, stated=SIZE, actual=actual)) == is_mask


def test_an_image_that_exif_turns_is_learned_as_the_editor_shows_it(context: Context, images: ImageSite) -> None:
    """Chromium shows it upright, so the editor writes the upright size; the cache keeps it upright (test_media.py)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 80), "red").save(buffer, "JPEG", exif=exif)
    (images.folder / "turned.jpg").write_bytes(buffer.getvalue())
    (tag,) = label_config.parse(CONFIG)
    labeled = [
        annotated(1, f"{images.url}/turned.jpg", region("label", original_width=80, original_height=60)),
        annotated(2, f"{images.url}/turned.jpg", region("label", original_width=60, original_height=80)),
    ]
    (read,) = label_reading.labeled_images(context, 7, (tag,), tuple(labeled), frozenset())
    assert [image.task_id for image in read.images] == [1]
    assert "one of the two is turned" in context.progress.failures(7)[2]
