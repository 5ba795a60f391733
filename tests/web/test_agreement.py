"""GET /api/projects/{id}/agreement."""

from __future__ import annotations

from backend.evaluation.annotators import AgreedBoxes, TaskAgreement
from backend.evaluation.effort import EffortLog
from backend.loop.context import Context
from backend.store.store import ProjectRecord
from tests.support import CONFIG, serve


def test_the_agreement_of_each_control_tag_with_its_people_and_labels(context: Context) -> None:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    task = TaskAgreement(3, "label", 2, 1, 4, (AgreedBoxes("5", 1, 4),), (AgreedBoxes("cat", 1, 4),))
    with serve(context) as http:
        assert http.get("/api/projects/7/agreement").json() == []
        context.store.state.save_effort(7, EffortLog({}, (), (task,)))
        (answer,) = http.get("/api/projects/7/agreement").json()
        unknown = http.get("/api/projects/8/agreement")
    assert answer == {
        "tag": "label",
        "tasks": 1,
        "f1": 0.5,
        "interval": None,
        "same": 0,
        "people": [{"of": "5", "tasks": 1, "boxes": 4, "f1": 0.5}],
        "labels": [{"of": "cat", "tasks": 1, "boxes": 4, "f1": 0.5}],
        "worst": [{"task": 3, "people": 2, "f1": 0.5}],
    }
    assert unknown.status_code == 404
