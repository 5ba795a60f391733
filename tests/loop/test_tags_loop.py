"""The loop for boxes and a choice on one image, with a real Label Studio: predict, correct, retrain, score, repeat.

The models learn almost nothing in a few steps. The tests check that both tags go through the whole loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import StoredPrediction
from backend.model_versions import ModelVersion
from backend.store.store import PoolSigns
from backend.types import ControlTag, Json, LabeledBox, Task
from tests import drawings
from tests.kinds import assert_same, boxes, choices, drawn
from tests.support import IMGSZ, tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = [pytest.mark.label_studio, pytest.mark.slow]

POOL, LABELED = 12, 5
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="red"/>'
    '<Label value="blue"/></RectangleLabels><Choices name="left" toName="image" model_score_threshold="0">'
    '<Choice value="red"/><Choice value="blue"/></Choices></View>'
)
TAGS = label_config.parse(CONFIG)


@dataclass(frozen=True)
class QueueState:
    """The predictions of the shown version in Label Studio."""

    version: str
    predictions: dict[int, list[StoredPrediction]]  # by the ids of unlabeled tasks


@dataclass(frozen=True)
class Record:
    """The record of the loop."""

    queues: tuple[QueueState, QueueState, QueueState]  # of v0, v1 and v2
    learned: dict[int, tuple[tuple[LabeledBox, ...], ...]]  # task id -> the annotation as each tag reads it
    true: dict[int, tuple[tuple[LabeledBox, ...], ...]]  # task id -> the true labels of each tag
    versions: tuple[ModelVersion, ...]
    signs: tuple[PoolSigns, ...]
    failures: Mapping[int, str]
    next_task: int  # the id of the task that the queue of v1 handed out
    changed: tuple[int, ...]  # ids of tasks whose choice alone was changed before v2


@pytest.fixture(scope="module")
def servers(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = {
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "TRAIN_STEPS": "1",
        "MIN_EPOCHS": "2",
        "MAX_EPOCHS": "2",
        "BATCH": "4",
        "MODEL_SCORE_THRESHOLD": "0.05",
        "TOLERANCE": "1",
    }
    with open_servers(label_studio, tmp_path_factory.mktemp("tags"), settings) as servers:
        yield servers


@pytest.fixture(scope="module")
def record(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Record:
    client, folder = servers.client, Path(servers.settings.model_dir)
    tiny_yolo(folder / "yolo11n.pt", ("red", "blue"))
    tiny_yolo(folder / "yolo11n-cls.pt", ("red", "blue"), task="classify")
    pictures = drawings.pictures(tmp_path_factory.mktemp("pictures"), drawings.bar, POOL, seed=0)
    project = client.projects.create("boxes and a choice", CONFIG)
    client.tasks.upload_images(project, [picture.path for picture in pictures])
    true = {}
    for task in client.tasks.unlabeled(project):
        picture = next(image for image in pictures if str(task.data["image"]).endswith(f"-{image.path.name}"))
        true[task.id] = tuple(drawn(tag, picture) for tag in TAGS)
    client.projects.attach_backend(project, servers.url, "yolo")
    await_shown(servers, project, "yolo11n-v0")
    before = read_queue(servers, project)
    for _ in range(LABELED):
        label(servers, next_task(servers, project), true)
    learned = read_back(servers, project)
    await_shown(servers, project, "yolo11n-v1")
    after = read_queue(servers, project)

    first = next_task(servers, project)
    annotated = list(client.annotations.annotated_tasks(project))[: LABELED - 1]
    for labeled in annotated:  # only the choice is changed
        result = [*labeled.result[:-1], {**labeled.result[-1], "value": {"choices": ["blue"]}}]
        client.http.send("PATCH", f"/api/annotations/{labeled.annotation_id}/", {"result": result})
    label(servers, first, true)
    await_shown(servers, project, "yolo11n-v2")
    return Record(
        queues=(before, after, read_queue(servers, project)),
        learned=learned,
        true=true,
        versions=servers.store.versions(project),
        signs=servers.store.state.signs(project),
        failures=servers.status(project).failures,
        next_task=first.id,
        changed=tuple(labeled.task.id for labeled in annotated),
    )


def next_task(servers: Servers, project: int) -> Task:
    task = servers.client.tasks.next(project)
    assert task is not None
    return task


def label(servers: Servers, task: Task, true: Mapping[int, tuple[tuple[LabeledBox, ...], ...]]) -> None:
    drawn_boxes, choice = true[task.id]
    result: list[Json] = [*boxes(TAGS[0], drawn_boxes), *choices(TAGS[1], choice)]
    servers.client.annotations.create(task.id, result)


def read_back(servers: Servers, project: int) -> dict[int, tuple[tuple[LabeledBox, ...], ...]]:
    annotated = servers.client.annotations.annotated_tasks(project)
    return {task.task.id: tuple(tags.decode(tag, task.result) for tag in TAGS) for task in annotated}


def read_queue(servers: Servers, project: int) -> QueueState:
    return QueueState(servers.shown_version(project), servers.predictions(project))


def regions_of(tag: ControlTag, prediction: StoredPrediction) -> list[Mapping[str, object]]:
    return [region for region in prediction.result if region["from_name"] == tag.from_name]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_task_has_one_prediction_with_the_regions_of_both_tags(record: Record, number: int) -> None:
    queue = record.queues[number]
    assert queue.version == f"yolo11n-v{number}"
    predictions = [prediction for (prediction,) in queue.predictions.values()]
    assert all(len(regions_of(TAGS[1], prediction)) == 1 for prediction in predictions)
    assert any(regions_of(TAGS[0], prediction) for prediction in predictions)
    types = {region["type"] for prediction in predictions for region in prediction.result}
    assert types == {"rectanglelabels", "choices"}
    count = (POOL, POOL - LABELED, POOL - LABELED - 1)[number]
    scores = sorted(prediction.score for prediction in predictions if prediction.score is not None)
    assert scores == pytest.approx([place / (count + 1) for place in range(1, count + 1)], abs=1e-6)


def test_both_tags_learn_from_the_annotations(record: Record) -> None:
    assert len(record.learned) == LABELED
    for task_id, by_tag in record.learned.items():
        for labels, expected in zip(by_tag, record.true[task_id], strict=True):
            assert_same(labels, expected)
    assert record.failures == {}


def test_each_tag_has_its_own_model(record: Record) -> None:
    for version in record.versions:
        assert [(model.from_name, model.task, model.classes) for model in version.models] == [
            ("label", "detect", ("red", "blue")),
            ("left", "classify", ("red", "blue")),
        ]
        assert len({model.sha256 for model in version.models}) == 2
        assert version.reason.startswith("label: published")
        assert "; left: published" in version.reason


def test_both_tags_have_the_uncertainty_of_their_pool(record: Record) -> None:
    signs = {pool_signs.tag: pool_signs for pool_signs in record.signs if pool_signs.version == 1}
    assert signs.keys() == {tag.from_name for tag in TAGS}
    assert all(tag.uncertainty is not None and tag.stability is None for tag in signs.values())


def test_the_queue_hands_out_the_lowest_score(record: Record) -> None:
    scores = {task: prediction.score or 0.0 for task, (prediction,) in record.queues[1].predictions.items()}
    assert record.next_task == min(scores, key=lambda task: scores[task])


def test_corrections_of_one_tag_alone_count_and_a_new_image_counts_once(record: Record) -> None:
    first, second = record.versions
    assert (second.parent, len(second.snapshot.annotations)) == (1, LABELED + 1)
    changed = [
        annotation
        for annotation, stamp in first.snapshot.annotations.items()
        if second.snapshot.annotations.get(annotation) not in (None, stamp)
    ]
    assert len(changed) == len(record.changed) == LABELED - 1
    assert [model.champion_metrics is not None for model in second.models] == [True, True]
