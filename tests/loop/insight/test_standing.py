"""The sentence, the health and the alerts of a project."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.loop import project_status
from backend.loop.context import Context
from backend.loop.insight.standing import Machines, machines, standing
from backend.loop.project_status import Status
from backend.loop.studio_state import StudioState
from backend.queue import presence
from backend.queue.rq_queue import QUEUES
from backend.queue.run_state import LabelCounts, ScoringRun, TrainingProgress
from backend.store.store import ProjectRecord
from tests.support import CONFIG


@pytest.fixture
def status(context: Context) -> Status:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    return project_status.status(context, 7)


def test_the_sentence_says_what_the_loop_waits_for(status: Status) -> None:
    counted = replace(status, counts=LabelCounts(tasks=100, labeled=12, new=12), failures=dict.fromkeys(range(31), "x"))
    assert standing(counted, Machines()).sentence == "12 of 20 new labels until version 1; 31 tasks could not be used."
    undecided = replace(status, counts=LabelCounts(tasks=100, labeled=12, new=9, waiting=3))
    assert standing(undecided, Machines()).sentence == "9 of 20 new labels until version 1; 3 undecided tasks."
    due = replace(status, counts=LabelCounts(tasks=100, labeled=30, new=30))
    assert standing(due, Machines()).sentence == "30 new labels: the training of version 1 is due."
    running = replace(status, training=TrainingProgress("running", "train"))
    assert standing(running, Machines()).sentence == "A training is running: learning."
    scoring = replace(status, scoring=ScoringRun(number=1, shards=2, done=3, total=9, run=1))
    assert standing(scoring, Machines()).sentence == "3 of 9 tasks have predictions of the new version."


def test_a_healthy_project_has_no_reason(status: Status) -> None:
    shown = standing(status, Machines(free_gb=100.0))
    assert (shown.health, shown.reason, shown.alerts) == ("healthy", "", ())


def test_the_worst_alert_is_the_reason(status: Status) -> None:
    shown = standing(
        replace(
            status, ranking_error="the model lacks votes", label_studio=StudioState(webhook="off"), warnings=("a tag",)
        ),
        Machines(free_gb=1.5),
    )
    assert shown.health == "broken"
    assert "the model lacks votes" in shown.reason
    assert [alert.severity for alert in shown.alerts] == ["error", "warning", "warning", "note"]
    assert any("1.5 GB left" in alert.problem for alert in shown.alerts)
    (webhook,) = (alert for alert in shown.alerts if "webhook" in alert.problem)
    assert webhook.cure == "Switch it on in Settings > Webhooks"


def test_a_project_whose_jobs_nobody_takes_is_broken(context: Context, status: Status) -> None:
    alone = standing(status, machines(context))
    assert alone.health == "broken"
    assert "No worker for the queues control, score, train" in alone.reason
    presence.note_workers(context.redis, ("control", "score"))
    assert "No worker for the queues train:" in standing(status, machines(context)).reason
    presence.note_workers(context.redis, QUEUES)
    assert machines(context).unserved == ()
    assert standing(status, Machines()).health == "healthy"
