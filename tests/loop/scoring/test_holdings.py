"""Label Studio's predictions of the served version are repaired after any change there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.labelstudio import label_config, task_fields
from backend.labelstudio.client.connection import LabelStudioClient, StoredPrediction
from backend.labelstudio.client.http import LabelStudioHTTP
from backend.labelstudio.client.tabs import QUEUE_TAB
from backend.loop import project_setup, served_models, serving
from backend.loop.scoring import expiring_media, holdings
from backend.loop.served_models import ServedModel
from backend.store.store import ProjectRecord
from backend.types import Json, Task
from tests.queue_studio import Studio
from tests.support import CONFIG, cycle_of, publish, serve, sign_up
from tests.worker.test_jobs import studio
from tests.world import queue_predictions

__all__ = ["studio"]

pytestmark = pytest.mark.label_studio


def held(studio: Studio) -> dict[int, StoredPrediction]:
    """Return the prediction of the served version for each task in the queue; assert that there is one per task."""
    version = studio.client.projects.get(studio.project).model_version
    by_task = {
        task_id: [row for row in predictions if row.version == version]
        for task_id, predictions in queue_predictions(studio.client, studio.project).items()
    }
    assert {task_id: len(predictions) for task_id, predictions in by_task.items()} == dict.fromkeys(by_task, 1)
    return {task_id: prediction for task_id, (prediction,) in by_task.items()}


def reconcile(studio: Studio) -> None:
    cycle_of(studio.context).reconcile()
    studio.settle()


def tasks_of(studio: Studio) -> list[Task]:
    return list(studio.client.tasks.unlabeled(studio.project))


def change(client: LabelStudioClient, task_id: int, **data: str) -> None:
    client.http.send("PATCH", f"/api/tasks/{task_id}/", {"data": data})


def answer(studio: Studio, task_id: int) -> tuple[object, ...]:
    """Return the regions that /predict answers for a task."""
    record = served_models.project_record(studio.context, studio.project)
    task = studio.client.tasks.get(task_id)
    (result,) = serving.predict(studio.context, studio.project, record.label_config, [task])
    return result.regions


# Another image


def test_a_task_that_shows_another_image_gets_its_regions_and_its_place(studio: Studio) -> None:
    reconcile(studio)
    before = held(studio)
    changed, other, *_ = before
    change(studio.client, changed, image=studio.images.add("other.png", 77))
    assert answer(studio, changed) != before[changed].result
    reconcile(studio)
    after = held(studio)
    assert after[changed].result == answer(studio, changed) != before[changed].result
    assert after[other] == before[other]
    studio.assert_in_order("class_entropy")


def test_a_task_with_a_new_image_that_cannot_be_read_goes_to_the_end(studio: Studio) -> None:
    changed = min(held(studio))
    change(studio.client, changed, image=f"{studio.images.url}/missing.png")
    reconcile(studio)
    assert (held(studio)[changed].result, held(studio)[changed].score) == ((), 1.0)
    writes = held(studio)
    reconcile(studio)
    assert held(studio) == writes


def test_a_task_that_changes_while_the_pool_is_scored_is_pushed_with_its_new_prediction(studio: Studio) -> None:
    changed = min(held(studio))
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work("score")
    change(studio.client, changed, image=studio.images.add("other.png", 77))
    studio.settle()
    assert held(studio)[changed].result == answer(studio, changed)
    studio.assert_in_order("class_entropy")


def test_a_labeled_task_that_shows_another_image_is_predicted_again(studio: Studio) -> None:
    labeled = min(held(studio))
    (before,) = studio.client.predictions.of_task(labeled)
    studio.client.annotations.create(labeled, [])
    reconcile(studio)
    change(studio.client, labeled, image=studio.images.add("other.png", 77))
    reconcile(studio)
    (after,) = studio.client.predictions.of_task(labeled)
    assert after.result == answer(studio, labeled) != before.result
    sources = studio.context.store.pools.sources(studio.project, 1, labeled=True, tag="label")
    (tag,) = label_config.parse(CONFIG)
    assert sources == {labeled: task_fields.source(tag, studio.client.tasks.get(labeled))}


# Predictions that were deleted, or changed by hand


def delete_predictions(studio: Studio, *task_ids: int) -> None:
    """Delete the predictions of tasks as "Delete predictions" in the Data Manager does."""
    chosen = {"all": False, "included": list(task_ids)}
    body = {"project": studio.project, "selectedItems": chosen}
    studio.client.http.send("POST", f"/api/dm/actions?id=delete_tasks_predictions&project={studio.project}", body)


@pytest.mark.parametrize("count", [4, 2])
def test_deleted_predictions_come_back_from_the_store(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    reconcile(studio)
    before = held(studio)
    delete_predictions(studio, *sorted(before)[:count])
    monkeypatch.setattr(ServedModel, "predict", None)  # nothing is predicted again
    reconcile(studio)
    after = held(studio)
    contents = [[(held_by[task].score, held_by[task].result) for task in sorted(before)] for held_by in (before, after)]
    assert contents[0] == contents[1]
    studio.assert_in_order("class_entropy")


def test_a_score_that_was_changed_by_hand_is_restored(studio: Studio) -> None:
    reconcile(studio)
    before = held(studio)
    first, second, *_ = before.values()
    studio.client.http.send("PATCH", f"/api/predictions/{first.id}/", {"score": 0.123})
    studio.client.http.send("PATCH", f"/api/predictions/{second.id}/", {"score": None})
    reconcile(studio)
    assert held(studio) == before


def test_a_project_in_order_is_not_compared_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        reconcile(studio)
    comparisons: list[str] = []
    monkeypatch.setattr(holdings, "gaps", lambda *_: comparisons.append("compared"))
    reconcile(studio)
    assert comparisons == []


# Two annotations of each task


@pytest.fixture
def colleague(label_studio: LabelStudioProcess, studio: Studio) -> Iterator[LabelStudioClient]:
    """Another annotator of the same Label Studio."""
    email, password = f"second-{studio.project}@example.com", "a-test-password"
    sign_up(studio.client, email, password)
    with LabelStudioClient(label_studio.url, personal_access_token(label_studio.url, email, password)) as client:
        yield client


def test_a_task_that_needs_a_second_annotation_gets_the_prediction_of_the_next_version(
    studio: Studio, colleague: LabelStudioClient, tiny_weights: Path
) -> None:
    """Three tasks have one of two annotations. A colleague gets all tasks with the predictions of the new version."""
    studio.client.http.send("PATCH", f"/api/projects/{studio.project}/", {"maximum_annotations": 2})
    ids = sorted(held(studio))
    for task_id in ids[:3]:
        studio.client.annotations.create(task_id, [])
    publish(studio.context.store, studio.project, tiny_weights)
    reconcile(studio)
    assert sorted(held(studio)) == ids
    assert {prediction.version for prediction in held(studio).values()} == {"yolo11n-v2"}
    order = studio.context.store.pools.ranking(studio.project, 2)
    assert order is not None
    assert sorted(order.task_ids.tolist()) == ids
    handed_out = []
    for _ in ids:
        task = colleague.tasks.next(studio.project)
        assert task is not None
        handed_out.append(task.id)
        colleague.annotations.create(task.id, [])
    assert sorted(handed_out[:3]) == ids[:3]  # Label Studio hands out tasks with an annotation first
    assert [task.id for task in studio.client.tasks.unlabeled(studio.project)] == ids[3:]
    tab = next(view for view in _tabs(studio) if view["data"]["title"] == QUEUE_TAB)
    listed = studio.client.http.get("/api/tasks", view=tab["id"], include="id")["tasks"]
    assert [task["id"] for task in listed] == ids[3:]
    studio.client.annotations.create(ids[3], [])
    assert list(studio.client.tasks.unlabeled(studio.project)) == []


def _tabs(studio: Studio) -> list[Json]:
    studio.client.tabs.ensure_queue(studio.project)
    views: list[Json] = studio.client.http.get("/api/dm/views/", project=studio.project)
    return views


# The number of requests


def requests_of(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> int:
    """Return how many requests `work` sends to Label Studio."""
    sent: list[str] = []
    request = LabelStudioHTTP.request

    def counted(client: LabelStudioHTTP, method: str, path: str, **options: Any) -> Any:
        sent.append(f"{method} {path}")
        return request(client, method, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(LabelStudioHTTP, "request", counted)
        work()
    return len(sent)


def test_a_reconcile_sends_one_request_per_unchanged_project(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more request lists all webhooks, and one lists up to a hundred projects."""
    empty = [studio.client.projects.create(f"empty {number}", CONFIG) for number in range(10)]
    for project in empty:
        studio.context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
    reconcile(studio)
    reconcile(studio)
    assert requests_of(monkeypatch, lambda: reconcile(studio)) == len(empty) + 1 + 2
    annotated = min(held(studio))
    studio.client.annotations.create(annotated, [])
    assert requests_of(monkeypatch, lambda: reconcile(studio)) > len(empty) + 1 + 2
    reconcile(studio)
    assert requests_of(monkeypatch, lambda: reconcile(studio)) == len(empty) + 1 + 2


