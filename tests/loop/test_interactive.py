"""A smart tool gets the one object at which an annotator points, in the control tag that can hold it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.geometry import coordinates
from backend.labelstudio import label_config, tags, task_labels
from backend.loop import interactive, serving
from backend.loop.context import Context
from backend.loop.interactive import Suggestion
from backend.storage import file_sha256
from backend.types import Json, LabeledBox, Task, YoloTask
from backend.yolo import approved_weights
from backend.yolo.detector import Detector
from tests import squares
from tests.sam_weights import mobile_sam
from tests.support import ImageSite, publish, tiny_yolo

pytestmark = [pytest.mark.torch, pytest.mark.redis]

LABELS = '<Label value="red"/><Label value="blue"/>'
CLICKS = f'<KeyPointLabels name="point" toName="image" smart="true">{LABELS}</KeyPointLabels>'
SIDE = squares.IMGSZ


def config(tag: str = "RectangleLabels", **attributes: str) -> str:
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return (
        f'<View><Image name="image" value="$image"/>{CLICKS}'
        f'<{tag} name="label" toName="image"{more}>{LABELS}</{tag}></View>'
    )


def farthest(boxes: Iterable[LabeledBox]) -> tuple[float, float]:
    """Return the place of an image, in shares of its sides, that is farthest from all boxes."""
    x, y, width, height = np.array([box.xywh for box in boxes]).T
    places = np.array([(right / 20, down / 20) for right in range(1, 20) for down in range(1, 20)])
    right, down = (np.abs(places[:, axis, None] - (x, y)[axis]) - (width, height)[axis] / 2 for axis in (0, 1))
    away = np.maximum(right, down).min(axis=1)
    assert away.max() > 0.1
    place = places[away.argmax()]
    return float(place[0]), float(place[1])


def click(x: float, y: float, label: str = "red", region_id: str = "r1", **more: Any) -> Json:
    """Return a click at a place in shares of the image, as Label Studio sends it."""
    value = {"x": 100 * x, "y": 100 * y, "width": 0.5, "keypointlabels": [label], "labels": [label]}
    item = {"id": region_id, "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True}
    return item | {"original_width": SIDE, "original_height": SIDE, "value": value} | more


def rectangle(x: float, y: float, side: float, label: str = "red") -> Json:
    value = {"x": 100 * x, "y": 100 * y, "width": 100 * side, "height": 100 * side, "rotation": 0}
    item = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    return item | {"original_width": SIDE, "original_height": SIDE, "value": value | {"rectanglelabels": [label]}}


def learned_task(images: ImageSite, learned: squares.Learned) -> tuple[Task, dict[str, LabeledBox]]:
    """Return a task with a picture that the model did not learn, and its squares by label."""
    image = learned.split.val[0]
    shutil.copy(image.path, images.folder / "squares.png")
    return Task(1, {"image": f"{images.url}/squares.png"}), {box.label: box for box in image.boxes}


@pytest.fixture
def served(context: Context, learned: squares.Learned) -> Context:
    serving.setup(context, 7, config(), "http://studio.example", "", "http://backend.example:9090")
    version = publish(context.store, 7, learned.trained.weights, classes=squares.CLASSES)
    context.store.activate(7, version.number)
    return context


def suggest(context: Context, task: Task, *drawn: Any, schema: str = "") -> Suggestion:
    return interactive.suggest(context, 7, schema or config(), task, drawn)


def boxes(suggestion: Suggestion, schema: str = "") -> list[LabeledBox]:
    assert suggestion.reason == ""
    return list(tags.decode(label_config.parse(schema or config())[0], suggestion.regions))


def overlap(box: LabeledBox, truth: LabeledBox) -> float:
    corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in (box.xywh, truth.xywh)]
    return float(coordinates.iou(corners[:1], corners[1:])[0, 0])


def test_a_click_gets_the_box_of_what_it_hits(served: Context, images: ImageSite, learned: squares.Learned) -> None:
    task, truth = learned_task(images, learned)
    x, y, width, height = truth["red"].xywh
    suggestion = suggest(served, task, click(x + width / 5, y - height / 5))
    (box,) = boxes(suggestion)
    assert box.label == "red"
    assert overlap(box, truth["red"]) > 0.6
    (region,) = suggestion.regions
    assert (region["type"], region["from_name"], region["original_width"]) == ("rectanglelabels", "label", SIDE)
    assert 0 < suggestion.score == region["score"] <= 1
    assert suggestion.version == "yolo11n-v1"


def test_a_label_that_the_task_names_itself(served: Context, images: ImageSite, learned: squares.Learned) -> None:
    task, truth = learned_task(images, learned)
    task = replace(task, data={**task.data, "goods": ["red", "blue"]})
    schema = config(value="$goods").replace(f"{LABELS}</Rect", "</Rect")
    (box,) = boxes(
        suggest(served, task, click(*truth["red"].xywh[:2]), schema=schema), task_labels.learned(schema, [task])
    )
    assert (box.label, overlap(box, truth["red"]) > 0.6) == ("red", True)
    assert "no control tag" in suggest(served, task, click(*truth["red"].xywh[:2], label="tea"), schema=schema).reason


def test_the_annotators_label_counts_even_if_the_model_sees_another(
    served: Context, images: ImageSite, learned: squares.Learned
) -> None:
    task, truth = learned_task(images, learned)
    (box,) = boxes(suggest(served, task, click(*truth["red"].xywh[:2], label="blue")))
    assert box.label == "blue"
    assert overlap(box, truth["red"]) > 0.6


def test_a_rough_rectangle_becomes_the_box_of_the_object(
    served: Context, images: ImageSite, learned: squares.Learned
) -> None:
    task, truth = learned_task(images, learned)
    x, y, width, height = truth["red"].xywh
    rough = rectangle(x - 0.7 * width, y - 0.7 * height, 1.4 * width)
    (box,) = boxes(suggest(served, task, rough))
    assert overlap(box, truth["red"]) > 0.6


def test_a_second_click_on_an_image_asks_the_model_nothing_and_gets_a_region_of_its_own(
    served: Context, images: ImageSite, learned: squares.Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, truth = learned_task(images, learned)
    place = truth["red"].xywh[:2]
    first = suggest(served, task, click(*place, region_id="r1"))
    monkeypatch.delattr(Detector, "candidates")
    assert suggest(served, task, click(*place, region_id="r1")) == first
    other = suggest(served, task, click(*place, "blue", region_id="r2"))
    assert boxes(other)[0].label == "blue"
    assert other.regions[0]["id"] != first.regions[0]["id"]


def test_where_the_model_sees_nothing_there_is_no_region(
    served: Context, images: ImageSite, learned: squares.Learned
) -> None:
    """A click on the background does not get the square that is nearest."""
    task, truth = learned_task(images, learned)
    assert_reason(suggest(served, task, click(*farthest(truth.values()))), "the model sees no object there.*by hand")


def test_not_here_leaves_the_object_out(served: Context, images: ImageSite, learned: squares.Learned) -> None:
    task, truth = learned_task(images, learned)
    place = truth["red"].xywh[:2]
    away = click(*place, region_id="r1", is_positive=False)
    suggestion = suggest(served, task, away, click(*place, region_id="r2"))
    assert_reason(suggestion, "the model sees no object there")


# ── other control tags ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tag", "task_of_model", "attributes"),
    [
        ("BrushLabels", "segment", {}),
        ("PolygonLabels", "segment", {}),
        ("RectangleLabels", "obb", {"model_obb": "true"}),
    ],
)
def test_masks_polygons_and_rotated_boxes(
    context: Context, images: ImageSite, tmp_path: Path, tag: str, task_of_model: YoloTask, attributes: dict[str, str]
) -> None:
    schema = config(tag, **attributes)
    serving.setup(context, 7, schema, "", "", "http://backend.example:9090")
    weights = tiny_yolo(tmp_path / "tiny.pt", squares.CLASSES, task=task_of_model)
    context.store.activate(7, publish(context.store, 7, weights, classes=squares.CLASSES, task=task_of_model).number)
    task = Task(1, {"image": images.add("a.png")})
    around = {"value": {"x": 10, "y": 10, "width": 80, "height": 80, "rotation": 0, "rectanglelabels": ["blue"]}}
    suggestion = suggest(context, task, rectangle(0.1, 0.1, 0.8, "blue") | around, schema=schema)
    assert suggestion.reason == ""
    (region,) = suggestion.regions
    assert (region["type"], region["from_name"], region["value"][tag.lower()]) == (tag.lower(), "label", ["blue"])
    assert boxes(suggestion, schema)[0].label == "blue"


def test_a_tag_that_leaves_a_label_to_another_tag_still_answers_who_points_at_an_object(
    context: Context, images: ImageSite, tmp_path: Path
) -> None:
    """Pre-annotations of both would be there twice; of what somebody points at there is one answer."""
    ellipses = f'<EllipseLabels name="round" toName="image">{LABELS}<Label value="owl"/></EllipseLabels>'
    schema = config("PolygonLabels").replace("<PolygonLabels", f"{ellipses}<PolygonLabels")
    assert label_config.parse(schema)[0].answered_by_others == ("red", "blue")
    serving.setup(context, 7, schema, "", "", "http://backend.example:9090")
    weights = tiny_yolo(tmp_path / "tiny.pt", squares.CLASSES)
    version = publish(context.store, 7, weights, classes=squares.CLASSES, from_name="round")
    context.store.activate(7, version.number)
    suggestion = suggest(context, Task(1, {"image": images.add("a.png")}), click(0.5, 0.5), schema=schema)
    assert [region["from_name"] for region in suggestion.regions] == ["round"], suggestion.reason


def test_the_split_form_has_two_entries_in_place_of_the_rectangle(
    served: Context, images: ImageSite, learned: squares.Learned
) -> None:
    schema = (
        f'<View><Image name="image" value="$image"/><Labels name="labels" toName="image">{LABELS}</Labels>'
        '<Rectangle name="label" toName="image"/></View>'
    )
    task, truth = learned_task(images, learned)
    x, y, width, height = truth["red"].xywh
    drawn = rectangle(x - 0.6 * width, y - 0.6 * height, 1.2 * width)
    place = {name: drawn["value"][name] for name in ("x", "y", "width", "height", "rotation")}
    shape = drawn | {"type": "rectangle", "value": place}
    named = drawn | {"type": "labels", "from_name": "labels", "value": place | {"labels": ["red"]}}
    suggestion = suggest(served, task, shape, named, schema=schema)
    assert [(entry["type"], entry["id"]) for entry in suggestion.regions] == [("rectangle", "r1"), ("labels", "r1")]
    (box,) = boxes(suggestion, schema)
    assert box.label == "red"
    assert overlap(box, truth["red"]) > 0.6


def test_the_page_of_a_click(served: Context, images: ImageSite, learned: squares.Learned) -> None:
    schema = config().replace('value="$image"', 'valueList="$pages"')
    single, truth = learned_task(images, learned)
    task = Task(2, {"pages": [images.add("first.png"), single.data["image"]]})
    place = truth["red"].xywh[:2]
    suggestion = suggest(served, task, click(*place, item_index=1), schema=schema)
    assert [region["item_index"] for region in suggestion.regions] == [1]
    assert suggestion.regions[0]["value"] == suggest(served, single, click(*place)).regions[0]["value"]
    assert_reason(suggest(served, task, click(*place, item_index=2), schema=schema), "the task has no page 3")


# ── SAM ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def with_sam(context: Context, sam: Path) -> Context:
    """A project without a trained model, and SAM's weights in the model directory, which the admin has not listed."""
    serving.setup(context, 7, config("BrushLabels"), "", "", "http://backend.example:9090")
    shutil.copy(sam, context.work_dir / sam.name)
    return context


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mobile_sam(tmp_path_factory.mktemp("sam"))


