"""Annotations that no model would make, for every tag of images: we keep them, or report why they are spoilt."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.geometry import brush_rle, png_masks
from backend.labelstudio import tags
from backend.labelstudio.client.connection import LabelStudioClient
from backend.labelstudio.tags import ellipselabels, rectanglelabels
from backend.loop.context import Context
from backend.loop.training import label_reading
from backend.types import AnnotatedTask, ControlTag, Json, LabeledBox, Task
from tests import drawings, kinds
from tests.drawings import SIZE
from tests.kinds import ALL_KINDS, KINDS, Kind, assert_same
from tests.support import ImageSite

OBJECTS = [name for name, kind in ALL_KINDS.items() if kind.task != "classify"]


@pytest.fixture(params=ALL_KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return ALL_KINDS[request.param]


@pytest.fixture(params=OBJECTS)
def of_objects(request: pytest.FixtureRequest) -> Kind:
    return ALL_KINDS[request.param]


def annotated(kind: Kind, folder: Path, seed: int = 3) -> tuple[ControlTag, tuple[LabeledBox, ...], list[Json]]:
    """Return a tag, the shapes drawn on a picture, and the annotator's result."""
    tag = kind.tag()
    (picture,) = drawings.pictures(folder / "pictures", kind.draw, 1, seed)
    shapes = kinds.drawn(tag, picture)
    return tag, shapes, kind.annotate(tag, shapes)


def labels_in(tag: ControlTag) -> tuple[str, str]:
    """Return the type and from_name of the entries that hold a tag's labels."""
    if tag.parent:
        return rectanglelabels.KIND, tag.parent
    return ("labels", tag.labels_from) if tag.labels_from else (tag.kind, tag.from_name)


# Kept


def beside(result: list[Json], *more: Json) -> list[Json]:
    """Return a result with other items before, between and behind its own."""
    return [*more, *(part for item in result for part in (item, *more))]


def per_region(result: list[Json]) -> list[Json]:
    """Answer questions about the first region: an answer has the region's id and shape, and another type."""
    first = result[0]
    text = first | {"type": "textarea", "from_name": "note", "value": first["value"] | {"text": ["broken wing"]}}
    choice = first | {"type": "choices", "from_name": "age", "value": first["value"] | {"choices": ["old"]}}
    stars = first | {"type": "rating", "from_name": "quality", "value": first["value"] | {"rating": 4}}
    return beside(result, text, choice, stars)


def related(result: list[Json]) -> list[Json]:
    arrow = {"type": "relation", "from_id": result[0]["id"], "to_id": result[-1]["id"], "direction": "right"}
    return beside(result, arrow | {"labels": ["holds"]}, arrow)


def rated(result: list[Json]) -> list[Json]:
    whole = {"id": "whole", "to_name": "image"}
    rating = whole | {"type": "rating", "from_name": "quality", "value": {"rating": 3}}
    return beside(result, rating, whole | {"type": "number", "from_name": "count", "value": {"number": 7}})


def with_unknown_tags(result: list[Json]) -> list[Json]:
    """Add items of tags that this backend does not support, also items of an unknown form."""
    first = result[0]
    hologram = first | {"id": "h", "type": "hologramlabels", "from_name": "other", "value": {"hologramlabels": ["x"]}}
    ellipse = {"x": 50, "y": 50, "radiusX": 5, "radiusY": 5, "rotation": 0, "ellipselabels": ["Nobody's"]}
    round_one = first | {"id": "e", "type": "ellipselabels", "from_name": "round", "value": ellipse}
    return beside(result, hologram, round_one, {}, {"type": "chatmessage", "from_name": "chat"})


def with_meta(result: list[Json]) -> list[Json]:
    return [item | {"meta": {"text": ["look again"]}, "score": 0.3, "readonly": True} for item in result]


def of_any_origin(result: list[Json]) -> list[Json]:
    origins = ("prediction", "prediction-changed", "manual", "interactive-result")
    return [item | {"origin": origins[place % 4]} for place, item in enumerate(result)]


def locked(result: list[Json]) -> list[Json]:
    return [item | {"locked": True} for item in result]


def hidden(result: list[Json]) -> list[Json]:
    return [item | {"hidden": True} for item in result]