@pytest.mark.slow
def test_the_requests_of_a_reconcile_of_101_projects(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request per project, one for all webhooks, and one per hundred projects; a new label needs a few more."""
    client, images = studio.client, [{"image": studio.images.add("same.png")}] * 3
    others = [client.projects.create(f"other {number}", CONFIG) for number in range(100)]
    for project in others:
        client.http.send("POST", f"/api/projects/{project}/import", images)
        studio.context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
    reconcile(studio)
    reconcile(studio)
    idle = requests_of(monkeypatch, lambda: reconcile(studio))
    client.annotations.create(min(held(studio)), [])
    changed = requests_of(monkeypatch, lambda: reconcile(studio))
    print(f"requests of a reconcile of 101 projects: {idle}, with one label more {changed}")
    assert idle == 101 + 1 + 2
    assert idle < changed <= idle + 30
    reconcile(studio)
    assert requests_of(monkeypatch, lambda: reconcile(studio)) == idle


def test_a_project_with_nothing_left_to_label_is_left_alone(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio shows the backend's title as its model version, because no task has a prediction of ours."""
    with serve(studio.context) as backend:
        project = studio.client.projects.create("all done", CONFIG)
        studio.client.projects.attach_backend(project, str(backend.base_url).rstrip("/"), "a title")
        reconcile(studio)
        reconcile(studio)
        assert studio.client.projects.get(project).model_version == "a title · yolo11n-v0"
        configured: list[int] = []
        monkeypatch.setattr(project_setup, "configure", lambda *_: configured.append(1))
        reconcile(studio)
    assert configured == []


# A lost store


def test_a_project_of_a_lost_store_is_recovered_and_no_number_is_used_twice(studio: Studio, tmp_path: Path) -> None:
    project = studio.client.projects.create("kept", CONFIG)
    with serve(studio.context) as backend:
        url = str(backend.base_url).rstrip("/")
        studio.client.projects.attach_backend(project, url, "yolo")
        reconcile(studio)
        secret = studio.context.store.secret()
        (hook,) = studio.client.projects.webhooks(project)
        assert hook.headers == {project_setup.WEBHOOK_HEADER: secret}
        shutil.rmtree(tmp_path / "models/projects" / str(project))
        assert backend.get(f"/api/projects/{project}").status_code == 404
        reconcile(studio)
        assert backend.get(f"/api/projects/{project}").status_code == 200
    record = studio.context.store.project(project)
    assert record is not None
    assert record.backend_url == url
    assert studio.client.predictions.highest_number(studio.project) == 1
    studio.context.store.skip_numbers(project, 7)
    assert studio.context.store.reserve_number(project) == 8


QUICK = {"TRAIN_STEPS": 1, "MIN_EPOCHS": 1, "MAX_EPOCHS": 1, "MODEL_SCORE_THRESHOLD": 0}
BOX = {
    "from_name": "label",
    "to_name": "image",
    "type": "rectanglelabels",
    "original_width": 80,
    "original_height": 60,
    "value": {"x": 10, "y": 10, "width": 40, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]},
}


