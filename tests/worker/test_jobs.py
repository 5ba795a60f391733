"""Jobs that run at the same time or fail: in any order, Label Studio ends up with the scores of the last ranking."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import BusyError, LabelStudioError, ModelError
from backend.labelstudio.client.prediction_import import PredictionImport
from backend.labelstudio.client.predictions import Predictions
from backend.labelstudio.client.projects import Projects
from backend.loop import cycle, demands, served_models
from backend.loop.context import Context
from backend.loop.cycle import Cycle
from backend.loop.scoring import late_tasks, pool_ranking, push, scoring
from backend.loop.training import retraining
from backend.queue.rq_queue import CONTROL, SCORE, TRAIN, Jobs
from backend.queue.run_state import SCORING_TTL_S, TrainingProgress
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.worker import jobs
from tests.queue_studio import Studio, open_studio, queue
from tests.support import CONFIG, ImageSite, cycle_of, publish


def in_the_middle(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, meanwhile: Callable[[], None]) -> None:
    """Call `meanwhile` once, right after the function `name` of a module has returned."""
    original, pending = getattr(module, name), [meanwhile]

    def interrupted(*args: Any, **options: Any) -> Any:
        answer = original(*args, **options)
        while pending:
            pending.pop()()
        return answer

    monkeypatch.setattr(module, name, interrupted)


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    with open_studio(label_studio, settings, tiny_weights, images) as studio:
        yield studio


@pytest.mark.label_studio
def test_a_scoring_that_begins_while_late_tasks_are_placed_has_its_own_ranking(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the late tasks' ranking of the old pool would count as the new one, and their shard replace another."""
    monkeypatch.setattr(scoring, "SHARD_TASKS", 2)
    annotation = studio.client.annotations.create(
        min(task.id for task in studio.client.tasks.unlabeled(studio.project)), []
    )
    studio.add(4, 5)
    cycle_of(studio.context).start_scoring(studio.project)
    studio.settle()
    studio.add(5, 7)

    def meanwhile() -> None:
        studio.choose("margin")
        studio.client.annotations.delete(annotation)  # so that the shards of the new run have other tasks
        cycle_of(studio.context).start_scoring(studio.project)
        studio.run(SCORE)

    in_the_middle(monkeypatch, late_tasks, "predict_shards", meanwhile)
    cycle_of(studio.context).score_new(studio.project)
    studio.settle()
    studio.assert_in_order("margin")


@pytest.mark.label_studio
def test_a_scoring_that_begins_while_another_is_pushed_comes_after_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> None:
        studio.choose("margin")
        cycle_of(studio.context).start_scoring(studio.project)

    cycle_of(studio.context).start_scoring(studio.project)
    studio.work(SCORE)
    in_the_middle(monkeypatch, pool_ranking, "rank_pool", again)
    studio.settle()
    studio.assert_in_order("margin")


@pytest.mark.label_studio
def test_the_push_of_a_run_is_moot_once_another_has_begun(studio: Studio) -> None:
    """Otherwise it would rank the shards that the other run has so far, here none, and end that run."""
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work(SCORE)
    studio.choose("margin")
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work(CONTROL)
    studio.settle()
    studio.assert_in_order("margin")


@pytest.mark.label_studio
def test_a_training_waits_until_the_version_before_is_in_the_queue(studio: Studio, tiny_weights: Path) -> None:
    """Otherwise the queue would never change where people label faster than the pool is scored."""
    studio.choose("class_entropy", RETRAIN_EVERY=1)
    studio.client.annotations.create(next(iter(studio.client.tasks.unlabeled(studio.project))).id, [])
    publish(studio.context.store, studio.project, tiny_weights)
    cycle_of(studio.context).check(studio.project)  # its scoring has not begun
    assert studio.queued(TRAIN) == []
    cycle_of(studio.context).start_scoring(studio.project)
    cycle_of(studio.context).check(studio.project)
    assert studio.queued(TRAIN) == []
    studio.work(SCORE)
    studio.run(CONTROL)
    assert studio.client.projects.get(studio.project).model_version == "yolo11n-v2"
    assert studio.queued(TRAIN) == ["retrain"]


@pytest.mark.label_studio
def test_nobody_waits_for_a_version_that_cannot_be_ranked(studio: Studio, tiny_weights: Path) -> None:
    studio.choose("class_entropy", RETRAIN_EVERY=1)
    studio.client.annotations.create(next(iter(studio.client.tasks.unlabeled(studio.project))).id, [])
    publish(studio.context.store, studio.project, tiny_weights)
    push.note_ranking_error(studio.context, studio.project, ModelError("no such strategy"))
    assert not demands.is_awaited(studio.context, studio.project)


