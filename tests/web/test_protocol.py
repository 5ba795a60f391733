from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from backend.evaluation.stopping import Recommendation
from backend.loop.project_status import Status
from backend.loop.studio_state import StudioState
from backend.queue.run_state import LabelCounts, ScoringRun, TrainingProgress
from backend.sampling.pins import Pins
from backend.store.records import Pause
from backend.web.protocol import PredictRequest, SetupRequest, TrainRequest, WebhookRequest
from backend.web.status_schemas import project_out

LABEL_STUDIO_TASK = {
    "id": 5,
    "data": {"image": "/data/upload/1/a.jpg"},
    "meta": {},
    "created_at": "2026-01-01T00:00:00Z",
    "is_labeled": False,
    "overlap": 1,
    "project": 7,
    "annotations": [],
    "predictions": [],
}


@pytest.mark.parametrize("project", ["7.1700000000", "7", 7, {"id": 7, "title": "cats", "label_config": "<View/>"}])
def test_the_ways_label_studio_names_a_project(project: object) -> None:
    assert TrainRequest.model_validate({"project": project}).project == 7
    assert WebhookRequest.model_validate({"action": "X", "project": project}).project == 7
    assert PredictRequest.model_validate({"tasks": [], "label_config": "", "project": project}).project == 7


@pytest.mark.parametrize("project", ["abc", "", ".", 0, -7, 2**63, 7.5, None, {}, {"id": None}, [7]])
def test_what_is_no_project(project: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainRequest.model_validate({"project": project})
    assert caught.value.errors()[0]["loc"][0] == "project"


@pytest.mark.parametrize("body", [{}, {"project": None}, {"project": ""}, {"project": {}}])
def test_predict_needs_no_project(body: dict[str, Any]) -> None:
    assert PredictRequest.model_validate({"tasks": [], "label_config": ""} | body).project is None


def test_fields_of_label_studio_that_we_do_not_know_are_ignored() -> None:
    request = PredictRequest.model_validate(
        {"tasks": [LABEL_STUDIO_TASK], "label_config": "<View/>", "params": {"login": None}, "model_version": "x"}
    )
    assert (request.tasks[0].id, request.tasks[0].data) == (5, LABEL_STUDIO_TASK["data"])


@pytest.mark.parametrize(
    ("extra_params", "text"),
    [
        (None, ""),
        ("", ""),
        ('{"A": 1}', '{"A": 1}'),
        ({"A": 1}, '{"A": 1}'),
        ({}, "{}"),
    ],
)
def test_extra_params(extra_params: object, text: str) -> None:
    request = SetupRequest.model_validate({"project": 7, "schema": "<View/>", "extra_params": extra_params})
    assert request.extra_text == text


def test_setup_needs_project_and_schema_only() -> None:
    request = SetupRequest.model_validate(
        {"project": 7, "schema": "<View/>", "access_token": "x", "model_version": None}
    )
    assert (request.schema_, request.hostname, request.extra_text) == ("<View/>", "", "")


def test_a_status_without_anything_and_with_everything() -> None:
    empty = status(None, TrainingProgress("idle"), None, {})
    out = project_out(empty)
    assert (out.counts, out.versions, out.scoring.total, out.training.state) == (None, [], 0, "idle")
    running = TrainingProgress("running", "train", 0.5, 10.0, "", 3, 6, {"box_loss": 1.0})
    full = status(LabelCounts(9, 5, 2), running, ScoringRun(1, 2, 3, 4, 5), {5: "gone"})
    out = project_out(full)
    assert out.counts is not None
    assert (out.counts.tasks, out.counts.labeled, out.counts.new) == (9, 5, 2)
    assert (out.training.epoch, out.training.losses, out.scoring.done) == (3, {"box_loss": 1.0}, 3)
    assert out.failures == {5: "gone"}
    assert (empty.pause, empty.pins) == (None, Pins())
    assert out.paused is not None
    assert (out.paused.who, out.pinned.front, out.pinned.back) == ("ann", [1, 2], [3])


def status(
    counts: LabelCounts | None, training: TrainingProgress, run: ScoringRun | None, failures: dict[int, str]
) -> Status:
    return Status(
        project_id=7,
        version="yolo11n-v0",
        counts=counts,
        retrain_every=20,
        strategy="class_entropy",
        pause=Pause("ann", datetime(2026, 1, 1, tzinfo=UTC)) if counts else None,
        pins=Pins((1, 2), (3,)) if counts else Pins(),
        training=training,
        versions=(),
        scoring=run,
        failures=failures,
        ranking_error="",
        warnings=(),
        stopping=Recommendation(stop=False, signs=()),
        bandit="off",
        arms=(),
        rewards=(),
        label_studio=StudioState(),
        label_issues=(),
        prompts=(),
    )