Habit = Callable[[list[Json]], list[Json]]
HABITS: list[Habit] = [per_region, related, rated, with_unknown_tags, with_meta, of_any_origin, locked, hidden]


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_it_does_no_harm(kind: Kind, habit: Habit, tmp_path: Path) -> None:
    tag, shapes, result = annotated(kind, tmp_path)
    if habit is hidden:  # an annotator hides points that are covered
        visible = [tuple((x, y, 1) for x, y, _ in shape.keypoints) for shape in shapes]
        shapes = tuple(dataclasses.replace(shape, keypoints=ps) for shape, ps in zip(shapes, visible, strict=True))
    done = habit(copy.deepcopy(result))
    assert_same(tags.decode(tag, done), shapes)
    assert tags.explain(tag, done) == ()


def test_a_region_with_two_labels_is_one_of_each(of_objects: Kind, tmp_path: Path) -> None:
    tag, shapes, result = annotated(of_objects, tmp_path)
    label, key = labels_in(tag)
    both = (tag.labels * 2)[:2]
    for item in result:
        if item["from_name"] == key:
            item["value"][label] = list(both)
    decoded = tags.decode(tag, result)
    assert [box.label for box in decoded] == list(both) * len(shapes)
    assert_same(decoded[::2], [dataclasses.replace(shape, label=both[0]) for shape in shapes])
    assert tags.explain(tag, result) == ()


@pytest.mark.label_studio
def test_label_studio_keeps_it_all_and_a_draft_is_no_label(label_studio: LabelStudioProcess, tmp_path: Path) -> None:
    """All habits at once, through Label Studio; a second task has only a draft."""
    kind = KINDS["RectangleLabels"]
    tag, shapes, result = annotated(kind, tmp_path)
    more = (
        '<TextArea name="note" toName="image" perRegion="true"/><Rating name="quality" toName="image"/>'
        '<Choices name="age" toName="image" perRegion="true"><Choice value="old"/></Choices>'
        '<EllipseLabels name="round" toName="image"><Label value="Vehicle"/><Label value="Nobody\'s"/></EllipseLabels>'
        '<Relations><Relation value="holds"/></Relations></View>'
    )
    for habit in (with_meta, of_any_origin, locked, hidden, per_region, related, rated):
        result = habit(result)
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("habits", kind.label_config().replace("</View>", more))
        client.http.send("POST", f"/api/projects/{project}/import", [{"data": {"image": "http://x.example/1.png"}}] * 2)
        first, second = client.tasks.unlabeled(project)
        client.annotations.create(first.id, result)
        client.http.send("POST", f"/api/tasks/{second.id}/drafts", {"result": result})
        (labeled,) = client.annotations.annotated_tasks(project)
        assert [task.id for task in client.tasks.unlabeled(project)] == [second.id]
    assert labeled.task.id == first.id
    assert len(labeled.result) == len(result)
    assert_same(tags.decode(tag, labeled.result), shapes)
    assert tags.explain(tag, labeled.result) == ()


# Ellipses


def ellipse(tag: ControlTag, rotation: float = 30, **more: object) -> Json:
    """Return a rotated ellipse around the point (40, 30), with radii of 15 and 10 px."""
    value: Json = {"x": 100 * 40 / SIZE[0], "y": 100 * 30 / SIZE[1], "radiusX": 100 * 15 / SIZE[0]}
    value |= {"radiusY": 100 * 10 / SIZE[1], "rotation": rotation, "ellipselabels": [tag.labels[0], "Nobody's"]} | more
    return kinds.region(tag, ellipselabels.KIND, value, "round")


BOXED = [name for name in OBJECTS if ALL_KINDS[name].task in ("detect", "obb") and "EllipseLabels" not in name]
OUTLINED = [name for name in OBJECTS if ALL_KINDS[name].task in ("segment", "semantic")]


