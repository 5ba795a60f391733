"""The loop with a real Label Studio, redis and training; it runs once, and the tests check its record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import synthetic
from backend.errors import LabelStudioError
from backend.model_versions import Metrics, ModelVersion
from backend.types import Json, Task
from tests.browser import signed_in
from tests.studio_database import LOGIN
from tests.support import untrained_yolo
from tests.world import World, await_shown, await_true, label, measure, open_world

pytestmark = pytest.mark.label_studio

POOL, TEST, BESIDE = 60, 40, 12  # scenes: the pool, the test set, the second project's pool


@dataclass(frozen=True)
class Queue:
    """Label Studio's queue of one version."""

    version: str
    scores: dict[int, list[float | None]]  # by task id
    next_task: int  # the id of the task that Label Studio's /next returned


@dataclass(frozen=True)
class Record:
    """The record of the loop."""

    main: int  # id of the first project
    beside: int  # id of the second project
    first: Queue  # of v0, before any label
    after: tuple[Queue, Queue]  # of v1 and v2
    versions: tuple[ModelVersion, ...]
    quality: tuple[Metrics, Metrics]  # of v1 and v2 on the test set
    corrected: int  # id of the annotation made from a pre-annotation
    pre_annotation: tuple[Mapping[str, Any], ...]  # the regions that Label Studio showed
    beside_before: str  # the second project's version while the first trained
    beside_versions: tuple[ModelVersion, ...]