def approve(context: Context, sam: Path) -> None:
    listing = approved_weights.entry(sam.name, file_sha256(sam))
    (context.work_dir / approved_weights.LISTING).write_text(f"{listing}\n")


def test_approved_sam_weights_answer_with_a_mask(with_sam: Context, images: ImageSite, sam: Path) -> None:
    task = Task(1, {"image": images.add("a.png")})
    approve(with_sam, sam)
    schemas = {
        "brushlabels": config("BrushLabels"),
        "polygonlabels": config("PolygonLabels"),
        "rectanglelabels": config("RectangleLabels"),
        "rectanglelabels, rotated": config("RectangleLabels", model_obb="true"),
    }
    for kind, schema in schemas.items():
        suggestion = suggest(with_sam, task, click(0.5, 0.5, "blue"), schema=schema)
        (region,) = suggestion.regions
        assert region["type"] == kind.partition(",")[0]
        (label,) = boxes(suggestion, schema)
        assert label.label == "blue"
        assert label.xywh == pytest.approx((0.5, 0.5, 1, 1), abs=0.05)
    assert len(with_sam.predictors) == 0  # no model of ours was loaded


def test_sam_weights_that_the_admin_did_not_list_are_not_opened(
    with_sam: Context, images: ImageSite, caplog: pytest.LogCaptureFixture
) -> None:
    (with_sam.work_dir / "mobile_sam.pt").write_bytes(b"no weights")
    task = Task(1, {"image": images.add("a.png")})
    for _ in range(2):
        assert_reason(suggest(with_sam, task, click(0.5, 0.5), schema=config("BrushLabels")), "has no model yet")
    assert caplog.text.count("sha256sum mobile_sam.pt") == 1


