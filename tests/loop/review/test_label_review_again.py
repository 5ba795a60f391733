"""A review after the first judges the labels that are new or changed, and keeps the verdicts on the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli.label_studio_process import LabelStudioProcess
from backend.evaluation.label_quality import LabelIssue, Review
from backend.labelstudio.client.annotations import Annotations
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from backend.loop.review import label_review
from backend.queue.rq_queue import CONTROL
from backend.settings import Settings
from backend.store.scored_pools import ScoredPools
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Json, Prediction
from tests.loop.review.test_label_review import ASIDE, BOTH, DOG, HERE, RIGHT, THERE, human, seen
from tests.support import CONFIG, cycle_of, open_context, publish

pytestmark = pytest.mark.label_studio

LABELS = 30
WRONG: tuple[tuple[Json, ...], ...] = (
    human((HERE, "cat"), (THERE, "cat")),
    human((HERE, "cat")),
    human((ASIDE, "cat"), (THERE, "dog")),
)


@dataclass(frozen=True)
class Effort:
    """Which tasks' labels were read from Label Studio, and of which the store was asked for predictions."""

    read: list[int] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Studio:
    """A project in which every task has right labels, and a version that has been asked about all of them."""

    context: Context
    project: int
    tasks: list[int]
    annotations: dict[int, int]  # by task

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def waiting(self) -> list[tuple[str, list[int]]]:
        found = Queue(CONTROL, connection=self.context.redis, serializer=JSONSerializer)
        assert found.scheduled_job_registry.count == 0, "no review waits for its time"
        return [(job.func_name, job.args) for job in found.jobs]

    def review_at_the_next_check(self) -> None:
        cycle_of(self.context).check(self.project)
        assert self.waiting() == [("backend.worker.jobs.review_labels", [self.project, 1])]
        Queue(CONTROL, connection=self.context.redis, serializer=JSONSerializer).empty()
        cycle_of(self.context).review_labels(self.project, 1)

    def issues(self) -> dict[int, LabelIssue]:
        return {issue.task_id: issue for issue in self.context.store.state.label_issues(self.project, 1)}

    def suspicious(self) -> set[int]:
        return {task for task, issue in self.issues().items() if issue.suspicious}

    def is_true(self, prediction: Prediction, tasks: Sequence[int], index: int) -> None:
        """Let the version say this of labeled tasks."""
        shard = PoolShard(index, np.array(tasks), (prediction,) * len(tasks))
        self.context.store.pools.save_shard(self.project, 1, shard, labeled=True, tag="label")


def import_labels(client: LabelStudioClient, project: int, count: int) -> dict[int, int]:
    """Import tasks with right labels; return their annotations by task."""
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
        found = Studio(context, project, sorted(annotations), annotations)
        found.is_true(BOTH, found.tasks, 0)
        cycle_of(context).review_labels(project, 1)
        assert found.issues().keys() == set(found.tasks)
        assert found.suspicious() == set()
        yield found