@pytest.mark.parametrize("name", BOXED)
def test_an_ellipse_is_learned_as_the_box_around_it(name: str) -> None:
    tag = ALL_KINDS[name].tag()
    (box,) = tags.decode(tag, [ellipse(tag)])
    assert (box.label, box.note) == (tag.labels[0], ellipselabels.BOXED)
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    if tag.task == "obb":  # the upright box around the rotated box
        around = (15 * cos + 10 * sin, 15 * sin + 10 * cos)
        first = (40 - 15 * cos + 10 * sin, 30 - 15 * sin - 10 * cos)
        np.testing.assert_allclose(np.array(box.outline[0][0]) * SIZE, first, atol=1e-9)
    else:
        around = (math.hypot(15 * cos, 10 * sin), math.hypot(15 * sin, 10 * cos))
    expected = (40 / SIZE[0], 30 / SIZE[1], 2 * around[0] / SIZE[0], 2 * around[1] / SIZE[1])
    assert box.xywh == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", OUTLINED)
def test_an_ellipse_is_learned_as_its_outline(name: str) -> None:
    tag = ALL_KINDS[name].tag()
    (box,) = tags.decode(tag, [ellipse(tag, rotation=90)])
    assert (box.label, box.note) == (tag.labels[0], "")
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    inside = ((columns - 40) / 10) ** 2 + ((rows - 30) / 15) ** 2 < 1
    assert (kinds.pixels(box) != inside).sum() <= 4


@pytest.mark.parametrize("name", BOXED + OUTLINED)
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"radiusX": 0}, "has no area inside the image"),
        ({"x": 140}, "has no area inside the image"),
        ({"radiusY": "wide"}, "has no usable x, y, radiusX, radiusY or rotation"),
    ],
)
def test_an_ellipse_that_is_left_out_is_explained(name: str, more: Json, reason: str) -> None:
    tag = ALL_KINDS[name].tag()
    item = ellipse(tag, **more)
    assert tags.decode(tag, [item]) == ()
    assert tags.explain(tag, [item]) == (f"region {item['id']} {reason}",)
    assert bool(tags.unreadable(tag, [item])) == ("usable" in reason)


def test_an_ellipse_with_labels_of_its_own_or_on_another_image_is_left_alone() -> None:
    tag = KINDS["RectangleLabels"].tag()
    tag = dataclasses.replace(tag, controls={**tag.controls, "round": "ellipselabels"})
    for item in (ellipse(tag, ellipselabels=["Nobody's"]), ellipse(tag) | {"to_name": "other"}):
        assert tags.decode(tag, [item]) == ()
        assert tags.explain(tag, [item]) == ()


# Changed or dropped, and counted


def moved_out(result: list[Json]) -> list[Json]:
    """Return a result with its first object moved outside the image."""
    items = [copy.deepcopy(item) for item in result if item["id"] == result[0]["id"]]
    for item in items:
        value = item["value"]
        if "points" in value:
            value["points"] = [[x + 200, y] for x, y in value["points"]]
        elif "vertices" in value:
            value["vertices"] = [vertex | {"x": vertex["x"] + 200} for vertex in value["vertices"]]
        elif "imageDataURL" in value:
            value["imageDataURL"] = png_masks.encode(np.zeros((SIZE[1], SIZE[0])))
        elif "rle" in value:
            value["rle"] = brush_rle.encode_rle(np.zeros((SIZE[1], SIZE[0])))
        else:
            value["x"] += 200
    return [item | {"id": "out"} for item in items]


def test_what_shows_nothing_is_dropped_and_the_task_is_learned(of_objects: Kind, tmp_path: Path) -> None:
    tag, shapes, result = annotated(of_objects, tmp_path)
    result = [*moved_out(result), *result]
    assert_same(tags.decode(tag, result), shapes)
    (reason,) = tags.explain(tag, result)
    assert reason.startswith("region out ")
    assert tags.unreadable(tag, result) == ()


def test_what_leaves_the_image_is_clipped(of_objects: Kind, tmp_path: Path) -> None:
    """A mask cannot leave its image."""
    tag, _, result = annotated(of_objects, tmp_path)
    for item in result:
        value = item["value"]
        if "points" in value:
            value["points"] = [[3 * x - 100, y] for x, y in value["points"]]
        elif "vertices" in value:
            value["vertices"] = [vertex | {"x": 3 * vertex["x"] - 100} for vertex in value["vertices"]]
        elif "x" in value:
            value["x"] -= 30
    decoded = tags.decode(tag, result)
    assert tags.unreadable(tag, result) == ()
    for box in decoded:
        x, y, width, height = box.xywh
        assert min(width, height) > 0
        assert min(x - width / 2, y - height / 2) >= -1e-9
        assert max(x + width / 2, y + height / 2) <= 1 + 1e-9
        assert all(0 <= share <= 1 for x, y, _ in box.keypoints for share in (x, y))
    assert decoded


