"""Questions about boxes: a classifier learns what people answered about each box, and is judged on held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.datasets.writer import LabeledImage
from backend.labelstudio import label_config, region_choices
from backend.loop.context import Context
from backend.loop.training import label_reading, snapshot, tag_training
from backend.loop.training.snapshot import TagPlan
from backend.loop.training.tag_training import Candidate
from backend.model_versions import TrainingSnapshot
from backend.policy import region_crops
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, ControlTag, Json, Task
from backend.yolo import box_classifier
from backend.yolo.classifier import Classifier
from backend.yolo.predictors import load_predictor
from tests import squares
from tests.squares import CLASSES, IMGSZ
from tests.support import ImageSite, tiny_yolo

pytestmark = pytest.mark.torch

PROJECT = 7
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="square"/>'
    '</RectangleLabels><Choices name="colour" toName="image" perRegion="true"><Choice value="red"/>'
    '<Choice value="blue"/></Choices></View>'
)
RECORD = ProjectRecord(PROJECT, region_choices.marked(CONFIG), "", "", "", "")
BOXES, COLOUR = label_config.parse(RECORD.label_config)


def annotate(drawn: LabeledImage) -> list[Json]:
    """Return what an annotator submits: each square as a box, and its colour as the answer about the box."""
    result: list[Json] = []
    for number, box in enumerate(drawn.boxes):
        x, y, width, height = (100 * side for side in box.xywh)
        value = {"x": x - width / 2, "y": y - height / 2, "width": width, "height": height, "rotation": 0}
        shared = {"id": f"{drawn.task_id}-{number}", "to_name": "image", "original_width": IMGSZ}
        shared |= {"original_height": IMGSZ, "image_rotation": 0}
        labels = {"from_name": BOXES.from_name, "type": "rectanglelabels"}
        answer = {"from_name": COLOUR.from_name, "type": "choices"}
        result.append({**shared, **labels, "value": {**value, "rectanglelabels": ["square"]}})
        result.append({**shared, **answer, "value": {**value, "rectanglelabels": ["square"], "choices": [box.label]}})
    return result


def annotated(images: ImageSite, drawn: LabeledImage) -> AnnotatedTask:
    task = Task(drawn.task_id, {"image": f"{images.url}/{drawn.path.name}"})
    return AnnotatedTask(task, drawn.task_id, "2026-01-01T00:00:00Z", tuple(annotate(drawn)))


def read(context: Context, tag: ControlTag, tasks: list[AnnotatedTask]) -> label_reading.ReadLabels:
    chance = frozenset(task.task.id for task in tasks)
    (labels,) = label_reading.labeled_images(context, PROJECT, [tag], tuple(tasks), chance)
    return labels


def plan_of(context: Context, labels: label_reading.ReadLabels, steps: int) -> TagPlan:
    settings = context.settings.model_copy(
        update={"train_steps": steps, "min_epochs": 1, "batch": 8, "val_share": 0.4, "imgsz": IMGSZ}
    )
    split = snapshot.split_of(labels, settings.val_share, PROJECT)
    return TagPlan(RECORD, settings, COLOUR, TrainingSnapshot(PROJECT, "hash", {}, (), ()), split)


def train(context: Context, plan: TagPlan, scratch: Path) -> Candidate:
    tiny_yolo(Path(context.settings.model_dir) / "yolo11n-cls.pt", CLASSES, task="classify")
    return tag_training.train(context, plan, None, scratch, lambda _: None, lambda: None)


def test_a_classifier_learns_the_answers_about_boxes(context: Context, images: ImageSite, tmp_path: Path) -> None:
    """Each picture has a red and a blue square, so that only the crop of a box tells which of the two it is."""
    drawn = squares.squares(images.folder, 36, seed=1)
    plan = plan_of(context, read(context, COLOUR, [annotated(images, image) for image in drawn]), steps=40)
    candidate = train(context, plan, tmp_path / "scratch")
    metrics = candidate.challenger.metrics
    assert metrics is not None
    assert metrics.held_out
    assert metrics.images == len(plan.split.held_out_tasks) >= 10, "the split is by image"
    print(f"top-1 {metrics.map50:.3f} on the crops of {metrics.images} held-out images, {candidate.timings}")
    assert metrics.map50 >= 0.8  # chance is 0.5
    assert set(candidate.challenger.learned or ()).isdisjoint(plan.split.held_out_tasks)
    assert candidate.evaluation is not None
    assert candidate.evaluation.report.learned.boxes == 2 * len(plan.split.train)
    assert candidate.weights is not None
    classifier = load_predictor(candidate.weights, IMGSZ, "cpu")
    assert isinstance(classifier, Classifier)
    right = sum(seen_colours(classifier, image) == [box.label for box in image.boxes] for image in plan.split.val)
    assert right >= 0.6 * len(plan.split.val)  # both squares of a picture; chance is 0.25


def seen_colours(classifier: Classifier, image: LabeledImage) -> list[str]:
    """Return what the classifier says of the boxes of an image, as it serves."""
    corners = [
        [IMGSZ * (x - width / 2), IMGSZ * (y - height / 2), IMGSZ * (x + width / 2), IMGSZ * (y + height / 2)]
        for x, y, width, height in (box.xywh for box in image.boxes)
    ]
    seen = box_classifier.predict(classifier, image.path, np.array(corners, dtype=np.float32))
    return [classifier.classes[row.argmax()] for row in seen.class_probs]


def test_boxes_without_an_answer_teach_nothing(context: Context, images: ImageSite) -> None:
    tasks = [annotated(images, image) for image in squares.squares(images.folder, 4, seed=1)]
    unanswered = replace(tasks[0], result=tuple(item for item in tasks[0].result if item["type"] != "choices"))
    half = replace(tasks[1], result=tasks[1].result[:3])
    labels = read(context, COLOUR, [unanswered, half, *tasks[2:]])
    assert [(image.task_id, len(image.boxes)) for image in labels.images] == [(101, 1), (102, 2), (103, 2)]
    assert (labels.left_out, labels.reduced) == ({}, {})
    boxes = read(context, BOXES, [unanswered, half, *tasks[2:]])
    assert [len(image.boxes) for image in boxes.images] == [2, 2, 2, 2]


def test_a_change_of_an_answer_trains_the_question_alone(context: Context, images: ImageSite) -> None:
    tasks = [annotated(images, image) for image in squares.squares(images.folder, 8, seed=1)]
    last = tasks[0].result[-1]
    other = {**last, "value": {**last["value"], "choices": ["red" if last["value"]["choices"] == ["blue"] else "blue"]}}
    corrected = [replace(tasks[0], result=(*tasks[0].result[:-1], other)), *tasks[1:]]
    lessons: Mapping[str, set[str]] = {
        tag.from_name: {
            tag_training.lesson_hash(replace(plan_of(context, read(context, tag, some), 1), tag=tag), "yolo11n.pt")
            for some in (tasks, corrected)
        }
        for tag in (BOXES, COLOUR)
    }
    assert {name: len(hashes) for name, hashes in lessons.items()} == {"label": 1, "colour": 2}


def test_a_crop_is_small(context: Context) -> None:
    large = context.settings.model_copy(update={"imgsz": 640})
    assert region_crops.model_settings(large, COLOUR).imgsz == region_crops.LARGEST_SIDE
    assert region_crops.model_settings(large, BOXES) is large
