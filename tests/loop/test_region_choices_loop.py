"""The loop for boxes and a question about each box, with a real Label Studio: predict, label, train both, push."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.geometry.coordinates import iou
from backend.labelstudio import tags
from backend.labelstudio.client.connection import StoredPrediction
from backend.model_versions import ModelVersion
from backend.types import Json, LabeledBox
from tests import squares
from tests.loop.training.test_region_choices import BOXES, COLOUR, CONFIG, annotate
from tests.squares import IMGSZ
from tests.support import tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = [pytest.mark.label_studio, pytest.mark.slow]

POOL, LABELED = 32, 24


@dataclass(frozen=True)
class Record:
    """The record of the loop."""

    before: dict[int, list[StoredPrediction]]  # of v0, by the ids of unlabeled tasks
    after: dict[int, list[StoredPrediction]]  # of v1
    version: ModelVersion
    true: dict[int, tuple[LabeledBox, ...]]  # task id -> the squares with their colours
    warnings: tuple[str, ...]
    accepted: tuple[LabeledBox, ...]  # what is learned of a prediction that is submitted unchanged
    accepted_task: int


@pytest.fixture(scope="module")
def servers(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = {
        "REGION_CHOICES": "true",
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "EXPLORE_SHARE": "1",
        "VAL_SHARE": "0.4",
        "TRAIN_STEPS": "150",
        "MIN_EPOCHS": "1",
        "BATCH": "8",
        "MODEL_SCORE_THRESHOLD": "0.1",
        "TOLERANCE": "1",
    }
    with open_servers(label_studio, tmp_path_factory.mktemp("regions"), settings) as servers:
        yield servers


@pytest.fixture(scope="module")
def record(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Record:
    client, folder = servers.client, Path(servers.settings.model_dir)
    tiny_yolo(folder / "yolo11n.pt", ("square",))
    tiny_yolo(folder / "yolo11n-cls.pt", squares.CLASSES, task="classify")
    drawn = squares.squares(tmp_path_factory.mktemp("pictures"), POOL, seed=1)
    project = client.projects.create("squares and their colours", CONFIG)
    client.tasks.upload_images(project, [picture.path for picture in drawn])
    pictures = {
        task.id: next(picture for picture in drawn if str(task.data["image"]).endswith(f"-{picture.path.name}"))
        for task in client.tasks.unlabeled(project)
    }
    client.projects.attach_backend(project, servers.url, "yolo")
    await_shown(servers, project, "yolo11n-v0")
    before = servers.predictions(project)
    for _ in range(LABELED):
        task = client.tasks.next(project)
        assert task is not None
        client.annotations.create(task.id, annotate(pictures[task.id]))
    await_shown(servers, project, "yolo11n-v1")
    after = servers.predictions(project)
    chosen = max(after, key=lambda task_id: len(answers(after[task_id][0])))
    client.annotations.create(chosen, [dict(region) for region in after[chosen][0].result])
    (submitted,) = client.annotations.annotated_tasks(project, [chosen])
    status = servers.status(project)
    return Record(
        before=before,
        after=after,
        version=servers.store.versions(project)[-1],
        true={task_id: picture.boxes for task_id, picture in pictures.items()},
        warnings=tuple(status.warnings),
        accepted=tags.read(COLOUR, submitted.result, (IMGSZ, IMGSZ)).boxes,
        accepted_task=chosen,
    )


def answers(prediction: StoredPrediction) -> dict[str, Json]:
    """Return the answers about boxes by region id."""
    return {item["id"]: dict(item) for item in prediction.result if item["from_name"] == COLOUR.from_name}


def boxes(prediction: StoredPrediction) -> dict[str, Json]:
    return {item["id"]: dict(item) for item in prediction.result if item["from_name"] == BOXES.from_name}


def test_every_box_in_the_queue_has_an_answer_under_its_id(record: Record) -> None:
    assert len(record.before) == POOL
    assert len(record.after) == POOL - LABELED
    for prediction in (stored for version in (record.before, record.after) for (stored,) in version.values()):
        # Under the threshold an answer is left out; of two answers the likelier one is above it.
        assert answers(prediction).keys() == boxes(prediction).keys()
    assert any(answers(prediction) for (prediction,) in record.after.values())
    assert not any("perRegion" in warning for warning in record.warnings)


def test_the_answers_of_held_out_boxes_are_learned(record: Record) -> None:
    about_image, about_boxes = record.version.models
    assert (about_image.from_name, about_boxes.from_name) == (BOXES.from_name, COLOUR.from_name)
    assert about_boxes.task == "classify"
    metrics = about_boxes.metrics
    assert metrics is not None
    assert metrics.held_out
    print(f"top-1 {metrics.map50:.3f} on {metrics.boxes} crops of {metrics.images} held-out images")
    assert metrics.map50 >= 0.8  # chance is 0.5, because each picture has a square of both colours


def test_the_pushed_answers_are_the_colours_of_the_squares(record: Record) -> None:
    right, count = 0, 0
    for task_id, (prediction,) in record.after.items():
        for name, answer in answers(prediction).items():
            label = square_at(boxes(prediction)[name]["value"], record.true[task_id])
            right += answer["value"]["choices"] == [label]
            count += bool(label)
    print(f"{right} of {count} pushed answers about squares are right")
    assert count >= 4  # the detector has learned little
    assert right >= 0.8 * count


def square_at(value: Json, true: tuple[LabeledBox, ...]) -> str:
    """Return the colour of the square that a box covers with IoU >= 0.5, "" for none."""
    sides = np.array([value["x"], value["y"], value["width"], value["height"]]) / 100
    box = np.concatenate([sides[:2], sides[:2] + sides[2:]])[None]
    for label in true:
        x, y, width, height = label.xywh
        corners = np.array([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]])
        if iou(box, corners)[0, 0] >= 0.5:
            return label.label
    return ""


def test_a_prediction_that_is_submitted_unchanged_teaches_its_answers(record: Record) -> None:
    (prediction,) = record.after[record.accepted_task]
    sent = [answer["value"]["choices"][0] for answer in answers(prediction).values()]
    assert [box.label for box in record.accepted] == sent
    assert sent
