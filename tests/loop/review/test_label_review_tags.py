"""The label review with several control tags: each tag's model judges its labels; a task has one mark for all tags."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.cli import tables
from backend.cli.label_studio_process import LabelStudioProcess
from backend.evaluation.label_quality import SUSPECT, LabelIssue, Review, by_task
from backend.loop import cycle, project_status
from backend.loop.context import Context
from backend.loop.review import label_marks, label_review
from backend.loop.scoring import push
from backend.model_versions import TagModel
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord, Store
from backend.types import Json, Prediction
from backend.web import status_schemas
from tests.loop.review.test_label_review import ASIDE, BOTH, HERE, RIGHT, THERE, Studio, human, predicted
from tests.support import TWO_TAGS, ImageSite, open_context, publish, serve, with_model

QUALITY = '<Choices name="quality" toName="image"><Choice value="good"/><Choice value="bad"/></Choices>'
SCHEMA = TWO_TAGS.replace("</View>", QUALITY + "</View>")
TURNED = ("dog", "cat")  # the second tag's model has its classes in the other order
SECOND_PREDICTION = predicted((ASIDE, TURNED.index("cat")))
SURE_OF_GOOD = predicted(((0.0, 0.0, 100.0, 100.0), 0))
SECOND_RIGHT = human((ASIDE, "cat"), tag="second")
SWAPPED = human((HERE, "cat"), (THERE, "cat"))
# name -> labels of both tags, and the tags that are wrong
PLANTED: dict[str, tuple[tuple[Json, ...], set[str]]] = {
    "right": (RIGHT + SECOND_RIGHT, set()),
    "first": (SWAPPED + SECOND_RIGHT, {"label"}),
    "second": (RIGHT, {"second"}),
    "both": (human((HERE, "cat")), {"label", "second"}),
}


# Without Label Studio


def issue(task_id: int, score: float, tag: str) -> LabelIssue:
    return LabelIssue(task_id, task_id + 100, "then", score, "swapped", "cat", None, learned=False, tag=tag)


ISSUES = (issue(6, 0.1, "second"), issue(5, 0.2, "label"), issue(6, 0.4, "label"), issue(5, 0.9, "second"))


def test_the_verdict_on_a_task_is_the_verdict_on_its_worst_tag() -> None:
    assert by_task(ISSUES) == ISSUES[:2]
    assert by_task([]) == ()


def test_the_status_counts_tasks_and_the_table_names_tags(context: Context, tiny_weights: Path) -> None:
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    context.store.state.save_review(7, 1, Review((*ISSUES, issue(8, 0.95, "label"))))
    status = project_status.status(context, 7)
    out = status_schemas.project_out(status).label_errors
    assert (out.judged, out.suspicious) == (3, 2)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(tables.status(status), tables.label_errors(status.label_issues[:1], 3))
    shown = console.export_text()
    assert "2 of 3 labeled tasks look wrong" in shown
    assert "second" in shown


def test_a_review_of_a_release_without_tags_is_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.state.save_review(7, 1, Review(ISSUES[:1]))
    path = tmp_path / "projects/7/versions/1/label_review.json"
    old = json.loads(path.read_text())
    del old["doubts"][0]["tag"]
    path.write_text(json.dumps(old))
    assert store.state.label_issues(7, 1) == (replace(ISSUES[0], tag=""),)


def test_each_tags_model_has_its_own_learned_tasks(context: Context, tiny_weights: Path) -> None:
    second = TagModel(
        "second", "detect", TURNED, file_sha256(tiny_weights), "yolo11n.pt", None, None, {}, "", learned=(3,)
    )
    version = publish(context.store, 7, tiny_weights, train_tasks=(1, 2), others=[(second, tiny_weights)])
    assert [sorted(version.learned_task_ids(name)) for name in ("label", "second")] == [[1, 2], [3]]
    old = with_model(version, replace(second, learned=None), learned=(9,))
    assert [sorted(old.learned_task_ids(name)) for name in ("label", "second")] == [[9], [1, 2]]


# Through Label Studio


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    """A project with two tags of boxes, some of their labels wrong, and a choice that nobody has made."""
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("label errors of tags", SCHEMA)
        body = [{"image": images.add("one.png")}] * (len(PLANTED) + 1)
        client.http.send("POST", f"/api/projects/{project}/import", body)
        *ids, waiting = [task.id for task in client.tasks.unlabeled(project)]
        tasks = dict(zip(PLANTED, ids, strict=True))
        annotations = {task: client.annotations.create(task, PLANTED[name][0]) for name, task in tasks.items()}
        context.store.save_project(ProjectRecord(project, SCHEMA, "", "", "", ""))
        sha256, learned = file_sha256(tiny_weights), (tasks["first"],)
        beside = [
            TagModel("second", "detect", TURNED, sha256, "yolo11n.pt", None, None, {}, "published", learned=learned),
            TagModel("quality", "classify", ("good", "bad"), sha256, "yolo11n-cls.pt", None, None, {}, "published"),
        ]
        others = [(model, tiny_weights) for model in beside]
        publish(context.store, project, tiny_weights, train_tasks=(tasks["both"],), others=others)
        by_tag: dict[str, Prediction] = {"label": BOTH, "second": SECOND_PREDICTION, "quality": SURE_OF_GOOD}
        for tag, prediction in by_tag.items():
            shard = PoolShard(0, np.array([*tasks.values()]), (prediction,) * len(tasks))
            context.store.pools.save_shard(project, 1, shard, labeled=True, tag=tag)
            context.store.pools.save_shard(project, 1, PoolShard(0, np.array([waiting]), (prediction,)), tag=tag)
        cycle.rank_push_and_flip(context, project, 1)
        client.tabs.ensure_label_issues(project, SUSPECT)
        yield Studio(context, project, tasks, annotations, [waiting])


@pytest.mark.label_studio
def test_each_tags_labels_are_judged_by_its_own_model(studio: Studio) -> None:
    issues = label_review.examine(studio.context, studio.project)
    assert studio.context.store.state.label_issues(studio.project, 1) == issues
    assert [label_issue.score for label_issue in issues] == sorted(label_issue.score for label_issue in issues)
    names = {task: name for name, task in studio.tasks.items()}
    assert sorted((names[label_issue.task_id], label_issue.tag) for label_issue in issues) == sorted(
        (name, tag) for name in PLANTED for tag in ("label", "second")
    )
    wrong = {
        (names[label_issue.task_id], label_issue.tag): (label_issue.suspicion, label_issue.label)
        for label_issue in issues
        if label_issue.suspicious
    }
    assert wrong == {
        ("first", "label"): ("swapped", "cat"),
        ("both", "label"): ("overlooked", "dog"),
        ("second", "second"): ("overlooked", "cat"),
        ("both", "second"): ("overlooked", "cat"),
    }
    learned = {(names[label_issue.task_id], label_issue.tag) for label_issue in issues if label_issue.learned}
    assert learned == {("both", "label"), ("first", "second")}


@pytest.mark.label_studio
def test_a_choice_is_judged_if_somebody_has_made_one(studio: Studio) -> None:
    """The other tasks have no choice. With several tags that is no error."""
    right = studio.tasks["right"]
    bad = {"id": "q", "type": "choices", "from_name": "quality", "to_name": "image", "value": {"choices": ["bad"]}}
    studio.client.annotations.update(studio.annotations[right], (*PLANTED["right"][0], bad))
    (issue,) = (
        label_issue
        for label_issue in label_review.examine(studio.context, studio.project)
        if label_issue.tag == "quality"
    )
    assert (issue.task_id, issue.suspicion, issue.label, issue.suspicious) == (right, "swapped", "bad", True)
    assert studio.review() == 4
    assert "right" in studio.tab()


@pytest.mark.label_studio
def test_a_task_has_one_mark_with_the_score_of_its_worst_tag(studio: Studio) -> None:
    issues = label_review.examine(studio.context, studio.project)
    worst = [label_issue for label_issue in by_task(issues) if label_issue.suspicious]
    assert label_marks.mark(studio.context, studio.project, issues) == len(worst) == 3
    names = {task: name for name, task in studio.tasks.items()}
    assert studio.tab() == [names[label_issue.task_id] for label_issue in worst]
    for label_issue in worst:
        wrong = 1 - label_issue.score
        assert studio.marks(names[label_issue.task_id]) == [pytest.approx(wrong, abs=1e-4)]
    (stored,) = studio.client.predictions.of_task(studio.tasks["both"])
    assert {region["from_name"] for region in stored.result} == {"label", "second", "quality"}
    assert studio.review() == 0, "a second review writes nothing"


@pytest.mark.label_studio
def test_the_limit_of_marks_counts_tasks_not_verdicts(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two worst verdicts are on one task, and two tasks may be marked."""
    issues = label_review.examine(studio.context, studio.project)
    both = [label_issue for label_issue in issues if label_issue.task_id == studio.tasks["both"]]
    ordered = (*both, *(label_issue for label_issue in issues if label_issue not in both))
    monkeypatch.setattr(label_marks, "MARKED", 2)
    assert label_marks.mark(studio.context, studio.project, ordered) == 2
    assert len(studio.tab()) == 2


@pytest.mark.label_studio
def test_the_api_names_the_tag_and_a_corrected_label_removes_the_issue(studio: Studio) -> None:
    studio.review()
    with serve(studio.context) as client:
        listed = client.get(f"/api/projects/{studio.project}/label-errors").json()
        counted = client.get(f"/api/projects/{studio.project}").json()["label_errors"]
    assert counted == {"judged": 4, "suspicious": 3}
    suspicious = {(row["task"], row["tag"]) for row in listed if row["suspicious"]}
    assert suspicious == {(studio.tasks[name], tag) for name, (_, tags) in PLANTED.items() for tag in tags}
    assert not label_review.outdated(studio.context, studio.project)
    studio.client.annotations.update(studio.annotations[studio.tasks["second"]], PLANTED["right"][0])
    assert label_review.outdated(studio.context, studio.project)
    assert studio.review() == 1
    assert studio.marks("second") == [push.LAST]
    assert set(studio.tab()) == {"first", "both"}
