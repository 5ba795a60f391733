"""The label review of choices, by the newest version that had not learned from the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.evaluation.label_quality import LabelIssue
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.review import label_verdicts
from backend.loop.served_models import ServedModel
from backend.model_versions import ModelVersion, TagModel
from backend.storage import file_sha256
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Json, Prediction, Task
from tests.support import CONFIG, publish

GOOD, BAD = (0.9, 0.1), (0.1, 0.9)
LABELS = ("good", "bad")
TAXONOMY = '<Taxonomy name="quality" toName="image" {}><Choice value="good"/><Choice value="bad"/></Taxonomy>'
CHOICES = TAXONOMY.replace("Taxonomy", "Choices")


def schema(control: str) -> str:
    return CONFIG.replace("</View>", control + "</View>")


SINGLE, MULTIPLE = schema(CHOICES.format("")), schema(CHOICES.format('choice="multiple"'))


def predicted(probs: tuple[float, ...]) -> Prediction:
    """Return the prediction of an image with these class probabilities."""
    table = np.array([probs], dtype=np.float32)
    box, thumbnail = np.array([[0, 0, 40, 30]], dtype=np.float32), np.zeros(192, dtype=np.uint8)
    return Prediction(40, 30, box, table, table.max(axis=1), np.ones(2, dtype=np.float32), thumbnail=thumbnail)


def annotated(task_id: int, chosen: Sequence[object], kind: str = "choices") -> AnnotatedTask:
    """Return a task with these choices; without a choice its result is empty."""
    choice: Json = {"id": "q", "type": kind, "from_name": "quality", "to_name": "image", "value": {kind: chosen}}
    return AnnotatedTask(Task(task_id, {}), task_id * 10, "then", (choice,) if chosen else ())


def version(
    context: Context,
    weights: Path,
    probs: Mapping[int, tuple[float, ...]],
    learned: Sequence[int],
    classes: tuple[str, ...] = LABELS,
) -> ModelVersion:
    """Publish a version with these stored class probabilities by task id, that has learned from `learned`."""
    quality = TagModel("quality", "classify", classes, file_sha256(weights), "a.pt", None, None, {}, "published")
    quality = replace(quality, learned=tuple(learned))
    published = publish(context.store, 7, weights, others=[(quality, weights)])
    shard = PoolShard(0, np.array([*probs]), tuple(map(predicted, probs.values())))
    context.store.pools.save_shard(7, published.number, shard, labeled=True, tag="quality")
    return published


def review(
    context: Context, config: str, now: ModelVersion, tasks: Sequence[AnnotatedTask], *, alone: bool = False
) -> dict[int, LabelIssue]:
    """Return the verdicts on choices by task id."""
    context.store.save_project(ProjectRecord(7, config, "", "", "", ""))
    tag = label_config.parse(config)[1]
    model = ServedModel(7, now.number, now.name, LABELS, None, 1.0, None, 64, "cpu", tag, "quality")
    issues = label_verdicts.judge(context, now, model, {task.task.id: task for task in tasks}, alone=alone).issues
    return {issue.task_id: issue for issue in issues}


def suspicions(issues: Mapping[int, LabelIssue]) -> dict[int, tuple[str, str, float]]:
    """Return the suspicion, label and score of each suspicious task, by task id."""
    return {
        task: (issue.suspicion, issue.label, round(issue.score, 4))
        for task, issue in issues.items()
        if issue.suspicious
    }


@pytest.mark.parametrize(
    ("control", "kind", "wrong"),
    [
        (CHOICES.format(""), "choices", "swapped"),
        (CHOICES.format('choice="multiple"'), "choices", "mistaken"),
        (TAXONOMY.format('maxUsages="1"'), "taxonomy", "swapped"),
        (TAXONOMY.format(""), "taxonomy", "mistaken"),
    ],
)
def test_a_wrong_choice_among_right_ones(
    context: Context, tiny_weights: Path, control: str, kind: str, wrong: str
) -> None:
    """Task 3 is labeled good, but looks as bad as tasks 4 and 5."""
    now = version(context, tiny_weights, {1: GOOD, 2: GOOD, 3: (0.05, 0.95), 4: BAD, 5: BAD}, learned=())
    chosen = {1: "good", 2: "good", 3: "good", 4: "bad", 5: "bad"}
    spelled = {task: [[label]] if kind == "taxonomy" else [label] for task, label in chosen.items()}
    issues = review(context, schema(control), now, [annotated(task, label, kind) for task, label in spelled.items()])
    assert issues.keys() == chosen.keys()
    assert suspicions(issues) == {3: (wrong, "good", 0.1)}
    assert issues[3].box == (0.0, 0.0, 100.0, 100.0)
    assert issues[1] == LabelIssue(1, 10, "then", 1.0, "", "", None, learned=False, tag="quality")


def test_a_multiple_choice_may_lack_a_label(context: Context, tiny_weights: Path) -> None:
    probs = {1: (0.9, 0.9), 2: (0.9, 0.05), 3: (0.95, 0.95), 4: (0.1, 0.1)}
    chosen: dict[int, list[str]] = {1: ["good", "bad"], 2: ["good"], 3: ["good"], 4: ["bad"]}
    now = version(context, tiny_weights, probs, learned=())
    issues = review(context, MULTIPLE, now, [annotated(task, labels) for task, labels in chosen.items()])
    assert suspicions(issues)[3] == ("overlooked", "bad", 0.1)
    assert suspicions(issues)[4][:2] == ("mistaken", "bad")
    assert suspicions(issues).keys() == {3, 4}


@pytest.mark.parametrize(("alone", "judged"), [(True, {1, 2, 3}), (False, {1, 2})])
def test_with_several_tags_a_missing_choice_is_no_error(
    context: Context, tiny_weights: Path, alone: bool, judged: set[int]
) -> None:
    now = version(context, tiny_weights, {1: GOOD, 2: BAD, 3: GOOD}, learned=())
    tasks = [annotated(1, ["good"]), annotated(2, ["bad"]), annotated(3, [])]
    issues = review(context, SINGLE, now, tasks, alone=alone)
    assert issues.keys() == judged
    assert suspicions(issues) == ({3: ("overlooked", "good", 0.1)} if alone else {})


def test_a_version_that_has_learned_the_error_does_not_judge(context: Context, tiny_weights: Path) -> None:
    """Version 2 agrees with all labels that it has learned. Version 1 has not learned from task 3, neither from 4."""
    tasks = [annotated(task, ["good" if task < 4 else "bad"]) for task in (1, 2, 3, 4)]
    memorised = {task: GOOD if task < 4 else BAD for task in (1, 2, 3, 4)}
    first = version(context, tiny_weights, {2: GOOD, 3: BAD, 4: BAD}, learned=[1])
    now = version(context, tiny_weights, memorised, learned=[1, 2, 3])
    issues = review(context, SINGLE, now, tasks)
    assert suspicions(issues) == {3: ("swapped", "good", 0.2)}
    assert {task: issue.learned for task, issue in issues.items()} == {1: True, 2: False, 3: False, 4: False}
    assert suspicions(review(context, SINGLE, first, tasks)) == {3: ("swapped", "good", 0.2)}


def test_a_version_with_other_labels_does_not_judge(context: Context, tiny_weights: Path) -> None:
    version(
        context, tiny_weights, {2: (0.0, 0.1, 0.9), 3: (0.0, 0.1, 0.9)}, learned=[1], classes=("good", "none", "bad")
    )
    now = version(context, tiny_weights, {1: BAD, 2: GOOD, 3: GOOD}, learned=[2, 3])
    issues = review(context, SINGLE, now, [annotated(1, ["bad"]), *(annotated(task, ["good"]) for task in (2, 3))])
    assert {task: issue.learned for task, issue in issues.items()} == {1: False, 2: True, 3: True}
    assert suspicions(issues) == {}


def test_labels_that_the_version_cannot_judge(context: Context, tiny_weights: Path) -> None:
    """A label that the config no longer has, a label that the model lacks, and no tasks at all."""
    now = version(context, tiny_weights, {1: GOOD, 2: GOOD}, learned=())
    assert review(context, SINGLE, now, [annotated(1, ["gone"])], alone=True) == {}
    fresh = SINGLE.replace('<Choice value="bad"/>', '<Choice value="new"/>')
    assert review(context, fresh, now, [annotated(1, ["new"]), annotated(2, ["good"])]).keys() == {2}
    assert review(context, SINGLE, now, []) == {}


def test_a_model_whose_labels_were_all_removed_judges_nothing(context: Context, tiny_weights: Path) -> None:
    now = version(context, tiny_weights, {1: GOOD}, ())
    config = SINGLE.replace("good", "fine").replace("bad", "poor")
    assert review(context, config, now, [annotated(1, [])], alone=True) == {}
