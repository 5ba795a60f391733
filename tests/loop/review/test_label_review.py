"""The label review finds planted wrong labels; tested with a real Label Studio, its marks and its tab."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from rich.console import Console
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli import tables
from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.errors import NotFoundError
from backend.evaluation.label_quality import SUSPECT, LabelIssue, Review, suspicious
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LABELED, LabelStudioClient, PredictionStamp
from backend.labelstudio.client.predictions import Predictions
from backend.labelstudio.client.tabs import LABEL_ISSUES_TAB
from backend.loop import cycle, project_status, steering
from backend.loop.context import Context
from backend.loop.review import label_marks, label_review, label_verdicts
from backend.loop.scoring import late_tasks, push
from backend.queue.rq_queue import CONTROL
from backend.settings import Settings
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Json, Prediction, Task
from backend.web import status_schemas
from tests.support import CLASSES, CONFIG, ImageSite, cycle_of, open_context, publish, serve, sign_up

TAG = label_config.parse(CONFIG)[0]
HERE, THERE, ASIDE = (10.0, 20.0, 30.0, 40.0), (60.0, 60.0, 80.0, 90.0), (25.0, 35.0, 45.0, 55.0)
CAT, DOG = 0, 1


def predicted(*objects: tuple[tuple[float, float, float, float], int]) -> Prediction:
    """Return a confident prediction of an image of 200 x 100 pixels: boxes in percent, each with a class."""
    probs = np.full((len(objects), 2), 0.001, dtype=np.float32)
    probs[np.arange(len(objects)), [class_id for _, class_id in objects]] = 0.99
    boxes = np.array([box for box, _ in objects], dtype=np.float32).reshape(-1, 4)
    boxes[:, ::2] *= 2
    embedding, thumbnail = np.ones(2, dtype=np.float32), np.zeros(192, dtype=np.uint8)
    return Prediction(200, 100, boxes, probs, probs.max(axis=1, initial=0.0), embedding, thumbnail=thumbnail)


def human(*objects: tuple[tuple[float, float, float, float], str], tag: str = "label") -> tuple[Json, ...]:
    """Return the result of an annotation with one tag: boxes in percent, each with a label."""
    return tuple(
        {
            "id": f"{tag}{number}",
            "type": "rectanglelabels",
            "from_name": tag,
            "to_name": "image",
            "original_width": 200,
            "original_height": 100,
            "value": {
                "x": x1,
                "y": y1,
                "width": x2 - x1,
                "height": y2 - y1,
                "rotation": 0,
                "rectanglelabels": [label],
            },
        }
        for number, ((x1, y1, x2, y2), label) in enumerate(objects)
    )


RIGHT = human((HERE, "cat"), (THERE, "dog"))
BOTH = predicted((HERE, CAT), (THERE, DOG))
# name -> labels, the version's prediction, the suspicion and its label; the worst last
PLANTED: dict[str, tuple[tuple[Json, ...], Prediction | None, str, str]] = {
    "right": (RIGHT, BOTH, "", ""),
    "background": ((), predicted(), "", ""),
    "moved": (human((ASIDE, "cat"), (THERE, "dog")), BOTH, "misplaced", "cat"),
    "swapped": (human((HERE, "cat"), (THERE, "cat")), BOTH, "swapped", "cat"),
    "missing": (human((HERE, "cat")), BOTH, "overlooked", "dog"),
    "nothing": ((), BOTH, "overlooked", "cat"),
}
WRONG = [name for name, (_, _, suspicion, _) in PLANTED.items() if suspicion]


# One task's labels beside its predictions


def annotated(result: Sequence[Json]) -> AnnotatedTask:
    return AnnotatedTask(Task(5, {}), 50, "2026-01-01", tuple(result))


def test_a_pair_is_in_percent() -> None:
    pair = label_verdicts.labels_and_predictions(TAG, CLASSES, annotated(RIGHT), BOTH)
    assert pair is not None
    assert pair.labels == pytest.approx(np.array([HERE, THERE]))
    assert pair.predictions == pytest.approx(np.array([HERE, THERE]))
    assert (pair.label_classes.tolist(), pair.predicted_classes.tolist()) == ([CAT, DOG], [CAT, DOG])


def test_a_pair_of_nothing() -> None:
    pair = label_verdicts.labels_and_predictions(TAG, CLASSES, annotated([]), predicted())
    assert pair is not None
    assert (pair.labels.shape, pair.predictions.shape, pair.confidence.shape) == ((0, 4), (0, 4), (0,))


def test_a_label_of_a_class_that_the_model_lacks_is_not_judged() -> None:
    assert label_verdicts.labels_and_predictions(TAG, ("cat",), annotated(RIGHT), predicted((HERE, CAT))) is None


def test_predictions_of_a_removed_label_are_left_out() -> None:
    only_cats = label_config.parse(CONFIG.replace('<Label value="dog"/>', ""))[0]
    pair = label_verdicts.labels_and_predictions(only_cats, CLASSES, annotated(RIGHT), BOTH)
    assert pair is not None
    assert (len(pair.labels), pair.predicted_classes.tolist()) == (1, [CAT])


def test_a_result_of_another_label_config_or_another_image_is_not_judged() -> None:
    """Otherwise each prediction would look like an object that the annotator overlooked."""
    imported = human((HERE, "cat"), tag="bbox")
    turned = [item | {"original_width": 100, "original_height": 200} for item in human((HERE, "cat"))]
    for result in (imported, turned):
        assert label_verdicts.labels_and_predictions(TAG, CLASSES, annotated(result), BOTH) is None


def test_semantic_regions_of_one_class_are_one_label() -> None:
    """The model predicts one object for both regions. Beside one of them alone, it would look misplaced."""
    pixels = replace(TAG, task="semantic")
    pair = label_verdicts.labels_and_predictions(
        pixels, CLASSES, annotated(human((HERE, "cat"), (THERE, "cat"), (ASIDE, "dog"))), BOTH
    )
    assert pair is not None
    assert pair.labels == pytest.approx(np.array([(10, 20, 80, 90), ASIDE]))
    assert pair.label_classes.tolist() == [CAT, DOG]
    nothing = label_verdicts.labels_and_predictions(pixels, CLASSES, annotated([]), BOTH)
    assert nothing is not None
    assert nothing.labels.shape == (0, 4)


# Without Label Studio


def issue(task_id: int, score: float) -> LabelIssue:
    return LabelIssue(task_id, task_id + 100, "then", score, "swapped", "cat", (1.0, 2.0, 3.5, 4.0), learned=True)


@pytest.fixture
def reviewed(context: Context, tiny_weights: Path) -> Context:
    """Project 7, whose version 1 has found an issue in one of two labels."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    context.store.state.save_review(7, 1, Review((issue(5, 0.2), issue(6, 0.9))))
    return context


