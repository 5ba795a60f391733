"""Predictions of old versions stay while people annotate, and go afterwards; with a real Label Studio on SQLite."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.errors import BackendError
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.labelstudio.client.predictions import Predictions
from backend.loop.context import Context
from backend.loop.scoring import activity, old_versions
from backend.queue.rq_queue import CONTROL
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests.support import CONFIG, cycle_of, open_context, publish, serve, sign_up

pytestmark = pytest.mark.label_studio

TASKS = 30
OLD, SERVED = "yolo11n-v0", "yolo11n-v1"
QUIET_S = 1.5


@dataclass(frozen=True)
class Studio:
    """A project whose tasks all have a prediction of the served version and one of an old one."""

    context: Context
    project: int
    tasks: list[int]
    colleague: LabelStudioClient  # another user who annotates

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def old(self) -> int:
        """Return the number of old predictions."""
        return self.client.predictions.versions(self.project).get(OLD, 0)

    def delete(self) -> None:
        """Run the job once, even if it is not due."""
        cycle_of(self.context).delete_old(self.project)

    def settle(self) -> None:
        """Run the job, for which Label Studio's first answer counts as activity, and wait until it counts no longer."""
        self.delete()
        assert self.old() == TASKS
        time.sleep(QUIET_S + 0.2)


@pytest.fixture(scope="module")
def colleague(label_studio: LabelStudioProcess) -> Iterator[LabelStudioClient]:
    login = {"email": "annotator@example.com", "password": "another-password"}
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        sign_up(client, **login)
    with LabelStudioClient(label_studio.url, personal_access_token(label_studio.url, **login)) as colleague:
        yield colleague


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess,
    colleague: LabelStudioClient,
    settings: Settings,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Studio]:
    monkeypatch.setattr(activity, "QUIET_S", QUIET_S)
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("old versions", CONFIG)
        rows = [{"image": f"http://images.example/{n}.png"} for n in range(TASKS)]
        client.http.send("POST", f"/api/projects/{project}/import", rows)
        tasks = [task.id for task in client.tasks.unlabeled(project)]
        for version in (OLD, SERVED, "somebody-elses"):
            client.prediction_import.run(project, version, [PredictionRow(task, 0.5) for task in tasks])
        client.projects.set_model_version(project, SERVED)
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        context.store.activate(project, publish(context.store, project, tiny_weights).number)
        yield Studio(context, project, tasks, colleague)


def test_only_old_predictions_are_deleted_once_nobody_annotates(studio: Studio) -> None:
    studio.settle()
    studio.delete()
    assert studio.old() == TASKS - old_versions.AT_ONCE
    studio.delete()
    assert studio.client.predictions.versions(studio.project) == {SERVED: TASKS, "somebody-elses": TASKS}


def test_the_job_is_enqueued_again_until_nothing_is_left(studio: Studio, redis: Redis) -> None:
    waiting = Queue(CONTROL, connection=redis, serializer=JSONSerializer).scheduled_job_registry
    studio.delete()
    assert waiting.count == 1, "it waits for people to stop"
    time.sleep(QUIET_S + 0.2)
    for count in (2, 3):
        studio.delete()
        assert waiting.count == count
    studio.delete()
    assert waiting.count == 3, "nothing is left to delete"


ACTIVITIES = ["label", "label of our own user", "change", "skip", "draft", "draft of our own user"]


@pytest.mark.parametrize("kind", ACTIVITIES)
def test_nothing_is_deleted_while_somebody_annotates(studio: Studio, kind: str) -> None:
    """There is no webhook, so only Label Studio's answers show the activity."""
    client = studio.client if "our own" in kind else studio.colleague
    annotation = client.annotations.create(studio.tasks[0], [])
    studio.settle()
    if kind.startswith("draft"):
        client.http.send("POST", f"/api/tasks/{studio.tasks[1]}/drafts", {"result": [], "lead_time": 1})
    elif kind == "change":
        client.annotations.update(annotation, [])
    else:
        client.annotations.create(studio.tasks[1], [], was_cancelled=kind == "skip")
    studio.delete()
    assert studio.old() == TASKS
    time.sleep(QUIET_S + 0.2)
    studio.delete()
    assert studio.old() == TASKS - old_versions.AT_ONCE


def test_a_webhook_of_any_project_counts_as_activity(studio: Studio) -> None:
    studio.settle()
    with serve(studio.context) as backend:
        event = {"action": "ANNOTATION_CREATED", "project": {"id": studio.project + 1000}}
        secret = {"X-Yolo-Backend-Secret": studio.context.store.secret()}
        assert backend.post("/webhook", json=event, headers=secret).status_code == 201
    studio.delete()
    assert studio.old() == TASKS


def test_the_job_stops_as_soon_as_somebody_annotates_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.settle()
    original = Predictions.delete

    def delete(predictions: Predictions, prediction_id: int) -> None:
        original(predictions, prediction_id)
        activity.note(studio.context.redis)

    monkeypatch.setattr(Predictions, "delete", delete)
    studio.delete()
    assert studio.old() == TASKS - 1


def test_after_a_day_of_activity_they_are_deleted_one_by_one(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.settle()
    monkeypatch.setattr(old_versions, "LONGEST_WAIT_S", 0.0)
    activity.note(studio.context.redis)
    studio.delete()
    assert studio.old() == TASKS - 1


def test_a_clock_that_was_set_back_does_not_end_the_wait(studio: Studio) -> None:
    studio.context.progress.remember(studio.project, "old_predictions_since", repr(time.time() + 3600))
    studio.delete()
    assert studio.old() == TASKS
    assert float(studio.context.progress.recall(studio.project, "old_predictions_since")) <= time.time()


def test_a_prediction_that_somebody_else_deleted_is_no_failure(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.settle()
    original = Predictions.ids

    def with_deleted(predictions: Predictions, *args: int | str) -> list[int]:
        return [10**6, *original(predictions, *args)]  # type: ignore[arg-type]

    monkeypatch.setattr(Predictions, "ids", with_deleted)
    studio.delete()
    assert studio.old() == TASKS - old_versions.AT_ONCE


def test_no_request_of_an_annotator_fails_because_of_the_job(studio: Studio, label_studio: LabelStudioProcess) -> None:
    """Two annotators empty the queue while the job runs repeatedly."""
    failed: list[str] = []

    def work(client: LabelStudioClient) -> None:
        try:
            while (task := client.tasks.next(studio.project)) is not None:
                client.http.send("POST", f"/api/tasks/{task.id}/drafts", {"result": [], "lead_time": 1})
                client.annotations.create(task.id, [])
        except BackendError as error:
            failed.append(str(error))

    with LabelStudioClient(label_studio.url, label_studio.api_key) as admin:
        people = [threading.Thread(target=work, args=(client,)) for client in (admin, studio.colleague)]
        for person in people:
            person.start()
        while any(person.is_alive() for person in people):
            studio.delete()
            time.sleep(0.05)
        for person in people:
            person.join()
    assert failed == []
    assert studio.old() == TASKS
