"""Labels that look wrong as the page shows them, and the reasons why tasks could not be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.evaluation.annotators import TaskAgreement
from backend.evaluation.effort import EffortLog
from backend.evaluation.label_quality import LabelIssue, Review
from backend.labelstudio import label_config
from backend.labelstudio.region_outlines import Drawing
from backend.loop.context import Context
from backend.loop.insight import label_issues
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import Prediction
from tests.support import CONFIG, TWO_TAGS, publish

(TAG,) = label_config.parse(CONFIG)


def issue(task_id: int, score: float, tag: str = "label") -> LabelIssue:
    return LabelIssue(task_id, 100 + task_id, "today", score, "swapped", "cat", (10, 10, 40, 40), False, tag)


@pytest.fixture
def reviewed(context: Context, tiny_weights: Path) -> Context:
    """Project 7, whose version 1 found 30 labels that look wrong and one that does not."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    issues = tuple(issue(n, 0.01 * n) for n in range(1, 31))
    context.store.state.save_review(7, 1, Review(issues=(*issues, issue(40, 0.9))))
    probs = np.array([[0.9, 0.1]], dtype=np.float32)
    box = np.array([[16, 16, 32, 32]], dtype=np.float32)
    prediction = Prediction(64, 64, box, probs, probs[:, 0], np.zeros(4, np.float32))
    shard = PoolShard(0, np.array([1, 2]), (prediction, None), np.array([5, 5]))
    context.store.pools.save_shard(7, 1, shard, labeled=True, tag="label")
    return context


def test_while_label_studio_is_down_the_lists_are_there(reviewed: Context) -> None:
    view = label_issues.view(reviewed, 7, TAG)
    assert (view.count, view.judged, view.page, view.pages) == (30, 31, 1, 3)
    assert "LABEL_STUDIO_URL" in view.studio_error
    assert [suspect.issue.task_id for suspect in view.suspects] == list(range(1, 13))
    assert view.suspects[0].annotated is None
    assert [shown.rings[0][0, 0] for shown in view.suspects[0].predicted.outlines] == [25.0]
    assert view.suspects[1].predicted == Drawing()


@pytest.mark.parametrize(("page", "shown"), [(3, 3), (99, 3), (0, 1), (-5, 1)])
def test_pages_that_do_not_exist_lead_to_the_nearest(reviewed: Context, page: int, shown: int) -> None:
    view = label_issues.view(reviewed, 7, TAG, page)
    assert view.page == shown
    assert len(view.suspects) == (6 if shown == 3 else 12)


def test_each_tag_has_its_own_labels(context: Context, tiny_weights: Path) -> None:
    first, second = label_config.parse(TWO_TAGS)
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    context.store.state.save_review(7, 1, Review(issues=(issue(1, 0.1), issue(2, 0.2, "second"), issue(3, 0.3, ""))))
    agreements = (TaskAgreement(5, "second", 2, 1, 4),)
    context.store.state.save_effort(7, EffortLog(agreements=agreements))
    by_tag = [label_issues.view(context, 7, tag) for tag in (first, second)]
    assert [[suspect.issue.task_id for suspect in view.suspects] for view in by_tag] == [[1, 3], [2]]
    assert by_tag[0].agreement is None
    assert by_tag[1].agreement is not None
    assert by_tag[1].agreement.f1 == 0.5


def test_before_the_first_version_nothing_is_judged(context: Context) -> None:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    view = label_issues.view(context, 7, TAG)
    assert (view.trained, view.count, view.suspects, view.studio_error) == (False, 0, (), "")


def test_reasons_are_grouped_whatever_the_address_the_region_and_the_numbers() -> None:
    groups = label_issues.grouped(
        {
            1: "the file has 61 MB, at most 50 are read [http://a/1.png]. Fix: raise MAX_MEDIA_MB",
            2: "the file has 70.5 MB, at most 50 are read [http://a/2.png]. Fix: raise MAX_MEDIA_MB",
            3: "left out of training: region abc has no label",
            4: "left out of training: region xyz has no label",
            5: "left out of training: region q1 has no label",
            6: "the file is no image [x]. Fix: delete the task",
            7: "the file is no image. Fix: delete the task",
        }
    )
    assert [(group.count, group.tasks) for group in groups] == [(3, (3, 4, 5)), (2, (1, 2)), (2, (6, 7))]
    assert (groups[2].reason, groups[2].cure) == ("the file is no image", "delete the task")
    assert groups[0].reason == "left out of training: a region has no label"
    assert groups[1].cure == "raise MAX_MEDIA_MB"
    assert groups[1].reason == "the file has 61 MB, at most 50 are read"


def test_of_many_tasks_a_few_are_named() -> None:
    (group,) = label_issues.grouped(dict.fromkeys(range(1, 101), "no file"))
    assert (group.count, len(group.tasks), group.cure) == (100, label_issues.LISTED, "")
    assert label_issues.grouped({}) == ()