def test_the_store_returns_the_saved_issues(reviewed: Context) -> None:
    assert reviewed.store.state.label_issues(7, 1) == (issue(5, 0.2), issue(6, 0.9))
    assert reviewed.store.state.label_issues(7, 2) == ()


def test_the_status_counts_the_issues(reviewed: Context) -> None:
    status = project_status.status(reviewed, 7)
    out = status_schemas.project_out(status).label_errors
    assert (out.judged, out.suspicious) == (2, 1)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(tables.status(status), tables.label_errors(suspicious(status.label_issues), 2))
    shown = console.export_text()
    assert "1 of 2 labeled tasks look wrong" in shown
    assert "1, 2, 4, 4" in shown
    assert tables.label_errors(suspicious([issue(6, 0.9)]), 1) == "no label looks wrong; reviewed tasks: 1"


def test_an_unknown_project_is_named(context: Context) -> None:
    with pytest.raises(NotFoundError, match="project 9 was never set up"):
        label_review.current_issues(context, 9)
    with serve(context) as client:
        answer = client.get("/api/projects/9/label-errors")
        assert (answer.status_code, answer.json()["error"]) == (404, "project 9 was never set up")


def test_before_the_first_review_no_request_is_sent_to_label_studio(context: Context) -> None:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    assert label_review.current_issues(context, 7) == ()
    assert not label_review.outdated(context, 7)


@pytest.mark.parametrize(("serving", "number"), [(1, 2), (1, 0), (0, 0)])
def test_a_review_by_the_base_model_or_by_a_version_that_no_longer_serves_does_nothing(
    reviewed: Context, serving: int, number: int
) -> None:
    reviewed.store.activate(7, serving)
    cycle_of(reviewed).review_labels(7, number)  # it would fail without Label Studio
    assert reviewed.store.state.label_issues(7, number) == ()


