"""The steps after a push are done even if redis came back empty: the store and Label Studio show which are left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio.client.connection import PredictionRow
from backend.loop import served_models, studio_state
from backend.loop.scoring import activity, old_versions, push, scoring
from backend.loop.training import retraining
from backend.settings import Settings
from backend.store.store import Store
from backend.types import Region
from tests.loop.review.test_label_review import BOTH
from tests.outages import Outages, own_redis
from tests.queue_studio import Studio
from tests.support import CONFIG, ImageSite, cycle_of, open_context, publish
from tests.worker.test_jobs import in_the_middle

pytestmark = pytest.mark.label_studio

FIRST, SECOND = "yolo11n-v1", "yolo11n-v2"
PATIENCE_S = 120.0
AWAY_S = 1.0
BOX = {"x": 20, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}


class Death(BaseException):
    """The process is killed here."""


@pytest.fixture
def outages(tmp_path: Path) -> Iterator[Outages]:
    with own_redis(tmp_path / "redis") as outages:
        yield outages


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess,
    settings: Settings,
    tiny_weights: Path,
    images: ImageSite,
    outages: Outages,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Studio]:
    """Return a project that serves version 1 and has a labeled task, with a redis that dies."""
    monkeypatch.setattr(activity, "QUIET_S", 0.2)
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update={**keys, "redis_url": outages.url})) as context:
        project = context.label_studio.projects.create("ends", CONFIG)
        studio = Studio(context, project, images)
        studio.add(0, 3)
        studio.choose("class_entropy")
        publish(context.store, project, tiny_weights)
        cycle_of(context).start_scoring(project)
        studio.work("score")
        studio.run()
        studio.client.annotations.create(min(task.id for task in studio.client.tasks.unlabeled(project)), [])
        yield studio


def await_reconciled(studio: Studio, is_done: Callable[[], bool], event: str) -> None:
    """Reconcile repeatedly, and run the jobs that this enqueues, but no job twice at the same time."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_done():
        assert time.monotonic() < deadline, f"waited for {event}"
        cycle_of(studio.context).reconcile()
        studio.work("control")
        time.sleep(0.3)


def versions(studio: Studio) -> set[str]:
    return set(studio.client.predictions.versions(studio.project))


def is_over(studio: Studio) -> bool:
    """Return whether version 2 ranks the queue alone, has reviewed the labels, and has its advice on stopping."""
    store = studio.context.store
    review = store.state.review(studio.project, 2)
    return (
        studio.client.projects.get(studio.project).model_version == SECOND
        and versions(studio) == {SECOND}
        and review is not None
        and len(review.reviewed or {}) == 1
        and 2 in {signs.version for signs in store.state.signs(studio.project)}
    )