@pytest.mark.parametrize(("rotation", "note"), [(0, ""), (90, ""), (-180, ""), (30, rectanglelabels.TURNED)])
def test_a_box_that_loses_its_angle_says_so(rotation: float, note: str) -> None:
    tag = KINDS["RectangleLabels"].tag()
    value = {"x": 50, "y": 50, "width": 10, "height": 10, "rotation": rotation, tag.kind: [tag.labels[0]]}
    (box,) = tags.decode(tag, [kinds.region(tag, tag.kind, value)])
    assert box.note == note
    (turned,) = tags.decode(
        KINDS["RectangleLabels model_obb"].tag(), [kinds.region(tag, tag.kind, value | {tag.kind: ["Ship"]})]
    )
    assert turned.note == ""


# Spoilt


def spoilt(tag: ControlTag, result: list[Json]) -> dict[str, list[Json]]:
    """Return results of a kind that cannot be learned, by a part of the reason."""
    first = result[0]
    if tag.task == "classify":
        gone = {tag.kind: [["Gone"]] if tag.kind == "taxonomy" else ["Gone"]}
        return {"the label 'Gone', which is not in the label config": [first | {"value": gone}]}
    label, key = labels_in(tag)
    renamed = [item for item in result if item["from_name"] == key][:1]
    by_reason = {
        "the label 'Gone', which is not in the label config": changed(result, renamed, {label: ["Gone"]}),
        **({"has no label": [item for item in result if item["type"] != "labels"]} if tag.labels_from else {}),
    }
    if "points" in first["value"]:
        by_reason["has fewer than 3 points"] = changed(result, [first], {"points": first["value"]["points"][:2]})
    elif "rle" in first["value"]:
        by_reason["cannot be learned: the brush mask cannot be read"] = changed(result, [first], {"rle": [1, 2, 3]})
    elif "imageDataURL" in first["value"]:
        by_reason["cannot be learned: the bitmask cannot be read"] = changed(result, [first], {"imageDataURL": "x"})
    elif "vertices" in first["value"]:
        by_reason["is a line that is not closed"] = changed(result, [first], {"closed": False})
    elif tag.parent:
        lone = result[1] | {"id": "lone", "parentID": None, "value": result[1]["value"] | {"x": 0, "y": 0}}
        by_reason["is a point without a box"] = [*result, lone]
    else:
        by_reason["has no usable x, y, "] = changed(result, [first], {"x": None})
    if tag.labels_from:
        drawn = next(item for item in result if item["type"] == tag.kind)
        by_reason["has labels and no shape"] = [item for item in result if item is not drawn]
    return by_reason


def changed(result: list[Json], items: list[Json], more: Json) -> list[Json]:
    """Return a result with other values in some of its items."""
    return [
        item | {"value": item["value"] | more} if any(item is other for other in items) else item for item in result
    ]


def test_a_spoilt_task_is_left_out_and_listed_and_the_rest_goes_on(
    kind: Kind, context: Context, images: ImageSite, tmp_path: Path
) -> None:
    """Without the region, the training would learn the image as background."""
    tag, shapes, result = annotated(kind, tmp_path)
    bad = spoilt(tag, result)
    results = [result, *bad.values(), result]
    labeled = tuple(
        AnnotatedTask(
            Task(number, {tag.data_key: images.add(f"{number}.png", size=SIZE)}),
            number,
            "2026-01-01T00:00:00Z",
            tuple(items),
        )
        for number, items in enumerate(results)
    )
    (read,) = label_reading.labeled_images(context, 7, (tag,), labeled, frozenset())
    images_read = read.images
    assert [image.task_id for image in images_read] == [0, len(results) - 1]
    for image in images_read:
        assert_same(image.boxes, shapes)
    failures = context.progress.failures(7)
    assert sorted(failures) == list(range(1, len(results) - 1))
    for number, reason in enumerate(bad, start=1):
        assert failures[number].startswith("left out of training: region ")
        assert reason in failures[number]
