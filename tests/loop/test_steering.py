"""People steer the loop; tested with a real Label Studio, whose next task changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import ModelError, NotFoundError, RequestError, SettingError, TrainingError
from backend.loop import demands, steering
from backend.loop.context import Context
from backend.loop.scoring import holdings
from backend.loop.training import snapshot
from backend.queue.rq_queue import TRAIN, Jobs
from backend.sampling.pins import Pins, pinned_places
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Task
from tests.queue_studio import Studio, open_studio
from tests.support import CONFIG, ImageSite, cycle_of, publish, serve

pytestmark = pytest.mark.label_studio

UNKNOWN_PROJECT = 10**9


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    with open_studio(label_studio, settings, tiny_weights, images) as studio:
        studio.client.projects.set_sampling(studio.project)
        yield studio


def jobs_of(context: Context) -> Jobs:
    return Jobs(context.redis)


def pin(studio: Studio, task_ids: list[int], place: str) -> steering.Pinned:
    """Pin tasks as a person does, and run the jobs that follow."""
    pinned = steering.pin(
        *(studio.context, jobs_of(studio.context), studio.project, task_ids),
        place=place,  # type: ignore[arg-type]
        who="ann",
    )
    studio.settle()
    return pinned


def next_task(studio: Studio) -> int:
    task = studio.client.tasks.next(studio.project)
    assert task is not None
    return task.id


def queue_of(studio: Studio, version: str) -> list[int]:
    """Return the ids of the tasks in the order of their scores in Label Studio."""
    held = holdings.scores(studio.context, studio.project, version)
    return sorted(held, key=lambda task_id: held[task_id] or 0)


def test_pins_change_the_next_task_and_outlive_a_version(studio: Studio, tiny_weights: Path) -> None:
    first, second, third, last = queue_of(studio, "yolo11n-v1")
    before = holdings.scores(studio.context, studio.project, "yolo11n-v1")
    assert pin(studio, [last], "front").pins == Pins(front=(last,))
    pin(studio, [first], "back")
    assert queue_of(studio, "yolo11n-v1") == [last, second, third, first]
    after = holdings.scores(studio.context, studio.project, "yolo11n-v1")
    assert {task for task in before if before[task] != after[task]} == {first, last}, "no other score is written"
    assert next_task(studio) == last

    publish(studio.context.store, studio.project, tiny_weights)
    cycle_of(studio.context).start_scoring(studio.project)
    studio.settle()
    assert studio.client.projects.get(studio.project).model_version == "yolo11n-v2"
    order = queue_of(studio, "yolo11n-v2")
    assert (order[0], order[-1]) == (last, first)

    pin(studio, [first, last], "none")
    assert studio.context.store.steering.pins(studio.project) == Pins()
    ranking = studio.context.store.pools.ranking(studio.project, 2)
    assert ranking is not None
    places = pinned_places(ranking, Pins())
    assert queue_of(studio, "yolo11n-v2") == sorted(places, key=places.__getitem__)
    assert [entry.action for entry in studio.context.store.journal.entries(studio.project)] == ["pin"] * 3


def test_a_pin_survives_the_loss_of_redis_and_of_its_job(studio: Studio) -> None:
    last = queue_of(studio, "yolo11n-v1")[-1]
    steering.pin(studio.context, jobs_of(studio.context), studio.project, [last], "front", "ann")
    studio.context.redis.flushall()
    cycle_of(studio.context).reconcile()
    studio.settle()
    assert queue_of(studio, "yolo11n-v1")[0] == last


def test_a_task_that_arrives_later_can_be_pinned(studio: Studio) -> None:
    before = set(queue_of(studio, "yolo11n-v1"))
    studio.add(4, 5)
    (new,) = {task.id for task in studio.client.tasks.unlabeled(studio.project)} - before
    steering.pin(studio.context, jobs_of(studio.context), studio.project, [new], "front", "ann")
    cycle_of(studio.context).score_new(studio.project)
    studio.settle()
    assert queue_of(studio, "yolo11n-v1")[0] == new
    assert studio.client.predictions.of_task(new)[0].result


def test_a_labeled_task_keeps_its_pin_without_effect_and_is_no_chance_task(studio: Studio) -> None:
    first, second, *_ = queue_of(studio, "yolo11n-v1")
    studio.client.annotations.create(second, [])
    assert pin(studio, [second, first], "front").labeled == (second,)
    assert queue_of(studio, "yolo11n-v1")[0] == first
    annotated = tuple(studio.context.annotated_tasks(studio.project))
    assert second not in snapshot.chance_tasks(studio.context, studio.project, annotated)


@pytest.mark.parametrize("ids", [[10**9], [0], [-5], [2**63], [2**80, 10**9]])
def test_unknown_tasks_are_named(studio: Studio, ids: list[int]) -> None:
    known = queue_of(studio, "yolo11n-v1")[0]
    with pytest.raises(NotFoundError, match=f"project {studio.project} has no task {ids[0]}") as caught:
        pin(studio, [known, *ids], "front")
    assert str(known) not in re.findall(r"\d+", caught.value.what.split("task")[1])
    assert studio.context.store.steering.pins(studio.project) == Pins()


def test_pins_that_cannot_be(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="no task is named"):
        pin(studio, [], "front")
    with pytest.raises(NotFoundError, match="was never set up"):
        steering.pin(studio.context, jobs_of(studio.context), UNKNOWN_PROJECT, [1], "front", "ann")
    tasks = queue_of(studio, "yolo11n-v1")
    monkeypatch.setattr(steering, "MAX_PINS", 2)
    with pytest.raises(RequestError, match="3 tasks would be pinned, and at most 2 can be"):
        pin(studio, tasks[:3], "front")
    assert pin(studio, [10**9], "none").pins == Pins(), "a task that is gone can be unpinned"


def test_pins_of_deleted_and_learned_tasks_are_removed(studio: Studio, tiny_weights: Path) -> None:
    first, second, third, fourth = queue_of(studio, "yolo11n-v1")
    pin(studio, [first, second, third], "front")
    studio.client.http.send("DELETE", f"/api/tasks/{first}/")
    studio.client.annotations.create(second, [])
    publish(studio.context.store, studio.project, tiny_weights, train_tasks=(second,))
    assert pin(studio, [fourth], "front").pins == Pins(front=(third, fourth))


def test_a_paused_loop_trains_only_when_somebody_starts_it(studio: Studio, redis: Redis) -> None:
    context, jobs = studio.context, jobs_of(studio.context)
    studio.choose("class_entropy", RETRAIN_EVERY=2)
    assert steering.pause(context, studio.project, "ann")
    assert not steering.pause(context, studio.project, "bob"), "it is paused already"
    for task in queue_of(studio, "yolo11n-v1")[:3]:
        studio.client.annotations.create(task, [])
    redis.flushall()
    demands.check(context, jobs, studio.project)
    assert studio.queued(TRAIN) == []
    counts = context.progress.counts(studio.project)
    assert counts is not None
    assert counts.new >= 3, "the labels are counted nevertheless"

    steering.start_training(context, jobs, studio.project, "ann")
    assert studio.queued(TRAIN) == ["retrain"]
    redis.flushall()
    assert steering.resume(context, jobs, studio.project, "bob")
    assert not steering.resume(context, jobs, studio.project, "bob")
    studio.run()
    assert studio.queued(TRAIN) == ["retrain"]
    entries = context.store.journal.entries(studio.project)
    assert [(entry.who, entry.action) for entry in entries] == [("bob", "resume"), ("ann", "train"), ("ann", "pause")]


def test_a_training_that_was_queued_before_the_pause_does_not_run(studio: Studio) -> None:
    studio.choose("class_entropy", RETRAIN_EVERY=1)
    studio.client.annotations.create(queue_of(studio, "yolo11n-v1")[0], [])
    demands.check(studio.context, jobs_of(studio.context), studio.project)
    assert studio.queued(TRAIN) == ["retrain"]
    steering.pause(studio.context, studio.project, "ann")
    studio.run(TRAIN)
    assert studio.context.progress.training(studio.project).state == "idle"
    assert len(studio.context.store.versions(studio.project)) == 1


def test_a_training_without_labels_is_refused_with_the_reason(studio: Studio) -> None:
    context, jobs = studio.context, jobs_of(studio.context)
    with pytest.raises(TrainingError, match="nothing to learn yet: 0 tasks are labeled, and a training needs 2"):
        steering.start_training(context, jobs, studio.project, "ann")
    frozen = CONFIG.replace("<RectangleLabels ", '<RectangleLabels model_trainable="false" ')
    context.store.save_project(ProjectRecord(studio.project, frozen, "", "", "", ""))
    with pytest.raises(TrainingError, match=r'nothing to train: model_trainable="false" is set on label'):
        steering.start_training(context, jobs, studio.project, "ann")
    with pytest.raises(NotFoundError):
        steering.start_training(context, jobs, UNKNOWN_PROJECT, "ann")
    assert studio.queued(TRAIN) == []
    assert context.store.journal.entries(studio.project) == ()


def test_a_strategy_is_written_into_label_studio_and_orders_the_queue(studio: Studio) -> None:
    context, jobs = studio.context, jobs_of(studio.context)
    with serve(context) as server:
        url = str(server.base_url).rstrip("/")
        studio.client.projects.attach_backend(studio.project, url, "yolo")
        (attached,) = studio.client.projects.backends(studio.project)
        params = json.dumps({"bandit": "ucb1", "EXPLORE_SHARE": 0, "strategy": "class_entropy"})
        studio.client.projects.change_backend(studio.project, attached, extra_params=params)
        studio.settle()
        steering.use_strategy(context, jobs, studio.project, "margin", "ann")
        studio.settle()
        (attached,) = studio.client.projects.backends(studio.project)
        assert json.loads(attached.extra_params) == {"EXPLORE_SHARE": 0, "STRATEGY": "margin", "BANDIT": "off"}
        assert attached.state == "Connected"
        assert attached.title.startswith("yolo")
        studio.assert_in_order("margin")
        (entry,) = context.store.journal.entries(studio.project)
        assert (entry.who, entry.action, entry.text) == ("ann", "strategy", "class_entropy -> margin")
        with pytest.raises(SettingError, match="unknown strategy 'best'"):
            steering.use_strategy(context, jobs, studio.project, "best", "ann")
        with pytest.raises(ModelError, match="'shape' needs"):
            steering.use_strategy(context, jobs, studio.project, "shape", "ann")
        (attached,) = studio.client.projects.backends(studio.project)
        assert json.loads(attached.extra_params)["STRATEGY"] == "margin"


def test_a_strategy_has_no_place_without_a_model_in_label_studio(studio: Studio) -> None:
    with pytest.raises(NotFoundError, match=r"Label Studio has no model at .*yolo-backend connect"):
        steering.use_strategy(studio.context, jobs_of(studio.context), studio.project, "margin", "ann")


def test_a_version_is_accepted_again_and_the_journal_says_who_did_it(studio: Studio, tiny_weights: Path) -> None:
    context, jobs = studio.context, jobs_of(studio.context)
    publish(context.store, studio.project, tiny_weights)
    assert steering.accept_version(context, jobs, studio.project, 1, "ann").number == 1
    assert steering.accept_version(context, jobs, studio.project, 2, "bob").number == 2
    studio.settle()
    assert studio.client.projects.get(studio.project).model_version == "yolo11n-v2"
    entries = context.store.journal.entries(studio.project)
    assert [(entry.who, entry.action, entry.text) for entry in entries] == [
        ("bob", "promote", "yolo11n-v1 -> yolo11n-v2"),
        ("ann", "rollback", "yolo11n-v2 -> yolo11n-v1"),
    ]
    with pytest.raises(NotFoundError, match="has no version 9"):
        steering.accept_version(context, jobs, studio.project, 9, "ann")
    assert len(context.store.journal.entries(studio.project)) == 2


def test_a_new_order_is_right_at_the_front_first(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large pool takes minutes to write, and people label meanwhile."""
    monkeypatch.setattr("backend.loop.scoring.rescoring.AT_ONCE", 2)
    tasks: list[Task] = list(studio.client.tasks.unlabeled(studio.project))
    for task in tasks:
        (prediction,) = studio.client.predictions.of_task(task.id)
        studio.client.predictions.rescore(prediction.id, 0.9)
    order = studio.context.store.pools.ranking(studio.project, 1)
    assert order is not None
    places = pinned_places(order, Pins())
    wanted = sorted(places, key=places.__getitem__)
    cycle_of(studio.context).reorder(studio.project, 0)
    assert queue_of(studio, "yolo11n-v1")[:2] == wanted[:2]
    studio.settle()
    assert queue_of(studio, "yolo11n-v1") == wanted
    assert all(prediction.result for task in tasks for prediction in studio.client.predictions.of_task(task.id))
