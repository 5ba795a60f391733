"""Which labels count, which tasks were chosen at random, and what is left out of a training."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import TrainingError
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.training import label_reading, snapshot
from backend.model_versions import ModelVersion, TagModel, TrainingSnapshot
from backend.storage import file_sha256
from backend.types import AnnotatedTask, Json, Ranking, Task
from backend.web import status_schemas
from tests.support import CONFIG, ImageSite


def test_tasks_labeled_before_any_ranking_were_chosen_at_random(context: Context) -> None:
    assert snapshot.chance_tasks(context, 1, (labeled(4), labeled(7))) == {4, 7}


def test_of_ranked_tasks_only_the_explored_were_chosen_at_random(context: Context) -> None:
    context.store.pools.save_ranking(1, 0, ranking([4, 5, 6], explored=[5]))
    assert snapshot.chance_tasks(context, 1, (labeled(4), labeled(5), labeled(9))) == {5, 9}


def test_whether_a_task_was_chosen_at_random_never_changes(context: Context, tmp_path: Path) -> None:
    """Task 4 was chosen by its acquisition value, and a later ranking that explores it does not change that."""
    publish(context, tmp_path, trained_on=(4, 5), at_random=(5,))
    context.store.pools.save_ranking(1, 1, ranking([4, 6, 8], explored=[4, 6]))
    assert snapshot.chance_tasks(context, 1, tuple(map(labeled, (4, 5, 6, 8, 9)))) == {5, 6}  # 9 came later


def test_while_the_champion_cannot_be_ranked_the_ranking_of_the_served_version_decides(
    context: Context, tmp_path: Path
) -> None:
    publish(context, tmp_path, trained_on=(4,), at_random=())
    context.store.pools.save_ranking(1, 0, ranking([4, 5, 6], explored=[5]))
    assert snapshot.chance_tasks(context, 1, tuple(map(labeled, (4, 5, 6, 9)))) == {5}


def test_a_version_counts_the_tasks_that_taught_it(context: Context, tmp_path: Path) -> None:
    """The snapshot has more annotations: all labels count as learned, or they would start trainings for ever."""
    publish(context, tmp_path, trained_on=(4, 5), at_random=())
    (version,) = context.store.versions(1)
    nine = dict.fromkeys(range(9), "2026-01-01T00:00:00Z")
    judged = dataclasses.replace(version.snapshot, annotations=nine, val_tasks=(5, 6))
    assert status_schemas.version_out(dataclasses.replace(version, snapshot=judged)).images == 3


def test_a_task_that_hid_a_tag_does_not_teach_it(context: Context, images: ImageSite) -> None:
    """An image of another kind than the boxes are for is no background image."""
    question = '<Choices name="kind" toName="image"><Choice value="street"/><Choice value="other"/></Choices>'
    shown = 'visibleWhen="choice-selected" whenTagName="kind" whenChoiceValue="street"'
    config = CONFIG.replace("<RectangleLabels", f"{question}<View {shown}><RectangleLabels").replace(
        "</RectangleLabels>", "</RectangleLabels></View>"
    )
    annotated = tuple(
        dataclasses.replace(
            labeled(number),
            task=Task(number, {"image": images.add(f"{number}.png", number)}),
            result=({"from_name": "kind", "to_name": "image", "type": "choices", "value": {"choices": [kind]}},),
        )
        for number, kind in enumerate(("street", "other", "street"))
    )
    boxes, kinds = label_reading.labeled_images(context, 1, label_config.parse(config), annotated, frozenset())
    assert [image.task_id for image in boxes.images] == [0, 2]
    assert [image.task_id for image in kinds.images] == [0, 1, 2]
    assert context.progress.failures(1) == {}


def labeled(task_id: int) -> AnnotatedTask:
    return AnnotatedTask(Task(task_id, {}), annotation_id=task_id, updated_at="2026-01-01T00:00:00Z", result=())


def ranking(task_ids: list[int], explored: list[int]) -> Ranking:
    ids = np.array(task_ids, dtype=np.int64)
    zeros = np.zeros(len(ids), dtype=np.float32)
    return Ranking(ids, zeros, zeros, np.isin(ids, explored), "entropy")


def publish(context: Context, folder: Path, trained_on: tuple[int, ...], at_random: tuple[int, ...]) -> None:
    weights = folder / "weights.pt"
    weights.write_bytes(b"weights")
    snapshot = TrainingSnapshot(1, "hash", {}, train_tasks=trained_on, val_tasks=(), random_tasks=at_random)
    sha256 = file_sha256(weights)
    version = ModelVersion(
        project_id=1,
        number=context.store.reserve_number(1),
        name="yolo11n-v1",
        parent=None,
        snapshot=snapshot,
        software={},
        timings={},
        created=datetime.now(UTC),
        promoted=True,
        reason="a test",
        models=(TagModel("label", "detect", ("cat",), sha256, "yolo11n.pt", None, None, {}, "a test"),),
    )
    context.store.publish(version, {"label": weights})


def test_the_status_lists_only_the_tasks_that_cannot_be_learned(
    context: Context, images: ImageSite, caplog: pytest.LogCaptureFixture
) -> None:
    def region(label: str) -> Json:
        value = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": [label]}
        return {"id": "r1", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}

    def annotated(task_id: int, image: object, *regions: Json) -> AnnotatedTask:
        return AnnotatedTask(Task(task_id, {"image": image}), task_id, "2026-01-01T00:00:00Z", regions)

    outside = region("cat") | {"value": region("cat")["value"] | {"x": 120}}
    turned = region("cat") | {"value": region("cat")["value"] | {"rotation": 30}, "original_width": 80}
    (tag,) = label_config.parse(CONFIG)
    context.progress.note_failures(7, [1], {1: "no longer true"})
    (read,) = label_reading.labeled_images(
        context,
        7,
        (tag,),
        (
            annotated(1, images.add("1.png"), region("cat")),
            annotated(2, images.add("2.png"), region("cat"), region("gone")),
            annotated(3, f"{images.url}/404.png", region("cat")),
            annotated(4, images.add("4.png")),
            annotated(5, images.add("5.png"), outside, region("cat"), outside),
            annotated(6, images.add("6.png"), turned | {"original_height": 60}, turned | {"original_height": 60}),
        ),
        frozenset({4}),
    )
    assert [(image.task_id, len(image.boxes), image.random) for image in read.images] == [
        (1, 1, False),
        (4, 0, True),  # a background image
        (5, 1, False),
        (6, 2, False),
    ]
    failures = context.progress.failures(7)
    assert set(failures) == {2, 3, 5}
    assert failures[2].startswith("left out of training: region r1 has the label 'gone'")
    assert "404" in failures[3]
    assert failures[5].startswith("not all of it can be learned: region r1 has no area inside the image")
    assert "project 7: 2 turned boxes learned as the upright boxes around them" in caplog.text
    assert "project 7: 2 regions dropped" in caplog.text
    with pytest.raises(TrainingError, match=r"no labeled task could be read.*404"):
        label_reading.labeled_images(context, 7, (tag,), (annotated(3, f"{images.url}/404.png"),), frozenset())


def test_an_image_too_small_to_be_learned_is_listed(context: Context, images: ImageSite) -> None:
    """ultralytics leaves it out without a message. Classifiers take any size, because we write their data set."""
    boxes = label_config.parse(CONFIG)
    choices = label_config.parse(
        '<View><Image name="image" value="$meta.image"/>'
        '<Choices name="c" toName="image"><Choice value="a"/></Choices></View>'
    )
    sizes = {1: (9, 60), 2: (60, 9), 3: (10, 10)}
    tasks = [Task(n, {"meta": {"image": images.add(f"{n}.png", size=size)}}) for n, size in sizes.items()]
    annotated = tuple(AnnotatedTask(task, task.id, "2026-01-01T00:00:00Z", ()) for task in tasks)
    (read,) = label_reading.labeled_images(context, 7, choices, annotated, frozenset())
    assert [image.task_id for image in read.images] == [1, 2, 3]
    boxes = (dataclasses.replace(boxes[0], data_key="meta.image"),)
    (read,) = label_reading.labeled_images(context, 7, boxes, annotated, frozenset())
    assert [image.task_id for image in read.images] == [3]
    failures = context.progress.failures(7)
    assert set(failures) == {1, 2}
    assert failures[1].startswith("left out of training: the image has 9 x 60 pixels; images under 10 are not learned")


def test_an_item_that_is_no_region_excludes_only_its_own_task(context: Context, images: ImageSite) -> None:
    """Label Studio imports annotations with arbitrary items in their results."""
    (tag,) = label_config.parse(CONFIG)
    damaged: tuple[Any, ...] = (None, "x" * 99, ["rectanglelabels"])
    tasks = [Task(number, {"image": images.add(f"{number}.png")}) for number in (1, 2)]
    annotated = [
        AnnotatedTask(task, task.id, "2026-01-01T00:00:00Z", result)
        for task, result in zip(tasks, (damaged, ()), strict=True)
    ]
    (read,) = label_reading.labeled_images(context, 7, (tag,), tuple(annotated), frozenset())
    assert [image.task_id for image in read.images] == [2]
    ((task_id, reason),) = context.progress.failures(7).items()
    assert task_id == 1
    assert reason.startswith("left out of training: None is in its result, and is not a region; 'xxx")
    assert len(reason) < 300