def test_a_review_waits_while_predictions_are_pushed(reviewed: Context, redis: Redis) -> None:
    with reviewed.lock(7, "push"):
        cycle_of(reviewed).review_labels(7, 1)
    waiting = Queue(CONTROL, connection=redis, serializer=JSONSerializer).scheduled_job_registry
    assert waiting.count == 1


# Through Label Studio


@dataclass(frozen=True)
class Studio:
    """A project with planted errors, three unlabeled tasks in its queue, and a task whose image failed."""

    context: Context
    project: int
    tasks: dict[str, int]  # name of PLANTED -> task id
    annotations: dict[int, int]  # task id -> annotation id
    queue: list[int]  # ids of the unlabeled tasks, the next one first

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def review(self) -> int:
        return label_marks.mark(self.context, self.project, label_review.examine(self.context, self.project))

    def marks(self, name: str) -> list[float]:
        """Return the scores of a task's predictions."""
        predictions = self.client.predictions.of_task(self.tasks[name])
        assert all(prediction.version == "yolo11n-v1" for prediction in predictions)
        return [round(prediction.score or 0, 4) for prediction in predictions]

    def tab(self) -> list[str]:
        """Return the names of the tasks in the Data Manager's tab, in its order."""
        views = self.client.http.get("/api/dm/views/", project=self.project)
        view_id = next(view["id"] for view in views if view["data"]["title"] == LABEL_ISSUES_TAB)
        listed = self.client.http.get("/api/tasks", view=view_id, include="id")["tasks"]
        names = {task: name for name, task in self.tasks.items()}
        return [names[task["id"]] for task in listed]