def test_a_training_after_the_whole_store_is_lost_has_the_next_number(studio: Studio, tmp_path: Path) -> None:
    """MODEL_DIR is empty: versions, records, the webhook's secret and the media cache are lost at the same time."""
    with serve(studio.context) as backend:
        studio.client.projects.attach_backend(studio.project, str(backend.base_url).rstrip("/"), "yolo")
        reconcile(studio)
        shutil.rmtree(tmp_path / "models")
        reconcile(studio)
        assert backend.get(f"/api/projects/{studio.project}").json()["version"] == "yolo11n-v0"
        for task in tasks_of(studio):
            studio.client.annotations.create(task.id, [BOX])
        studio.add(4, 6)
        record = studio.context.store.project(studio.project)
        assert record is not None
        studio.context.store.save_project(replace(record, extra_params=json.dumps(QUICK)))
        cycle_of(studio.context).retrain(studio.project, 1)
        studio.settle()
        versions = studio.context.store.versions(studio.project)
        assert [version.number for version in versions] == [2], studio.context.progress.training(studio.project)
        (hook,) = studio.client.projects.webhooks(studio.project)
    assert hook.headers == {project_setup.WEBHOOK_HEADER: studio.context.store.secret()}


# URLs that expire


def test_the_image_of_a_task_that_was_imported_with_labels_is_kept_before_its_url_expires(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training needs it later. Its URL is then expired, or renewed; here the image is gone altogether."""
    monkeypatch.setattr(expiring_media, "AT_ONCE", 1)  # a job for each task
    rows = []
    for name in ("first.png", "gone.png", "last.png"):
        url = f"{studio.images.add(name, 5)}?Expires=4102444800&Signature=first"
        rows.append({"data": {"image": url}, "annotations": [{"result": []}]})
    (studio.images.folder / "gone.png").unlink()
    studio.client.http.send("POST", f"/api/projects/{studio.project}/import", rows)
    first, gone, last = studio.client.tasks.completed(studio.project)
    reconcile(studio)
    for name in ("first.png", "last.png"):
        (studio.images.folder / name).unlink()
    for task in (first, last):
        renewed = task.data["image"].replace("Signature=first", "Signature=second")
        assert studio.context.media.fetch(renewed, task.id).width == 80
    assert "not found" in studio.context.progress.failures(studio.project)[gone.id]