@pytest.mark.parametrize("moment", ["before the queue is pointed", "after it", "after the push"])
def test_a_push_that_ended_while_redis_was_lost_is_brought_to_its_end(
    studio: Studio, outages: Outages, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    context, project = studio.context, studio.project
    assert studio.client.projects.get(project).model_version == FIRST
    publish(context.store, project, tiny_weights)
    cycle_of(context).start_scoring(project)
    studio.work("score")
    run = context.progress.scoring(project)
    assert run is not None

    def die() -> None:
        outages.kill()
        raise Death

    if moment == "before the queue is pointed":
        in_the_middle(monkeypatch, Store, "activate", die)
    elif moment == "after it":
        in_the_middle(monkeypatch, push, "flip", outages.kill)
    with suppress(Death, RedisError):
        cycle_of(context).rank_and_push(project, run.run)
    if moment == "after the push":
        outages.kill()
    outages.start(empty=True)
    serving = context.store.serving(project)
    assert serving is not None
    assert serving.name == SECOND
    assert versions(studio) == {FIRST, SECOND}
    scorings: list[int] = []

    def start(*_: object) -> int:
        scorings.append(1)
        return 0

    monkeypatch.setattr(scoring, "start", start)
    await_reconciled(studio, lambda: is_over(studio), "the end of the push")
    assert scorings == [], "nothing is scored again"


def test_a_training_that_ends_while_redis_is_away_is_not_taken_for_a_killed_one(
    studio: Studio, outages: Outages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis keeps its data: the state "running" and the lease would stay without their holder."""
    context, project = studio.context, studio.project
    studio.choose("class_entropy", TRAIN_STEPS=1, MIN_EPOCHS=1)
    region = {"id": "b", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": BOX}
    for task in list(studio.client.tasks.unlabeled(project))[:2]:
        studio.client.annotations.create(task.id, [region])

    restart = threading.Timer(AWAY_S, outages.start)

    def die() -> None:
        outages.kill()
        restart.start()

    in_the_middle(monkeypatch, retraining, "publish", die)
    version = retraining.retrain(context, project, forced=True)
    restart.join()
    assert version.name == SECOND
    assert context.progress.training(project).state == "idle"
    assert not context.redis.exists(f"lock:training:{project}")


def test_a_version_chosen_by_hand_stays_chosen(studio: Studio, tiny_weights: Path) -> None:
    publish(studio.context.store, studio.project, tiny_weights)
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work("score")
    studio.run()
    studio.client.projects.set_model_version(studio.project, FIRST)
    for _ in range(2):
        cycle_of(studio.context).reconcile()
        studio.work("control")
    assert studio.client.projects.get(studio.project).model_version == FIRST
    assert versions(studio) == {FIRST, SECOND}


def regions(studio: Studio, task_id: int, version: str) -> tuple[Region, ...]:
    """Return two regions in the form in which this backend writes them."""
    record = served_models.project_record(studio.context, studio.project)
    (model,) = served_models.models_for(studio.context, record, accepted=False)
    return push.encode(studio.context.settings, [replace(model, name=version)], task_id, [BOTH])


def write(studio: Studio, version: str, regions_of: Callable[[int], tuple[Region, ...]]) -> None:
    """Write a prediction of a version for each task of the queue."""
    rows = [PredictionRow(task.id, 0.5, regions_of(task.id)) for task in studio.client.tasks.unlabeled(studio.project)]
    studio.client.prediction_import.run(studio.project, version, rows)


def test_versions_of_a_lost_store_go_and_nobody_elses_do(studio: Studio) -> None:
    """The store knows none of the versions; the ids of regions show which predictions are this backend's."""
    ours, named_otherwise = "yolo11s-v7", "ours-but-named-otherwise"
    empty = min(task.id for task in studio.client.tasks.unlabeled(studio.project))
    write(studio, ours, lambda task: () if task == empty else regions(studio, task, ours))
    for version in ("yolo11n-v8", "baseline"):
        write(studio, version, lambda task: regions(studio, task, "another"))
    write(studio, "yolo11n-v9", lambda _: ())
    write(studio, named_otherwise, lambda task: regions(studio, task, named_otherwise))
    others = {FIRST, "yolo11n-v8", "yolo11n-v9", "baseline", named_otherwise}
    await_reconciled(studio, lambda: versions(studio) == others, "the end of the old version")
    assert not old_versions.are_left(studio.context, studio.project)


def test_beside_another_installation_nothing_that_the_store_does_not_know_goes(studio: Studio) -> None:
    write(studio, SECOND, lambda task: regions(studio, task, SECOND))
    studio_state.note(studio.context, studio.project, webhook="on", sampling="", rivals="", title="cats")
    assert old_versions.are_left(studio.context, studio.project)
    studio_state.note(
        studio.context, studio.project, webhook="on", sampling="", rivals="http://other.example", title="cats"
    )
    assert not old_versions.are_left(studio.context, studio.project)
    studio.context.redis.flushdb()
    assert not old_versions.are_left(studio.context, studio.project), "nobody has looked for another one yet"