@pytest.fixture
def studio(
    request: pytest.FixtureRequest, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    process = request.getfixturevalue(getattr(request, "param", "label_studio"))
    keys = {"label_studio_url": process.url, "label_studio_api_key": process.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("label errors", CONFIG)
        url = images.add("one.png")
        body = [{"image": url}] * (len(PLANTED) + 4)
        client.http.send("POST", f"/api/projects/{project}/import", body)
        ids = [task.id for task in client.tasks.unlabeled(project)]
        tasks, failed, queue = dict(zip(PLANTED, ids, strict=False)), ids[len(PLANTED)], ids[len(PLANTED) + 1 :]
        annotations = {task: client.annotations.create(task, PLANTED[name][0]) for name, task in tasks.items()}
        client.annotations.create(failed, RIGHT)
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        learned = (tasks["right"], tasks["swapped"])
        publish(context.store, project, tiny_weights, train_tasks=learned)
        pool = PoolShard(0, np.array(queue), (BOTH,) * len(queue))
        context.store.pools.save_shard(project, 1, pool, tag="label")
        predictions = [*(PLANTED[name][1] for name in tasks), None]
        labeled = PoolShard(1, np.array([*tasks.values(), failed]), tuple(predictions))
        context.store.pools.save_shard(project, 1, labeled, labeled=True, tag="label")
        cycle.rank_push_and_flip(context, project, 1)
        client.projects.set_sampling(project)
        client.tabs.ensure_label_issues(project, SUSPECT)
        order = context.store.pools.ranking(project, 1)
        assert order is not None
        yield Studio(context, project, tasks, annotations, order.task_ids[np.argsort(order.priority)].tolist())


@pytest.mark.label_studio
@pytest.mark.parametrize("studio", ["label_studio", "validating_label_studio"], indirect=True)
def test_planted_errors_are_found_and_marked_and_the_tab_lists_them_worst_first(studio: Studio) -> None:
    issues = label_review.examine(studio.context, studio.project)
    assert studio.context.store.state.label_issues(studio.project, 1) == issues
    names = {task: name for name, task in studio.tasks.items()}
    assert {names[issue.task_id] for issue in issues} == set(PLANTED), "all are judged, but for the failed image"
    for issue in issues:
        _, _, suspicion, label = PLANTED[names[issue.task_id]]
        assert (issue.suspicion, issue.label) == (suspicion, label)
        assert issue.suspicious is bool(suspicion)
        assert (issue.score > 0.99) is not issue.suspicious
        assert issue.learned is (names[issue.task_id] in ("right", "swapped"))
    worst_first = [names[issue.task_id] for issue in issues if issue.suspicious]
    assert label_marks.mark(studio.context, studio.project, issues) == len(WRONG)
    assert studio.tab() == worst_first
    for issue in issues:
        marks, wrong = studio.marks(names[issue.task_id]), 1 - issue.score
        assert marks == ([pytest.approx(wrong, abs=1e-4)] if issue.suspicious else [])
    (stored,) = studio.client.predictions.of_task(studio.tasks["missing"])
    assert [region["value"]["rectanglelabels"] for region in stored.result] == [["cat"], ["dog"]]
    assert studio.review() == 0, "a second review writes nothing"
    assert studio.client.predictions.of_task(studio.tasks["missing"]) == [stored]


@pytest.mark.label_studio
def test_an_accepted_label_is_listed_nowhere_until_its_annotation_changes(
    studio: Studio, tiny_weights: Path, redis: Redis
) -> None:
    context, project = studio.context, studio.project
    studio.review()
    worst = label_review.current_issues(context, project)[0]
    name = studio.tab()[0]
    assert studio.tasks[name] == worst.task_id
    accepted = steering.accept_label(context, project, worst.task_id, worst.annotation_id, "label", "ann")
    assert accepted == worst
    waiting = Queue(CONTROL, connection=redis, serializer=JSONSerializer).jobs
    assert [job.func_name.rpartition(".")[2] for job in waiting] == ["review_labels"]
    cycle_of(context).review_labels(project, 1)
    assert name not in studio.tab()
    assert worst.task_id not in {issue.task_id for issue in suspicious(label_review.current_issues(context, project))}
    assert status_schemas.project_out(project_status.status(context, project)).label_errors.judged == len(PLANTED)
    (entry,) = context.store.journal.entries(project)
    assert (entry.who, entry.action) == ("ann", "accept label")
    with pytest.raises(NotFoundError, match=f"no label of annotation {worst.annotation_id} on task .* looks wrong now"):
        steering.accept_label(context, project, worst.task_id, worst.annotation_id, "label", "ann")

    publish(context.store, project, tiny_weights)
    context.store.state.save_review(project, 2, Review(issues=(worst,), reviewed={}))
    assert not suspicious(context.store.state.label_issues(project, 2)), "it stays accepted over versions"

    studio.client.annotations.update(worst.annotation_id, list(PLANTED[name][0]))
    assert studio.review() > 0
    assert name in studio.tab()


@pytest.mark.label_studio
@pytest.mark.parametrize("change", [{"task": 10**9}, {"annotation": 10**9}, {"tag": "second"}, {"tag": "x" * 500}])
def test_a_label_that_does_not_look_wrong_cannot_be_accepted(studio: Studio, change: dict[str, Any]) -> None:
    studio.review()
    worst = label_review.current_issues(studio.context, studio.project)[0]
    named: dict[str, Any] = {"task": worst.task_id, "annotation": worst.annotation_id, "tag": "label"} | change
    with pytest.raises(NotFoundError, match="looks wrong now"):
        steering.accept_label(
            studio.context, studio.project, named["task"], named["annotation"], named["tag"], who="ann"
        )
    assert studio.context.store.steering.accepted_labels(studio.project) == frozenset()


@pytest.mark.label_studio
def test_a_corrected_label_is_no_longer_marked(studio: Studio, redis: Redis) -> None:
    """Its issue is dropped at once. The next check starts a review, and the task leaves the tab."""
    context, project = studio.context, studio.project
    studio.review()
    assert not label_review.outdated(context, project)
    studio.client.annotations.update(studio.annotations[studio.tasks["swapped"]], RIGHT)
    current = {issue.task_id for issue in label_review.current_issues(context, project)}
    assert current == set(studio.tasks.values()) - {studio.tasks["swapped"]}
    cycle_of(context).check(project)
    waiting = Queue(CONTROL, connection=redis, serializer=JSONSerializer).jobs
    assert [(job.func_name, job.args) for job in waiting] == [("backend.worker.jobs.review_labels", [project, 1])]
    cycle_of(context).review_labels(project, 1)
    assert studio.marks("swapped") == [push.LAST]
    assert set(studio.tab()) == set(WRONG) - {"swapped"}
    assert len(label_review.current_issues(context, project)) == len(PLANTED)


@pytest.mark.label_studio
@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_mark_that_somebody_deletes_or_changes_is_written_again(studio: Studio, damage: str) -> None:
    studio.review()
    assert not label_marks.are_missing(studio.context, studio.project)
    (mark,) = studio.client.predictions.of_task(studio.tasks["swapped"])
    if damage == "deleted":
        studio.client.predictions.delete(mark.id)
    else:
        studio.client.http.send("PATCH", f"/api/predictions/{mark.id}/", {"score": 0.01})
    assert label_marks.are_missing(studio.context, studio.project)
    assert studio.review() == 1
    assert not label_marks.are_missing(studio.context, studio.project)
    (restored,) = studio.client.predictions.of_task(studio.tasks["swapped"])
    assert restored.result == mark.result
    assert restored.score == pytest.approx(mark.score)


@pytest.mark.label_studio
def test_a_task_whose_wrong_labels_are_deleted_is_back_in_the_queue_and_never_at_its_front(studio: Studio) -> None:
    """The webhook has not been handled yet: the mark is still there, and the queue starts with the same task."""
    studio.review()
    for name in WRONG:
        studio.client.annotations.delete(studio.annotations[studio.tasks[name]])
    first = studio.client.tasks.next(studio.project)
    assert first is not None
    assert first.id == studio.queue[0]
    assert late_tasks.score_new(studio.context, studio.project) == len(WRONG)
    for name in WRONG:
        (score,) = studio.marks(name)
        assert 0 <= score <= 1
    assert studio.tab() == []
    assert late_tasks.score_new(studio.context, studio.project) == 0
    assert studio.review() == 0
    assert set(studio.context.store.state.label_issues(studio.project, 1)) == set(
        label_review.current_issues(studio.context, studio.project)
    )


@pytest.mark.label_studio
def test_a_task_that_lost_its_mark_gets_a_place_once_its_labels_are_deleted(studio: Studio) -> None:
    """It was never ranked. Without a place it would stay at the end of the queue until the next version."""
    studio.review()
    annotation = studio.annotations[studio.tasks["swapped"]]
    studio.client.annotations.update(annotation, RIGHT)
    assert studio.review() == 1
    assert studio.review() == 0
    assert studio.marks("swapped") == [push.LAST]
    studio.client.annotations.delete(annotation)
    assert late_tasks.score_new(studio.context, studio.project) == 1
    order = studio.context.store.pools.ranking(studio.project, 1)
    assert order is not None
    assert studio.tasks["swapped"] in order.task_ids
    assert late_tasks.score_new(studio.context, studio.project) == 0


@pytest.mark.label_studio
def test_a_colleagues_queue_starts_with_the_same_task(studio: Studio, label_studio: LabelStudioProcess) -> None:
    """A labeled task is not handed out, whatever its score."""
    studio.review()
    login = {"email": "reviewer@example.com", "password": "another-password"}
    sign_up(studio.client, **login)
    with LabelStudioClient(label_studio.url, personal_access_token(label_studio.url, **login)) as colleague:
        handed = []
        while (task := colleague.tasks.next(studio.project)) is not None:
            handed.append(task.id)
            colleague.annotations.create(task.id, [])
    assert handed == studio.queue


@pytest.mark.label_studio
def test_a_task_labeled_after_the_scoring_is_judged_by_its_prediction_in_the_pool(studio: Studio) -> None:
    """Label Studio has its prediction already, with a place in the queue. This prediction becomes the mark."""
    task = studio.queue[0]
    studio.client.annotations.create(task, PLANTED["nothing"][0])
    assert studio.review() == len(WRONG) + 1
    (stored,) = studio.client.predictions.of_task(task)
    assert (stored.score or 0) > 0.5


@pytest.mark.label_studio
def test_a_label_that_is_deleted_between_the_verdict_and_the_mark_gets_no_mark(studio: Studio) -> None:
    """Its task is in the queue and has a prediction there. The list of labeled tasks does not show this prediction."""
    task = studio.queue[0]
    annotation = studio.client.annotations.create(task, PLANTED["nothing"][0])
    issues = label_review.examine(studio.context, studio.project)
    assert task in {issue.task_id for issue in issues}
    before = studio.client.predictions.of_task(task)
    studio.client.annotations.delete(annotation)
    assert label_marks.mark(studio.context, studio.project, issues) == len(WRONG)
    assert studio.client.predictions.of_task(task) == before


@pytest.mark.label_studio
def test_a_mark_never_becomes_a_second_prediction(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio's list of labeled tasks may lack tasks while people label; here it is empty."""
    task = studio.queue[0]
    studio.client.annotations.create(task, PLANTED["nothing"][0])
    issues = label_review.examine(studio.context, studio.project)
    original = Predictions.stamps

    def none_labeled(predictions: Predictions, *args: Any, **options: Any) -> Iterator[PredictionStamp]:
        return iter(()) if LABELED in args else original(predictions, *args, **options)

    monkeypatch.setattr(Predictions, "stamps", none_labeled)
    label_marks.mark(studio.context, studio.project, issues)
    (stored,) = studio.client.predictions.of_task(task)
    assert (stored.score or 0) > 0.5


@pytest.mark.label_studio
def test_only_the_worst_are_marked(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.review()
    monkeypatch.setattr(label_marks, "MARKED", 2)
    assert studio.review() == len(WRONG) - 2, "the other marks are removed"
    assert len(studio.tab()) == 2


@pytest.mark.label_studio
def test_without_a_version_or_a_prediction_there_are_no_issues(studio: Studio) -> None:
    studio.context.store.pools.clear(studio.project, 1)
    assert label_review.examine(studio.context, studio.project) == ()
    assert studio.review() == 0
    studio.context.store.activate(studio.project, 0)
    assert label_review.examine(studio.context, studio.project) == ()


@pytest.mark.label_studio
def test_the_api_lists_the_worst_issues_first_and_the_tab_is_made_once(studio: Studio) -> None:
    studio.review()
    assert not studio.client.tabs.ensure_label_issues(studio.project, SUSPECT)
    with serve(studio.context) as client:
        listed = client.get(f"/api/projects/{studio.project}/label-errors").json()
        counted = client.get(f"/api/projects/{studio.project}").json()["label_errors"]
    assert counted == {"judged": len(PLANTED), "suspicious": len(WRONG)}
    assert [row["score"] for row in listed] == sorted(row["score"] for row in listed)
    missing = next(row for row in listed if row["task"] == studio.tasks["missing"])
    assert (missing["suspicion"], missing["label"], missing["suspicious"]) == ("overlooked", "dog", True)
    assert missing["box"] == pytest.approx(THERE)
    assert missing["annotation"] == studio.annotations[studio.tasks["missing"]]


SWAPPED, MISSING, MOVED = (PLANTED[name][0] for name in ("swapped", "missing", "moved"))


@pytest.mark.label_studio
def test_labels_made_wrong_after_a_review_are_found_at_the_next_check(studio: Studio, redis: Redis) -> None:
    """Nine labels were right at the review, and one is new. The check finds the same issues as a full review."""
    context, project, client = studio.context, studio.project, studio.client
    client.http.send("POST", f"/api/projects/{project}/import", [{"image": "http://images.example/1.png"}] * 9)
    tasks = sorted(task.id for task in client.tasks.unlabeled(project))[-9:]
    annotations = [client.annotations.create(task, RIGHT) for task in tasks]
    context.store.pools.save_shard(project, 1, PoolShard(2, np.array(tasks), (BOTH,) * 9), labeled=True, tag="label")
    cycle_of(context).review_labels(project, 1)
    assert not {issue.task_id for issue in context.store.state.label_issues(project, 1) if issue.suspicious} & set(
        tasks
    )
    assert not label_review.outdated(context, project)
    for annotation, result in zip(annotations, [SWAPPED, MISSING, MOVED] * 3, strict=True):
        client.annotations.update(annotation, result)
    client.annotations.create(studio.queue[0], SWAPPED)
    cycle_of(context).check(project)
    waiting = Queue(CONTROL, connection=redis, serializer=JSONSerializer).jobs
    assert [(job.func_name, job.args) for job in waiting] == [("backend.worker.jobs.review_labels", [project, 1])]
    cycle_of(context).review_labels(project, 1)
    suspicious = {issue.task_id for issue in context.store.state.label_issues(project, 1) if issue.suspicious}
    assert suspicious >= {*tasks, studio.queue[0]}
    assert suspicious == {issue.task_id for issue in label_review.examine(context, project) if issue.suspicious}
    assert not label_review.outdated(context, project)