def test_sam_weights_that_were_changed_after_they_were_listed_are_not_opened(
    with_sam: Context, images: ImageSite, sam: Path
) -> None:
    approve(with_sam, sam)
    (with_sam.work_dir / "mobile_sam.pt").write_bytes(b"other weights")
    task = Task(1, {"image": images.add("a.png")})
    suggestion = suggest(with_sam, task, click(0.5, 0.5), schema=config("BrushLabels"))
    assert_reason(suggestion, r"mobile_sam\.pt differ from the approved file")


# ── no answer ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        ([click(0.5, 0.5, "green")], "no control tag that predicts objects has the label 'green'.*choose one of red"),
        ([click(1.2, 0.5)], "r1 lies outside the image.*click on the object"),
        ([], "sent nothing, no key point and no rectangle"),
        ([{"type": "brushlabels", "value": {}}], "sent 'brushlabels'"),
        ([None, 3], "sent nothing"),
        ([rectangle(0.2, 0.2, 0)], "no area inside the image"),
    ],
)
def test_a_prompt_that_cannot_be_answered_gets_the_reason(
    served: Context, images: ImageSite, drawn: list[Any], reason: str
) -> None:
    suggestion = suggest(served, Task(1, {"image": images.add("a.png")}), *drawn)
    assert suggestion.score == 0
    assert_reason(suggestion, reason)


