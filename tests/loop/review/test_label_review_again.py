"""Later reviews judge the labels that are new or changed, and keep the verdicts on the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.evaluation.label_quality import LabelIssue, Review
from backend.labelstudio.client.annotations import Annotations
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import steering
from backend.loop.context import Context
from backend.loop.review import label_review
from backend.queue.rq_queue import CONTROL, JOBS
from backend.settings import Settings
from backend.store.scored_pools import ScoredPools
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Json, Prediction
from tests.loop.review.test_label_review import ASIDE, BOTH, DOG, HERE, RIGHT, THERE, human, predicted
from tests.support import CONFIG, cycle_of, open_context, publish, sign_up

pytestmark = pytest.mark.label_studio

LABELS = 30
WRONG: tuple[tuple[Json, ...], ...] = (
    human((HERE, "cat"), (THERE, "cat")),
    human((HERE, "cat")),
    human((ASIDE, "cat"), (THERE, "dog")),
)


@dataclass(frozen=True)
class Effort:
    """The tasks whose labels were read from Label Studio, and the tasks whose predictions were read from the store."""

    labels: list[int] = field(default_factory=list)
    predictions: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Studio:
    """A project in which every task has right labels, and a version that has predicted all of them."""

    context: Context
    project: int
    tasks: list[int]
    annotations: dict[int, int]  # task id -> annotation id

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def waiting(self) -> list[tuple[str, list[int]]]:
        queue = Queue(CONTROL, connection=self.context.redis, serializer=JSONSerializer)
        delayed = [queue.fetch_job(job_id) for job_id in queue.scheduled_job_registry.get_job_ids()]
        assert {job.func_name for job in delayed if job} <= {f"{JOBS}.measure_effort"}, "a review is delayed"
        return [(job.func_name, job.args) for job in queue.jobs]

    def review_at_the_next_check(self) -> None:
        cycle_of(self.context).check(self.project)
        assert self.waiting() == [("backend.worker.jobs.review_labels", [self.project, 1])]
        Queue(CONTROL, connection=self.context.redis, serializer=JSONSerializer).empty()
        cycle_of(self.context).review_labels(self.project, 1)

    def issues(self) -> dict[int, LabelIssue]:
        return {issue.task_id: issue for issue in self.context.store.state.label_issues(self.project, 1)}

    def suspicious(self) -> set[int]:
        return {task for task, issue in self.issues().items() if issue.suspicious}

    def save_predictions(self, prediction: Prediction, tasks: Sequence[int], index: int) -> None:
        """Store the same prediction for all these labeled tasks."""
        shard = PoolShard(index, np.array(tasks), (prediction,) * len(tasks))
        self.context.store.pools.save_shard(self.project, 1, shard, labeled=True, tag="label")


def import_labels(client: LabelStudioClient, project: int, count: int) -> dict[int, int]:
    """Import tasks with right labels; return the annotation ids of all tasks by task id."""
    row = {"data": {"image": "http://images.example/1.png"}, "annotations": [{"result": list(RIGHT)}]}
    client.http.send("POST", f"/api/projects/{project}/import", [row] * count)
    return {task.task.id: task.annotation_id for task in client.annotations.annotated_tasks(project)}


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess,
    settings: Settings,
    tiny_weights: Path,
) -> Iterator[Studio]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        project = context.label_studio.projects.create("reviewed again", CONFIG)
        annotations = import_labels(context.label_studio, project, LABELS)
        context.store.save_project(ProjectRecord(project, CONFIG, '{"RETRAIN_EVERY": 100000}', "", "", ""))
        context.store.activate(project, publish(context.store, project, tiny_weights).number)
        studio = Studio(context, project, sorted(annotations), annotations)
        studio.save_predictions(BOTH, studio.tasks, 0)
        cycle_of(context).review_labels(project, 1)
        assert studio.issues().keys() == set(studio.tasks)
        assert studio.suspicious() == set()
        yield studio


@pytest.fixture
def effort(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Effort:
    """Record what a review reads."""
    effort, annotated_tasks, predictions = Effort(), Annotations.annotated_tasks, ScoredPools.predictions

    def recorded_tasks(annotations: Annotations, *args: Any) -> Iterator[AnnotatedTask]:
        for task in annotated_tasks(annotations, *args):
            effort.labels.append(task.task.id)
            yield task

    def recorded_predictions(
        pools: ScoredPools, project: int, number: int, ids: Iterable[int], *args: Any, **options: Any
    ) -> Any:
        effort.predictions.update(task_ids := list(ids))
        return predictions(pools, project, number, task_ids, *args, **options)

    monkeypatch.setattr(Annotations, "annotated_tasks", recorded_tasks)
    monkeypatch.setattr(ScoredPools, "predictions", recorded_predictions)
    return effort


@pytest.mark.parametrize("changed", [1, 9])
def test_the_next_check_starts_a_review_of_the_changed_labels_only(
    studio: Studio, effort: Effort, changed: int
) -> None:
    before, wrong = studio.issues(), studio.tasks[5 : 5 + changed]
    for number, task in enumerate(wrong):
        studio.client.annotations.update(studio.annotations[task], WRONG[number % len(WRONG)])
    studio.review_at_the_next_check()
    assert sorted(effort.labels) == wrong
    assert effort.predictions == set(wrong)
    assert studio.suspicious() == set(wrong)
    unchanged = set(studio.tasks) - set(wrong)
    assert {task: studio.issues()[task] for task in unchanged} == {task: before[task] for task in unchanged}
    scores = [issue.score for issue in studio.context.store.state.label_issues(studio.project, 1)]
    assert scores == sorted(scores)
    assert not label_review.outdated(studio.context, studio.project)


def test_it_finds_the_same_issues_as_a_review_of_all_labels(studio: Studio) -> None:
    for number, task in enumerate(studio.tasks[:6]):
        studio.client.annotations.update(studio.annotations[task], WRONG[number % len(WRONG)])
        studio.review_at_the_next_check()
    gradual = studio.context.store.state.label_issues(studio.project, 1)
    studio.context.store.state.save_review(studio.project, 1, Review())
    assert label_review.examine(studio.context, studio.project) == gradual


def test_the_verdict_on_a_deleted_label_is_removed_and_a_new_label_gets_one(studio: Studio, effort: Effort) -> None:
    deleted, relabeled = studio.tasks[:2]
    for task in (deleted, relabeled):
        studio.client.annotations.delete(studio.annotations[task])
    studio.client.annotations.create(relabeled, WRONG[0])
    studio.review_at_the_next_check()
    assert effort.labels == [relabeled]
    assert studio.issues().keys() == set(studio.tasks) - {deleted}
    assert studio.suspicious() == {relabeled}


def test_a_task_that_was_predicted_again_is_judged_again(studio: Studio, effort: Effort) -> None:
    """Its label is the same, but its prediction is new, for example because it shows another image."""
    studio.save_predictions(predicted((HERE, DOG), (THERE, DOG)), studio.tasks[:2], 1)
    studio.review_at_the_next_check()
    assert sorted(effort.labels) == studio.tasks[:2]
    assert studio.suspicious() == set(studio.tasks[:2])
    studio.save_predictions(BOTH, studio.tasks, 0)
    assert label_review.outdated(studio.context, studio.project)


def test_with_another_label_config_all_labels_are_judged_again(studio: Studio, effort: Effort) -> None:
    fewer = CONFIG.replace('<Label value="dog"/>', '<Label value="bird"/><Label value="dog"/>')
    studio.client.http.send("PATCH", f"/api/projects/{studio.project}/", {"label_config": fewer})
    studio.client.annotations.update(studio.annotations[studio.tasks[0]], WRONG[0])
    studio.review_at_the_next_check()
    assert sorted(effort.labels) == studio.tasks


def test_another_version_judges_all_labels(studio: Studio, effort: Effort, tiny_weights: Path) -> None:
    context = studio.context
    version = publish(context.store, studio.project, tiny_weights)
    shard = PoolShard(0, np.array(studio.tasks), (BOTH,) * LABELS)
    context.store.pools.save_shard(studio.project, version.number, shard, labeled=True, tag="label")
    context.store.activate(studio.project, version.number)
    cycle_of(studio.context).review_labels(studio.project, version.number)
    assert sorted(effort.labels) == studio.tasks


def test_a_label_that_somebody_called_right_stays_right_for_another_version(studio: Studio, tiny_weights: Path) -> None:
    context, project, (right, wrong) = studio.context, studio.project, studio.tasks[:2]
    studio.client.annotations.update(studio.annotations[right], WRONG[0])
    studio.review_at_the_next_check()
    steering.accept_label(context, project, right, studio.annotations[right], "label", "ann")
    number = publish(context.store, project, tiny_weights).number
    shard = PoolShard(0, np.array(studio.tasks), (BOTH,) * LABELS)
    context.store.pools.save_shard(project, number, shard, labeled=True, tag="label")
    context.store.activate(project, number)
    for expected in (set(), {wrong}):
        cycle_of(context).review_labels(project, number)
        review = context.store.state.review(project, number)
        assert review is not None
        assert {issue.task_id for issue in review.issues if issue.suspicious} == {right, *expected}, "it doubts it too"
        listed = label_review.current_issues(context, project)
        assert {issue.task_id for issue in listed if issue.suspicious} == expected
        studio.client.annotations.update(studio.annotations[wrong], WRONG[1])


def test_the_thresholds_are_measured_again_after_enough_new_labels(studio: Studio, effort: Effort) -> None:
    """There are half as many new labels as the thresholds were measured on. Then all labels are judged again."""
    unsure = replace(BOTH, confidence=np.array([0.6, 0.6], dtype=np.float32))
    new = sorted(import_labels(studio.client, studio.project, LABELS // 2).keys() - set(studio.tasks))
    studio.save_predictions(unsure, new, 1)
    studio.review_at_the_next_check()
    assert set(effort.labels) == {*studio.tasks, *new}
    review = studio.context.store.state.review(studio.project, 1)
    assert review is not None
    (thresholds,) = review.thresholds.values()
    assert thresholds.images == LABELS + len(new)
    (sure,) = thresholds.sure
    assert sure == pytest.approx((2 * 0.99 + 0.6) / 3)


def test_an_older_vote_that_is_deleted_starts_a_review(studio: Studio, label_studio: LabelStudioProcess) -> None:
    """What most people drew is then something else, although the newest annotation is as it was."""
    task, client, project = studio.tasks[0], studio.client, studio.project
    extra = '{"RETRAIN_EVERY": 100000, "CONSENSUS": "vote"}'
    studio.context.store.save_project(ProjectRecord(project, CONFIG, extra, "", "", ""))
    login = {"email": f"voter-{project}@example.com", "password": "a-second-password"}
    sign_up(client, **login)
    older = f"/api/annotations/{studio.annotations[task]}/"
    client.http.send(
        "PATCH", older, {"result": list(RIGHT[:1]), "ground_truth": False}
    )  # imported ones are ground truth
    with LabelStudioClient(label_studio.url, personal_access_token(label_studio.url, **login)) as second:
        second.annotations.create(task, list(RIGHT))
    studio.review_at_the_next_check()
    assert studio.suspicious() == {task}
    client.http.send("DELETE", older)
    studio.review_at_the_next_check()
    assert studio.suspicious() == set()
    cycle_of(studio.context).check(project)
    assert studio.waiting() == []
