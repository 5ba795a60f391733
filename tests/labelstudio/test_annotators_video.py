"""Annotations of videos that no model would make: we keep them, or report why they are spoilt."""

from __future__ import annotations

import copy

import pytest

from backend.labelstudio import label_config, tags
from backend.loop.context import Context
from backend.loop.training import label_reading
from backend.types import AnnotatedTask, ControlTag, Json, Task
from tests import clips
from tests.clips import Mover
from tests.labelstudio.test_annotators import HABITS, Habit
from tests.support import ROOT, ImageSite

SIZE = (160, 120)
FRAMES, RATE = 20, 25
EXAMPLES = ("videorectangle.xml", "timelinelabels.xml")


@pytest.fixture(params=EXAMPLES)
def tag(request: pytest.FixtureRequest) -> ControlTag:
    (parsed,) = label_config.parse((ROOT / "label_config" / request.param).read_text(encoding="utf-8"))
    return parsed


def key(frame: int, x: float, *, enabled: bool = True) -> Json:
    base = {"frame": frame, "x": x, "y": 20, "width": 30, "height": 30, "rotation": 0}
    return base | {"enabled": enabled, "time": frame / RATE}


def result(tag: ControlTag) -> list[Json]:
    """Return an annotator's result for a video: two regions, one for each label."""
    regions = []
    for number, label in enumerate(tag.labels[:2]):
        value: Json = {"ranges": [{"start": 2 + number, "end": 12}], "timelinelabels": [label]}
        if tag.kind == "videorectangle":
            value = {"framesCount": FRAMES, "duration": FRAMES / RATE, "labels": [label]}
            value["sequence"] = [key(2 + number, 10), key(12, 40, enabled=False)]
        base = {"id": f"r{number}", "type": tag.kind, "from_name": tag.from_name, "to_name": tag.to_name}
        sizes = {"original_width": SIZE[0], "original_height": SIZE[1]}
        regions.append(base | sizes | {"value": value, "origin": "manual"})
    return regions


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_it_does_no_harm(tag: ControlTag, habit: Habit) -> None:
    plain = result(tag)
    assert len(tags.decode(tag, plain)) > 1
    done = habit(copy.deepcopy(plain))
    assert tags.decode(tag, done) == tags.decode(tag, plain)
    assert tags.explain(tag, done) == ()


def test_a_region_with_two_labels_is_one_of_each(tag: ControlTag) -> None:
    first, _ = result(tag)
    name = "labels" if tag.kind == "videorectangle" else tag.kind
    first["value"][name] = list(tag.labels[:2])
    decoded = tags.decode(tag, [first])
    drawn = {label: [(box.frame, box.last, box.xywh) for box in decoded if box.label == label] for label in tag.labels}
    first_label, second_label = (drawn[label] for label in tag.labels[:2])
    assert first_label
    assert first_label == second_label
    assert tags.explain(tag, [first]) == ()


def spoilt(tag: ControlTag) -> dict[str, list[Json]]:
    """Return results that cannot be learned, by a part of the reason."""
    video = tag.kind == "videorectangle"
    labels, frames = ("labels", "sequence") if video else (tag.kind, "ranges")

    def with_value(**value: object) -> list[Json]:
        first, *others = result(tag)
        return [first | {"value": first["value"] | value}, *others]

    return {
        "has the label 'Gone', which is not in the label config": with_value(**{labels: ["Gone"]}),
        f"no list of {'key frames' if video else 'ranges'}": with_value(**{frames: None}),
        "has the frame 0": with_value(**{frames: [key(0, 10) if video else {"start": 0, "end": 3}]}),
    }


def test_a_spoilt_task_is_left_out_and_listed_and_the_rest_goes_on(
    tag: ControlTag, context: Context, images: ImageSite
) -> None:
    clips.write(images.folder / "clip.avi", [Mover("red", (0, 10), (2, 0), (40, 30))], FRAMES, SIZE)
    bad = spoilt(tag)
    results = [result(tag), *bad.values(), result(tag)]
    annotated = tuple(
        AnnotatedTask(
            Task(number, {tag.data_key: f"{images.url}/clip.avi"}), number, "2026-01-01T00:00:00Z", tuple(spoilt_result)
        )
        for number, spoilt_result in enumerate(results)
    )
    (read,) = label_reading.labeled_images(context, 7, (tag,), annotated, frozenset())
    assert {image.task_id for image in read.images} == {0, len(results) - 1}
    failures = context.progress.failures(7)
    assert sorted(failures) == list(range(1, len(results) - 1))
    for number, reason in enumerate(bad, start=1):
        assert failures[number].startswith("left out of training: region r0")
        assert reason in failures[number]


@pytest.mark.parametrize("item", ["rubbish", 7, None, ["r0"]])
def test_what_is_no_region_costs_its_own_task_alone(
    tag: ControlTag, context: Context, images: ImageSite, item: object
) -> None:
    """Label Studio imports anything."""
    clips.write(images.folder / "clip.avi", [Mover("red", (0, 10), (2, 0), (40, 30))], FRAMES, SIZE)
    results = [result(tag), [*result(tag), item]]
    annotated = tuple(
        AnnotatedTask(Task(number, {tag.data_key: f"{images.url}/clip.avi"}), number, "", tuple(spoilt_result))  # type: ignore[arg-type]
        for number, spoilt_result in enumerate(results)
    )
    (read,) = label_reading.labeled_images(context, 7, (tag,), annotated, frozenset())
    assert {image.task_id for image in read.images} == {0}
    assert context.progress.failures(7) == {1: f"left out of training: {item!r} is in its result, and is not a region"}