def assert_reason(suggestion: Suggestion, pattern: str) -> None:
    assert suggestion.regions == ()
    assert re.search(pattern, suggestion.reason), suggestion.reason


def test_an_image_that_is_missing(served: Context, images: ImageSite) -> None:
    assert_reason(suggest(served, Task(1, {"image": f"{images.url}/404.png"}), click(0.5, 0.5)), "404")
    assert_reason(suggest(served, Task(1, {}), click(0.5, 0.5)), "task 1")


def test_without_a_model_the_reason_is_that(context: Context, images: ImageSite) -> None:
    serving.setup(context, 7, config(), "", "", "http://backend.example:9090")
    suggestion = suggest(context, Task(1, {"image": images.add("a.png")}), click(0.5, 0.5))
    assert_reason(suggestion, "label has no model yet.*label some images")


def test_whole_images_have_no_place_to_click(context: Context, images: ImageSite) -> None:
    schema = config("BrushLabels", model_semantic="true")
    suggestion = suggest(context, Task(1, {"image": images.add("a.png")}), click(0.5, 0.5), schema=schema)
    assert_reason(suggestion, "no control tag that predicts objects")


def test_a_label_config_that_cannot_be_used(context: Context) -> None:
    assert_reason(suggest(context, Task(1, {}), click(0.5, 0.5), schema="<View/>"), "no control tag")