@pytest.fixture
def effort(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Effort:
    """Write down what a review reads."""
    effort, read, predictions = Effort(), Annotations.annotated_tasks, ScoredPools.predictions

    def labels(annotations: Annotations, *args: Any) -> Iterator[AnnotatedTask]:
        for task in read(annotations, *args):
            effort.read.append(task.task.id)
            yield task

    def said(pools: ScoredPools, project: int, number: int, ids: Iterable[int], *args: Any, **options: Any) -> Any:
        effort.asked.update(wanted := list(ids))
        return predictions(pools, project, number, wanted, *args, **options)

    monkeypatch.setattr(Annotations, "annotated_tasks", labels)
    monkeypatch.setattr(ScoredPools, "predictions", said)
    return effort


@pytest.mark.parametrize("changed", [1, 9])
def test_the_next_check_has_the_changed_labels_judged_and_no_others(
    studio: Studio, effort: Effort, changed: int
) -> None:
    before, wrong = studio.issues(), studio.tasks[5 : 5 + changed]
    for number, task in enumerate(wrong):
        studio.client.annotations.update(studio.annotations[task], WRONG[number % len(WRONG)])
    studio.review_at_the_next_check()
    assert sorted(effort.read) == wrong
    assert effort.asked == set(wrong)
    assert studio.suspicious() == set(wrong)
    kept = set(studio.tasks) - set(wrong)
    assert {task: studio.issues()[task] for task in kept} == {task: before[task] for task in kept}
    scores = [issue.score for issue in studio.context.store.state.label_issues(studio.project, 1)]
    assert scores == sorted(scores)
    assert not label_review.outdated(studio.context, studio.project)


def test_what_it_finds_is_what_a_review_of_all_labels_finds(studio: Studio) -> None:
    for number, task in enumerate(studio.tasks[:6]):
        studio.client.annotations.update(studio.annotations[task], WRONG[number % len(WRONG)])
        studio.review_at_the_next_check()
    gradual = studio.context.store.state.label_issues(studio.project, 1)
    studio.context.store.state.save_review(studio.project, 1, Review())
    assert label_review.examine(studio.context, studio.project) == gradual


def test_a_deleted_label_takes_its_verdict_along_and_a_new_one_gets_its_own(studio: Studio, effort: Effort) -> None:
    gone, again = studio.tasks[:2]
    for task in (gone, again):
        studio.client.annotations.delete(studio.annotations[task])
    studio.client.annotations.create(again, WRONG[0])
    studio.review_at_the_next_check()
    assert effort.read == [again]
    assert studio.issues().keys() == set(studio.tasks) - {gone}
    assert studio.suspicious() == {again}


def test_a_task_of_which_the_version_says_something_else_now_is_judged_anew(studio: Studio, effort: Effort) -> None:
    """Its label is the old one; the image it is on is another, or the version was asked anew."""
    studio.is_true(seen((HERE, DOG), (THERE, DOG)), studio.tasks[:2], 1)
    studio.review_at_the_next_check()
    assert sorted(effort.read) == studio.tasks[:2]
    assert studio.suspicious() == set(studio.tasks[:2])
    studio.is_true(BOTH, studio.tasks, 0)
    assert label_review.outdated(studio.context, studio.project)


def test_another_label_config_has_all_of_them_judged(studio: Studio, effort: Effort) -> None:
    fewer = CONFIG.replace('<Label value="dog"/>', '<Label value="bird"/><Label value="dog"/>')
    studio.client.http.send("PATCH", f"/api/projects/{studio.project}/", {"label_config": fewer})
    studio.client.annotations.update(studio.annotations[studio.tasks[0]], WRONG[0])
    studio.review_at_the_next_check()
    assert sorted(effort.read) == studio.tasks


def test_another_version_judges_all_of_them(studio: Studio, effort: Effort, tiny_weights: Path) -> None:
    context = studio.context
    version = publish(context.store, studio.project, tiny_weights)
    shard = PoolShard(0, np.array(studio.tasks), (BOTH,) * LABELS)
    context.store.pools.save_shard(studio.project, version.number, shard, labeled=True, tag="label")
    context.store.activate(studio.project, version.number)
    cycle_of(studio.context).review_labels(studio.project, version.number)
    assert sorted(effort.read) == studio.tasks


def test_how_sure_the_version_is_where_labels_agree_is_measured_anew_as_labels_come(
    studio: Studio, effort: Effort
) -> None:
    """Half as many new verdicts as it was measured on: then all labels are judged by what is true of them today."""
    unsure = replace(BOTH, confidence=np.array([0.6, 0.6], dtype=np.float32))
    new = sorted(import_labels(studio.client, studio.project, LABELS // 2).keys() - set(studio.tasks))
    studio.is_true(unsure, new, 1)
    studio.review_at_the_next_check()
    assert set(effort.read) == {*studio.tasks, *new}
    review = studio.context.store.state.review(studio.project, 1)
    assert review is not None
    (thresholds,) = review.thresholds.values()
    assert thresholds.images == LABELS + len(new)
    (sure,) = thresholds.sure
    assert sure == pytest.approx((2 * 0.99 + 0.6) / 3)
