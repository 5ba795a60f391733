"""The whole loop with a Label Studio that validates predictions, and with one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import reader, synthetic
from backend.labelstudio.client.tabs import LABEL_ISSUES_TAB
from tests.support import tiny_yolo
from tests.world import World, await_shown, await_true, label, open_world

pytestmark = pytest.mark.label_studio

POOL, LABELS = 16, 8


@pytest.fixture(params=["label_studio", "validating_label_studio"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    process: LabelStudioProcess = request.getfixturevalue(request.param)
    data_yaml = synthetic.generate(tmp_path / "scenes", pool=POOL, test=2, seed=1)
    (tmp_path / "models").mkdir()
    tiny_yolo(tmp_path / "models" / "tiny.pt", reader.read(data_yaml).classes)
    settings = {
        "BASE_MODEL": "tiny.pt",  # its weights are random, and it predicts boxes everywhere
        "IMGSZ": "64",
        "RETRAIN_EVERY": str(LABELS),
        "TRAIN_STEPS": "4",
        "TOLERANCE": "1",  # versions are published whatever their quality
        "MIN_EPOCHS": "1",
        "MODEL_SCORE_THRESHOLD": "0.01",
    }
    with open_world(process, tmp_path, data_yaml, settings) as world:
        yield world


def test_the_loop_runs_and_no_prediction_is_refused(world: World) -> None:
    """Images are pre-annotated and labeled, a version is trained, the pool is scored again, the labels are reviewed."""
    client = world.client
    project = client.projects.create("validated", world.config)
    client.tasks.upload_images(project, [file.path for file in world.data.train])
    client.projects.attach_backend(project, world.url, "yolo")
    for version, count in (("tiny-v0", POOL), ("tiny-v1", POOL - LABELS)):
        await_shown(world, project, version)
        predictions = world.predictions(project)
        assert len(predictions) == count
        assert all(len(stored) == 1 for stored in predictions.values())
        assert all(0 <= (stored[0].score or 0) <= 1 for stored in predictions.values())
        if version == "tiny-v0":
            assert any(stored[0].result for stored in predictions.values()), "no prediction to validate"
            label(world, project, LABELS)
    await_true(lambda: len(errors(world, project)) == LABELS, "the review of the labels")
    suspicious = {row["task"] for row in errors(world, project) if row["suspicious"]}
    await_true(lambda: set(listed(world, project)) == suspicious, "the tab of possible label errors")
    assert world.status(project).failures == {}


def errors(world: World, project: int) -> list[dict[str, object]]:
    answer = httpx.get(f"{world.url}/api/projects/{project}/label-errors", timeout=30).raise_for_status()
    rows: list[dict[str, object]] = answer.json()
    return rows


def listed(world: World, project: int) -> list[int]:
    views = world.client.http.get("/api/dm/views/", project=project)
    view = next(view["id"] for view in views if view["data"]["title"] == LABEL_ISSUES_TAB)
    return [task["id"] for task in world.client.http.get("/api/tasks", view=view, include="id")["tasks"]]