@pytest.fixture(scope="module")
def world(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("loop")
    data_yaml = synthetic.generate(folder / "scenes", pool=POOL, test=TEST, seed=1)
    (folder / "models").mkdir()
    untrained_yolo(folder / "models" / "yolo11n.pt", ("nothing",))  # learns faster than a real yolo11n from scratch
    settings = {
        "IMGSZ": "160",
        "RETRAIN_EVERY": "20",
        "VAL_SHARE": "0.4",  # the task ids decide: of 20 labels at least two are held out, but for 0.05% of all runs
        "TRAIN_STEPS": "200",
        "MAX_EPOCHS": "200",
        "BATCH": "8",  # twice as many would take twice as long
        "MODEL_SCORE_THRESHOLD": "0.05",  # after so few steps all confidences are low
    }
    with open_world(label_studio, folder, data_yaml, settings) as world:
        yield world


@pytest.fixture(scope="module")
def record(world: World) -> Record:
    client = world.client
    main = client.projects.create("the loop", world.config)
    beside = client.projects.create("beside it", world.config)
    client.tasks.upload_images(main, [file.path for file in world.data.train])
    client.tasks.upload_images(beside, [file.path for file in world.data.train[:BESIDE]])
    for project_id in (main, beside):
        client.projects.attach_backend(project_id, world.url, "yolo")  # as Label Studio's page does
        await_shown(world, project_id, "yolo11n-v0")
    first = read_queue(world, main)

    label(world, main, 20)
    await_shown(world, main, "yolo11n-v1")
    after_one = read_queue(world, main)
    beside_before = world.shown_version(beside)

    task = client.tasks.next(main)
    assert task is not None
    shown = next(pred for pred in client.predictions.of_task(task.id) if pred.version == "yolo11n-v1")
    corrected = world.annotate(task, correct(world, task, shown.result))
    label(world, main, 19)
    await_shown(world, main, "yolo11n-v2")
    after_two = read_queue(world, main)

    label(world, beside, 8)
    backend_id = client.projects.backends(beside)[0].id
    client.http.send("POST", f"/api/ml/{backend_id}/train", {})  # the button "Start training"
    await_shown(world, beside, "yolo11n-v1")
    versions = world.store.versions(main)
    return Record(
        main=main,
        beside=beside,
        first=first,
        after=(after_one, after_two),
        versions=versions,
        quality=(measure(world, versions[0]), measure(world, versions[1])),
        corrected=corrected,
        pre_annotation=tuple(shown.result),
        beside_before=beside_before,
        beside_versions=world.store.versions(beside),
    )


def test_adding_the_backend_by_its_url_configures_the_project(world: World, record: Record) -> None:
    info = world.client.projects.get(record.main)
    assert info.sampling == "Uncertainty sampling"
    views = world.client.http.get("/api/dm/views/", project=record.main)
    assert [view["data"]["title"] for view in views].count("Learning queue") == 1
    hooks = world.client.http.get("/api/webhooks/", project=record.main)
    assert [hook["headers"] for hook in hooks] == [{"X-Yolo-Backend-Secret": world.store.secret()}]
    assert record.first.version == "yolo11n-v0"


def test_the_loop_starts_without_annotations_and_ends_after_two_retrainings(record: Record) -> None:
    assert [version.name for version in record.versions] == ["yolo11n-v1", "yolo11n-v2"]
    assert [len(version.snapshot.annotations) for version in record.versions] == [20, 40]
    assert record.versions[1].parent == 1


@pytest.mark.parametrize("number", [1, 2])
def test_every_unlabeled_task_has_one_prediction_with_a_score_of_the_shown_version(record: Record, number: int) -> None:
    queue = record.after[number - 1]
    assert queue.version == f"yolo11n-v{number}"
    assert len(queue.scores) == POOL - 20 * number
    for scores in queue.scores.values():
        assert len(scores) == 1
        assert scores[0] is not None
        assert 0 <= scores[0] <= 1


def test_the_queue_hands_out_the_lowest_score(record: Record) -> None:
    for queue in (record.first, *record.after):
        lowest = min(queue.scores, key=lambda task: queue.scores[task][0] or 0.0)
        assert queue.next_task == lowest


def test_the_corrected_pre_annotation_trains_the_next_version(record: Record) -> None:
    assert record.corrected not in record.versions[0].snapshot.annotations
    assert record.corrected in record.versions[1].snapshot.annotations


def test_more_labels_make_a_better_model(record: Record) -> None:
    before, after = record.quality
    assert after.map50 > before.map50


def test_each_version_has_a_report_and_the_next_one_judges_it_on_the_labels_in_between(
    world: World, record: Record
) -> None:
    first, second = (world.store.evaluations.report(record.main, number, "label") for number in (1, 2))
    assert first is not None
    assert second is not None
    for version, report in zip(record.versions, (first, second), strict=True):
        assert report.learned.images == len(version.snapshot.train_tasks)
        assert report.learned.boxes == sum(report.learned.by_class.values()) > 0
    assert first.held_out is not None
    assert first.held_out.images == len(record.versions[0].snapshot.val_tasks)
    assert first.since is None
    assert second.since is not None
    assert second.since.version == 1
    assert second.since.chance.images + second.since.picked.images == 20
    assert second.since.picked.images > 10
    assert second.since.picked.quality is not None


def test_the_pre_annotation_has_regions_that_an_annotator_can_correct(world: World, record: Record) -> None:
    for queue, version in zip(record.after, record.versions, strict=True):
        assert queue.version == version.name
    assert record.pre_annotation
    for region in record.pre_annotation:
        assert region["from_name"] == "label"
        assert set(region["value"]) == {"x", "y", "width", "height", "rotation", "rectanglelabels"}
        assert region["value"]["rectanglelabels"][0] in synthetic.CLASSES
        assert world.settings.model_score_threshold <= region["score"] <= 1


def test_a_second_project_stays_apart_and_trains_at_the_button(record: Record) -> None:
    assert record.beside_before == "yolo11n-v0"
    assert [version.name for version in record.beside_versions] == ["yolo11n-v1"]
    assert len(record.beside_versions[0].snapshot.annotations) == 8
    assert not set(record.beside_versions[0].snapshot.annotations) & set(record.versions[1].snapshot.annotations)


def test_the_status_page_shows_the_counts_and_the_versions(world: World, record: Record) -> None:
    await_true(lambda: (counts := world.status(record.main).counts) is not None and counts.new == 0, "counts")
    status = world.status(record.main)
    assert status.counts is not None
    assert (status.counts.tasks, status.counts.labeled) == (POOL, 40)
    assert status.version == "yolo11n-v2"
    assert status.training.state == "idle"
    assert [version.promoted for version in status.versions] == [True, True]
    assert status.failures == {}


def test_predict_answers_scored_tasks_as_the_queue_shows_them(world: World, record: Record) -> None:
    tasks = list(world.client.tasks.unlabeled(record.main))[:3]
    body = {
        "tasks": [{"id": task.id, "data": dict(task.data)} for task in tasks],
        "project": f"{record.main}.1700000000",
        "label_config": world.config,
    }
    results = httpx.post(f"{world.url}/predict", json=body, timeout=100).raise_for_status().json()["results"]
    for task, result in zip(tasks, results, strict=True):
        stored = next(pred for pred in world.client.predictions.of_task(task.id) if pred.version == "yolo11n-v2")
        assert result["model_version"] == stored.version
        assert result["score"] == pytest.approx(stored.score, abs=1e-6)
        assert json.dumps(result["result"], sort_keys=True) == json.dumps(list(stored.result), sort_keys=True)


def test_a_new_task_gets_its_place_in_the_queue(world: World, record: Record) -> None:
    before = {task.id for task in world.client.tasks.unlabeled(record.main)}
    world.client.tasks.upload_images(record.main, [world.data.test[0].path])
    (new,) = {task.id for task in world.client.tasks.unlabeled(record.main)} - before
    await_true(lambda: len(world.client.predictions.of_task(new)) == 1, "the new task's prediction")
    (prediction,) = world.client.predictions.of_task(new)
    assert prediction.version == "yolo11n-v2"
    assert prediction.score is not None
    assert 0 <= prediction.score <= 1


@pytest.mark.slow  # the workers wait until nobody has annotated for two minutes, at most three times
def test_predictions_of_old_versions_are_deleted(world: World, record: Record) -> None:
    """`test_old_versions.py` tests when they are."""

    def deleted() -> bool:
        return set(world.client.predictions.versions(record.main)) == {"yolo11n-v2"}

    await_true(deleted, "the deletion of old predictions", patience_s=900)


def test_an_annotation_lead_sees_the_queue_and_the_connected_backend(
    world: World, record: Record, tmp_path: Path
) -> None:
    with signed_in(world.studio.url, LOGIN["email"], LOGIN["password"]) as page:
        views = page.request.get(f"{world.studio.url}/api/dm/views/?project={record.main}").json()
        tab = next(view["id"] for view in views if view["data"]["title"] == "Learning queue")
        page.goto(f"{world.studio.url}/projects/{record.main}/data?tab={tab}")
        page.locator("label:has(input[value=list])").click()  # has a name for screen readers since Label Studio 1.21
        page.get_by_text("Prediction score").first.wait_for()
        cells = page.locator("[class*=table] >> text=/^[01]\\.\\d{3}$/")
        cells.first.wait_for()
        shown = [float(text) for text in cells.all_inner_texts()]
        page.screenshot(path=tmp_path / "queue.png")
        page.goto(f"{world.studio.url}/projects/{record.main}/settings/ml")
        page.get_by_text("Connected", exact=True).wait_for()
    assert len(shown) > 5
    assert shown == sorted(shown)
    assert len(set(shown)) > 5


@pytest.fixture(scope="module")
def connected(world: World) -> int:
    """A third project, which `yolo-backend connect` attaches before it has any image."""
    project_id = world.client.projects.create("connected", world.config)
    assert f"attached {world.url} to project {project_id}" in world.command("connect", project_id, "--url", world.url)
    await_true(lambda: world.store.pools.ranking(project_id, 0) is not None, "the ranking of no task", patience_s=180)
    world.client.tasks.upload_images(project_id, [file.path for file in world.data.train[:3]])
    await_shown(world, project_id, "yolo11n-v0")
    return project_id


def test_images_that_are_uploaded_after_the_backend_was_attached_are_ranked(world: World, connected: int) -> None:
    assert sorted(score for (score,) in world.scores(connected).values() if score is not None) == [0.25, 0.5, 0.75]


def test_connect_a_second_time_changes_nothing(world: World, connected: int) -> None:
    lines = world.command("connect", connected, "--url", world.url).splitlines()
    assert lines == [f"{world.url} was attached to project {connected} already (Connected)"]


def test_labels_count_without_webhooks(world: World, connected: int) -> None:
    for hook in world.client.http.get("/api/webhooks/", project=connected):
        world.client.http.send("DELETE", f"/api/webhooks/{hook['id']}/")
    label(world, connected, 1)

    def counted() -> bool:
        counts = world.status(connected).counts
        return counts is not None and (counts.labeled, counts.new) == (1, 1)

    await_true(counted, "the reconcile", patience_s=180)


def test_the_status_shows_why_labels_allow_no_training(world: World, connected: int) -> None:
    world.client.http.send("POST", f"/api/ml/{world.client.projects.backends(connected)[0].id}/train", {})
    await_true(lambda: world.status(connected).training.state == "failed", "the refusal", patience_s=180)
    assert "a training needs 2" in world.status(connected).training.error
    assert world.store.versions(connected) == ()


def test_label_studio_shows_an_error_in_the_extra_params(world: World, connected: int) -> None:
    backend_id = world.client.projects.backends(connected)[0].id
    body = {"url": world.url, "project": connected, "extra_params": {"RETRAIN_EVRY": 5}}
    with pytest.raises(LabelStudioError, match="unknown setting RETRAIN_EVRY"):
        world.client.http.send("PATCH", f"/api/ml/{backend_id}", body)


def test_a_new_scoring_also_ranks_late_tasks_and_a_second_one_changes_nothing(world: World, record: Record) -> None:
    score_again(world, record.main)
    scores = world.scores(record.main)
    assert_ranked(scores)
    score_again(world, record.main)
    assert world.scores(record.main) == scores


def test_rollback_brings_the_earlier_version_back_into_the_queue(world: World, record: Record) -> None:
    assert "accepted yolo11n-v1 again" in world.command("rollback", record.main, 1)
    await_shown(world, record.main, "yolo11n-v1")
    assert_ranked(world.scores(record.main))


def assert_ranked(scores: Mapping[int, Sequence[float | None]]) -> None:
    """Assert that every task has one score, and that the scores are the places of one ranking."""
    ranked = sorted(score for (score,) in scores.values() if score is not None)
    assert ranked == pytest.approx([place / (len(scores) + 1) for place in range(1, len(scores) + 1)], abs=1e-6)


def score_again(world: World, project_id: int) -> None:
    """Run `yolo-backend score` and wait until the ranking is in Label Studio."""
    before = ranked_at(world, project_id)
    world.command("score", project_id)

    def pushed_again() -> bool:
        return ranked_at(world, project_id) > before and world.status(project_id).scoring.total == 0

    await_true(pushed_again, "the push", patience_s=360)


def ranked_at(world: World, project_id: int) -> int:
    """Return when a ranking of the project was last written, in nanoseconds."""
    rankings = (Path(world.settings.model_dir) / "projects" / str(project_id)).rglob("ranking.npz")
    return max((path.stat().st_mtime_ns for path in rankings), default=0)


def read_queue(world: World, project_id: int) -> Queue:
    """Return the queue, with its next task; the task is not annotated."""
    task = world.client.tasks.next(project_id)
    assert task is not None
    return Queue(world.shown_version(project_id), world.scores(project_id), task.id)


def correct(world: World, task: Task, shown: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the result of an annotator who moves the regions onto the true boxes; moved regions keep their ids."""
    true = world.oracle.answer(world.tag, task)
    moved = [
        {**region, "id": before["id"], "origin": "prediction-changed"}
        for region, before in zip(true, shown, strict=False)
    ]
    return moved + true[len(moved) :]
