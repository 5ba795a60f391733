"""The loop for every kind of control tag, with a real Label Studio: predict, correct, retrain, score.

The models learn almost nothing in a few steps. The tests check that every format goes through the whole loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets.writer import LabeledImage
from backend.labelstudio import tags
from backend.labelstudio.client.connection import StoredPrediction
from backend.model_versions import ModelVersion
from backend.types import ControlTag, Json, LabeledBox, Task
from backend.yolo.tasks import weights_name
from tests import drawings
from tests.kinds import FORMS, KINDS, Kind, assert_same, drawn
from tests.support import IMGSZ, tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = pytest.mark.label_studio

POOL, LABELED = 10, 6
TESTED_ELSEWHERE = "RectangleLabels"  # in tests/loop/test_loop.py


@dataclass(frozen=True)
class QueueState:
    """The predictions of the shown version in Label Studio."""

    version: str
    predictions: dict[int, list[StoredPrediction]]  # by the ids of unlabeled tasks


@dataclass(frozen=True)
class Record:
    """The record of the loop."""

    tag: ControlTag
    true: dict[int, tuple[LabeledBox, ...]]  # task id -> the drawn shapes
    first: QueueState  # of v0, before any label
    corrected: int  # id of the annotation made from a pre-annotation
    labels: dict[int, tuple[LabeledBox, ...]]  # task id -> the annotation as the tag reads it
    versions: tuple[ModelVersion, ...]
    failures: dict[int, str]
    after: QueueState  # of v1
    order: tuple[int, ...]  # task ids in the order of the queue
    submitted: dict[int, tuple[LabeledBox, ...]]  # task id -> the pre-annotation, submitted unchanged


SLOW = {
    "RectangleLabels model_obb",
    "BrushLabels",
    "BrushLabels model_semantic",
    "KeyPointLabels",
    "Choices multiple",
    "Taxonomy",
    "Rectangle",
    "Bitmask",
}
LOOPED = {**KINDS, **{name: FORMS[name] for name in ("Rectangle", "Bitmask")}}


@pytest.fixture(scope="module")
def servers(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = {
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "TRAIN_STEPS": "1",
        "MIN_EPOCHS": "2",
        "MAX_EPOCHS": "2",
        "TOLERANCE": "1",  # versions are published whatever their quality
        "BATCH": "4",
    }
    with open_servers(label_studio, tmp_path_factory.mktemp("types"), settings) as servers:
        yield servers


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in LOOPED
        if name != TESTED_ELSEWHERE
    ],
)
def kind(request: pytest.FixtureRequest) -> Kind:
    return LOOPED[request.param]


@pytest.fixture(scope="module")
def record(kind: Kind, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Record:
    client = servers.client
    tag = kind.tag()
    base = Path(servers.settings.model_dir) / weights_name("yolo11n.pt", kind.task)
    if not base.is_file():
        tiny_yolo(base, kind.classes, task=kind.task, **kind.options)
    pictures = drawings.pictures(tmp_path_factory.mktemp("pictures"), kind.draw, POOL, seed=0)

    project = client.projects.create(kind.config, kind.label_config())
    client.tasks.upload_images(project, [picture.path for picture in pictures])
    true = {task.id: drawn(tag, picture_of(task, pictures)) for task in client.tasks.unlabeled(project)}
    client.projects.attach_backend(project, servers.url, "yolo")
    await_shown(servers, project, f"{base.stem}-v0")
    first = read_queue(servers, project)

    corrected = correct(servers, project, first, lambda task: kind.annotate(tag, true[task]))
    for _ in range(LABELED - 1):
        task = client.tasks.next(project)
        assert task is not None
        client.annotations.create(task.id, kind.annotate(tag, true[task.id]))
    all_annotated = client.annotations.annotated_tasks(project)
    labels = {annotated.task.id: tags.decode(tag, annotated.result) for annotated in all_annotated}
    await_shown(servers, project, f"{base.stem}-v1")
    failures = servers.status(project).failures
    after = read_queue(servers, project)

    order: list[int] = []
    while (task := client.tasks.next(project)) is not None:
        order.append(task.id)
        client.annotations.create(task.id, list(map(dict, after.predictions[task.id][0].result)))
    submitted = {
        annotated.task.id: tags.decode(tag, annotated.result)
        for annotated in client.annotations.annotated_tasks(project)
        if annotated.task.id in after.predictions
    }
    versions = servers.store.versions(project)
    return Record(
        tag=tag,
        true=true,
        first=first,
        corrected=corrected,
        labels=labels,
        versions=versions,
        failures=failures,
        after=after,
        order=tuple(order),
        submitted=submitted,
    )


def picture_of(task: Task, pictures: Sequence[LabeledImage]) -> LabeledImage:
    return next(picture for picture in pictures if str(task.data["image"]).endswith(f"-{picture.path.name}"))


def read_queue(servers: Servers, project: int) -> QueueState:
    return QueueState(servers.shown_version(project), servers.predictions(project))


def correct(servers: Servers, project: int, shown: QueueState, annotate: Callable[[int], list[Json]]) -> int:
    """Submit the true shapes as an annotator who moves the predicted regions; moved regions keep their ids."""
    task = servers.client.tasks.next(project)
    assert task is not None
    (prediction,) = shown.predictions[task.id]
    true, ids = annotate(task.id), {}
    remaining = [dict(region) for region in prediction.result]
    for region in true:
        same_type = next((predicted for predicted in remaining if predicted["type"] == region["type"]), None)
        if same_type is not None:
            remaining.remove(same_type)
            ids[region["id"]] = same_type["id"]
    moved = [{**region, "id": ids.get(region["id"], region["id"]), "origin": "prediction-changed"} for region in true]
    for region in moved:
        if region.get("parentID") in ids:
            region["parentID"] = ids[region["parentID"]]
    body = {"result": moved, "parent_prediction": prediction.id, "lead_time": 2.5}
    return int(servers.client.http.send("POST", f"/api/tasks/{task.id}/annotations/", body)["id"])


def test_it_pre_annotates_before_any_label(record: Record, kind: Kind) -> None:
    assert_predicted(record.first, kind, POOL)


def test_the_annotations_are_read_as_they_were_drawn(record: Record) -> None:
    assert len(record.labels) == LABELED
    for task_id, labels in record.labels.items():
        assert_same(labels, record.true[task_id])


def test_a_training_makes_a_version_from_all_labels(record: Record, kind: Kind) -> None:
    (version,) = record.versions
    (model,) = version.models
    assert (model.task, model.classes) == (kind.task, record.tag.labels)
    assert len(version.snapshot.annotations) == LABELED
    assert record.corrected in version.snapshot.annotations
    assert record.failures == {}


def test_the_version_pre_annotates_and_scores_the_other_tasks(record: Record, kind: Kind) -> None:
    assert_predicted(record.after, kind, POOL - LABELED)


def test_the_queue_goes_up_by_score(record: Record) -> None:
    scores = [record.after.predictions[task][0].score for task in record.order]
    assert len(scores) == POOL - LABELED
    assert scores == sorted({score for score in scores if score is not None})


def test_a_pre_annotation_submitted_unchanged_has_its_labels(record: Record) -> None:
    assert record.submitted.keys() == record.after.predictions.keys()
    for task_id, labels in record.submitted.items():
        assert labels
        assert_same(labels, tags.decode(record.tag, record.after.predictions[task_id][0].result))


def assert_predicted(queue: QueueState, kind: Kind, count: int) -> None:
    """Assert that every unlabeled task has one prediction, of the shown version, and that the scores are distinct."""
    assert len(queue.predictions) == count
    predictions = [prediction for (prediction,) in queue.predictions.values()]
    assert {prediction.version for prediction in predictions} == {queue.version}
    scores = sorted(prediction.score for prediction in predictions if prediction.score is not None)
    assert scores == pytest.approx([place / (count + 1) for place in range(1, count + 1)], abs=1e-6)
    # A picture may have no region, because some classes of the base model are no labels.
    regions = [region for prediction in predictions for region in prediction.result]
    assert {region["type"] for region in regions} == set(kind.types)
    assert all(0 < region["score"] <= 1 for region in regions)