@pytest.mark.label_studio
def test_a_push_is_moot_once_another_version_is_accepted(studio: Studio, tiny_weights: Path) -> None:
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work(SCORE)
    publish(studio.context.store, studio.project, tiny_weights)
    studio.run(CONTROL)
    assert studio.client.projects.get(studio.project).model_version == "yolo11n-v1"
    assert cycle.rank_push_and_flip(studio.context, studio.project, 1) is None
    assert studio.context.progress.scoring(studio.project) is None


@pytest.mark.label_studio
def test_a_late_shard_of_a_run_leaves_those_of_the_next_alone(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names are the same but their tasks are not: one task was labeled in between."""
    monkeypatch.setattr(scoring, "SHARD_TASKS", 2)

    def meanwhile() -> None:
        first = next(iter(studio.client.tasks.unlabeled(studio.project)))
        studio.client.annotations.create(first.id, [])
        cycle_of(studio.context).start_scoring(studio.project)
        studio.work(SCORE)

    cycle_of(studio.context).start_scoring(studio.project)
    in_the_middle(monkeypatch, scoring, "predict_shards", meanwhile)
    studio.settle()
    studio.assert_in_order("class_entropy")


@pytest.mark.label_studio
def test_a_push_waits_as_long_as_another_job_writes_and_its_run_lives_on(studio: Studio) -> None:
    studio.choose("margin")
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work(SCORE)
    run = studio.context.progress.scoring(studio.project)
    assert run is not None
    with studio.context.lock(studio.project, "push"):
        studio.context.redis.expire(f"scoring:{studio.project}", 5)
        cycle_of(studio.context).rank_and_push(studio.project, run.run)
    assert studio.context.redis.ttl(f"scoring:{studio.project}") > SCORING_TTL_S / 2
    assert "rank_and_push" in studio.waiting()
    studio.settle()
    studio.assert_in_order("margin")


@pytest.mark.label_studio
def test_a_push_that_label_studio_never_took_is_made_up_for(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio is down until all tries of the job have failed; only the store has the ranking."""
    studio.choose("margin")
    record = served_models.project_record(studio.context, studio.project)
    assert not push.is_pending(studio.context, record)

    def down(*_: Any, **__: Any) -> None:
        raise LabelStudioError("Label Studio cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(Predictions, "update", down)
        patched.setattr(PredictionImport, "run", down)
        cycle_of(studio.context).start_scoring(studio.project)
        with pytest.raises(LabelStudioError):
            studio.work(SCORE, CONTROL)
    assert not push.is_pending(studio.context, record)
    studio.context.redis.delete(f"scoring:{studio.project}")  # as after its expiry
    assert push.is_pending(studio.context, record)
    cycle_of(studio.context).reconcile()
    studio.settle()
    studio.assert_in_order("margin")


@pytest.mark.label_studio
def test_a_version_that_cannot_predict_ends_its_scoring_with_the_reason(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the run would stay for half an hour, and nobody would see the reason."""

    def damaged(*_: Any, **__: Any) -> None:
        raise ModelError("weights of yolo11n-v1 are damaged")

    studio.choose("margin")
    cycle_of(studio.context).start_scoring(studio.project)
    with monkeypatch.context() as broken:
        broken.setattr(scoring, "predict_shards", damaged)
        studio.settle()
    assert studio.context.progress.scoring(studio.project) is None
    assert "are damaged" in studio.context.progress.recall(studio.project, "ranking_error")
    cycle_of(studio.context).start_scoring(studio.project)
    studio.settle()
    studio.assert_in_order("margin")
    assert studio.context.progress.recall(studio.project, "ranking_error") == ""


@pytest.mark.label_studio
def test_a_job_that_finds_the_lock_taken_waits_once(studio: Studio) -> None:
    """Many hints come meanwhile."""
    hints = Jobs(studio.context.redis)
    with studio.context.lock(studio.project, "push"):
        for _ in range(3):
            hints.once("score_new", studio.project)
            hints.once("review_labels", studio.project, 1)
            hints.once("start_scoring", studio.project)
            studio.run()
    assert sorted(studio.waiting()) == ["review_labels", "score_new", "start_scoring"]


@pytest.mark.label_studio
def test_the_reconcile_looks_for_new_tasks_until_they_have_a_place(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The webhook was lost, and Label Studio is down until all tries of the job have failed."""
    cycle_of(studio.context).reconcile()
    studio.settle()
    studio.add(4, 6)

    def down(*_: Any) -> None:
        raise LabelStudioError("Label Studio cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(late_tasks, "score_new", down)
        cycle_of(studio.context).reconcile()
        with pytest.raises(LabelStudioError):
            studio.work()
    cycle_of(studio.context).reconcile()
    studio.settle()
    studio.assert_in_order("class_entropy")
    cycle_of(studio.context).reconcile()  # this reconcile sees the change that our own predictions made
    studio.settle()
    cycle_of(studio.context).reconcile()
    assert "score_new" not in [job.func_name.rpartition(".")[2] for job in queue(studio.context.redis, CONTROL).jobs]


def test_each_step_of_the_loop_is_a_job() -> None:
    """rq finds a job by the name of its function, and passes the queued arguments."""
    steps = {name: step for name, step in vars(Cycle).items() if not name.startswith("_")}
    assert steps.keys() >= {"check", "retrain", "start_scoring", "score_shard", "rank_and_push", "reconcile"}
    for name, step in steps.items():
        _, *parameters = inspect.signature(step).parameters
        assert list(inspect.signature(getattr(jobs, name)).parameters) == parameters, name


def test_a_run_of_a_version_that_is_no_longer_accepted_is_ignored(context: Context, tiny_weights: Any) -> None:
    """Its shards are of no use, so the run would only end when it expires."""
    record = ProjectRecord(7, CONFIG, "", "", "", "")
    context.store.save_project(record)
    for number in (1, 2):
        assert publish(context.store, 7, tiny_weights).number == number
        assert push.is_pending(context, record)
        context.progress.start_scoring(7, number, 1, 1)
        assert not push.is_pending(context, record)


@pytest.mark.parametrize("forced", [0, 1])
def test_a_training_that_somebody_asked_for_waits_for_the_one_at_work(
    context: Context, redis: Redis, monkeypatch: pytest.MonkeyPatch, forced: int
) -> None:
    """Nobody asks for it again. A training that was due because of its labels is found by the next check."""
    monkeypatch.setattr(demands, "is_due", lambda *_: True)

    def busy(*_: Any, **__: Any) -> None:
        raise BusyError("a training of project 7 is already running")

    monkeypatch.setattr(retraining, "retrain", busy)
    with context.lock(7, "training"):
        context.progress.set_training(7, TrainingProgress("running"))
        cycle_of(context).retrain(7, forced)
        assert context.progress.training(7).state == "running"
    assert queue(redis, TRAIN).scheduled_job_registry.count == forced


@pytest.mark.label_studio
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (pool_ranking, "rank_pool"),  # before the first batch
        (PredictionImport, "run"),  # before the pointer
        (Predictions, "versions"),  # before the flip
        (Projects, "set_model_version"),  # after the flip: the write of a stalled process comes late
    ],
)
def test_a_push_that_is_overtaken_leaves_the_queue_to_the_next_version(
    studio: Studio, tiny_weights: Any, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """The push stalls until its lock has expired. The queue stays with the version that was accepted later."""
    original, pending = getattr(module, name), [True]

    def overtake() -> None:
        studio.context.redis.delete(f"lock:push:{studio.project}")  # as after its expiry
        publish(studio.context.store, studio.project, tiny_weights)
        studio.context.redis.flushall()  # as after a loss of redis
        cycle_of(studio.context).start_scoring(studio.project)
        studio.settle()

    def interrupted(*args: Any, **options: Any) -> Any:
        if pending:
            pending.pop()
            overtake()
        return original(*args, **options)

    studio.add(4, 5)
    studio.choose("margin")
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work(SCORE)
    with monkeypatch.context() as patched:
        if name == "set_model_version":
            studio.client.projects.set_model_version(studio.project, "")
        patched.setattr(module, name, interrupted)
        studio.work(CONTROL)
    assert not pending
    assert studio.client.projects.get(studio.project).model_version == "yolo11n-v2"
    serving = studio.context.store.serving(studio.project)
    assert serving is not None
    assert serving.number == 2
    studio.settle()
    held = [studio.client.predictions.of_task(task.id) for task in studio.client.tasks.unlabeled(studio.project)]
    versions = [[prediction.version for prediction in predictions] for predictions in held]
    assert [names.count("yolo11n-v2") for names in versions] == [1] * len(held)
