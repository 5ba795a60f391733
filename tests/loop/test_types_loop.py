"""The loop for every kind of control tag, through the real Label Studio: predict, correct, retrain, score.

The models learn next to nothing in a few steps; what is tested is that every format makes the whole way.
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
from tests.kinds import KINDS, Kind, assert_same, drawn
from tests.support import IMGSZ, tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = pytest.mark.label_studio

POOL, LABELED = 10, 6
TOLD = "RectangleLabels"  # in tests/loop/test_loop.py


@dataclass(frozen=True)
class Look:
    """What Label Studio held after one flip."""

    version: str
    predictions: dict[int, list[StoredPrediction]]  # by unlabeled task


@dataclass(frozen=True)
class Story:
    """What happened in one project."""

    tag: ControlTag
    true: dict[int, tuple[LabeledBox, ...]]  # by task, as drawn
    first: Look  # of v0, before any label
    corrected: int  # the annotation made from a pre-annotation
    labels: dict[int, tuple[LabeledBox, ...]]  # of what the annotator drew, read back, by task
    versions: tuple[ModelVersion, ...]
    failures: dict[int, str]
    after: Look  # of v1
    order: tuple[int, ...]  # tasks as the queue handed them out
    submitted: dict[int, tuple[LabeledBox, ...]]  # of pre-annotations that were submitted as they were, by task


SLOW = {
    "RectangleLabels model_obb",
    "BrushLabels",
    "BrushLabels model_semantic",
    "KeyPointLabels",
    "Choices multiple",
    "Taxonomy",
}


@pytest.fixture(scope="module")
def servers(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = {
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "TRAIN_STEPS": "1",
        "MIN_EPOCHS": "2",
        "MAX_EPOCHS": "2",
        "TOLERANCE": "1",  # what a version can do is not asked here
        "BATCH": "4",
    }
    with open_servers(label_studio, tmp_path_factory.mktemp("types"), settings) as servers:
        yield servers


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in KINDS if name != TOLD],
)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def story(kind: Kind, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Story:
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
    first = look(servers, project)

    corrected = correct(servers, project, first, lambda task: kind.annotate(tag, true[task]))
    for _ in range(LABELED - 1):
        task = client.tasks.next(project)
        assert task is not None
        client.annotations.create(task.id, kind.annotate(tag, true[task.id]))
    labels = {one.task.id: tags.decode(tag, one.result) for one in client.annotations.annotated_tasks(project)}
    await_shown(servers, project, f"{base.stem}-v1")
    failures = servers.status(project).failures
    after = look(servers, project)

    order: list[int] = []
    while (task := client.tasks.next(project)) is not None:
        order.append(task.id)
        client.annotations.create(task.id, list(map(dict, after.predictions[task.id][0].result)))
    submitted = {
        one.task.id: tags.decode(tag, one.result)
        for one in client.annotations.annotated_tasks(project)
        if one.task.id in after.predictions
    }
    versions = servers.store.versions(project)
    return Story(
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
    return next(one for one in pictures if str(task.data["image"]).endswith(f"-{one.path.name}"))


def look(servers: Servers, project: int) -> Look:
    return Look(servers.shown_version(project), servers.predictions(project))


def correct(servers: Servers, project: int, shown: Look, annotate: Callable[[int], list[Json]]) -> int:
    """Move a prediction's regions onto the true shapes, as an annotator does: what is moved keeps its id."""
    task = servers.client.tasks.next(project)
    assert task is not None
    (prediction,) = shown.predictions[task.id]
    true, ids = annotate(task.id), {}
    left = [dict(each) for each in prediction.result]
    for each in true:
        like = next((one for one in left if one["type"] == each["type"]), None)
        if like is not None:
            left.remove(like)
            ids[each["id"]] = like["id"]
    moved = [{**each, "id": ids.get(each["id"], each["id"]), "origin": "prediction-changed"} for each in true]
    moved = [each | ({"parentID": ids[each["parentID"]]} if each.get("parentID") in ids else {}) for each in moved]
    body = {"result": moved, "parent_prediction": prediction.id, "lead_time": 2.5}
    return int(servers.client.http.send("POST", f"/api/tasks/{task.id}/annotations/", body)["id"])


def test_it_pre_annotates_before_any_label(story: Story, kind: Kind) -> None:
    assert_predicted(story.first, kind, POOL)


def test_what_the_annotator_draws_is_what_is_learned(story: Story) -> None:
    assert len(story.labels) == LABELED
    for task, found in story.labels.items():
        assert_same(found, story.true[task])


def test_a_training_makes_a_version_of_all_labels(story: Story, kind: Kind) -> None:
    (version,) = story.versions
    (model,) = version.models
    assert (model.task, model.classes) == (kind.task, story.tag.labels)
    assert len(version.snapshot.annotations) == LABELED
    assert story.corrected in version.snapshot.annotations
    assert story.failures == {}


def test_the_version_pre_annotates_and_scores_the_rest(story: Story, kind: Kind) -> None:
    assert_predicted(story.after, kind, POOL - LABELED)


def test_the_queue_goes_up_by_score(story: Story) -> None:
    scores = [story.after.predictions[task][0].score for task in story.order]
    assert len(scores) == POOL - LABELED
    assert scores == sorted({score for score in scores if score is not None})


def test_a_pre_annotation_submitted_as_it_is_has_its_labels(story: Story) -> None:
    assert story.submitted.keys() == story.after.predictions.keys()
    for task, found in story.submitted.items():
        assert found
        assert_same(found, tags.decode(story.tag, story.after.predictions[task][0].result))


def assert_predicted(seen: Look, kind: Kind, count: int) -> None:
    """Every unlabeled task has one prediction of the shown version, with regions of the tag and a score of its own."""
    assert len(seen.predictions) == count
    found = [one for (one,) in seen.predictions.values()]
    assert {one.version for one in found} == {seen.version}
    assert sorted(one.score for one in found if one.score is not None) == pytest.approx(
        [place / (count - 1) for place in range(count)], abs=1e-6
    )
    # Of a base model's classes some may be no label, so a picture may have no region.
    regions = [each for one in found for each in one.result]
    assert {each["type"] for each in regions} == set(kind.types)
    assert all(0 < each["score"] <= 1 for each in regions)
