"""The whole loop beside a Label Studio that validates predictions, and beside one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import reader, synthetic
from backend.labelstudio.client.tabs import DOUBTS_TAB
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
        "BASE_MODEL": "tiny.pt",  # nobody trained it, and it finds boxes everywhere
        "IMGSZ": "64",
        "RETRAIN_EVERY": str(LABELS),
        "TRAIN_STEPS": "4",
        "TOLERANCE": "1",  # what a version can do is not asked here
        "MIN_EPOCHS": "1",
        "MODEL_SCORE_THRESHOLD": "0.01",
    }
    with open_world(process, tmp_path, data_yaml, settings) as world:
        yield world


def test_the_loop_goes_round(world: World) -> None:
    """Pre-annotated, labeled, trained, scored anew, reviewed; and no prediction is refused."""
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
            assert any(stored[0].result for stored in predictions.values()), "there is something to validate"
            label(world, project, LABELS)
    await_true(lambda: len(errors(world, project)) == LABELS, "the review of the labels")
    suspicious = {one["task"] for one in errors(world, project) if one["suspicious"]}
    await_true(lambda: set(listed(world, project)) == suspicious, "the tab of possible label errors")
    assert world.status(project).failures == {}


def errors(world: World, project: int) -> list[dict[str, object]]:
    answer = httpx.get(f"{world.url}/api/projects/{project}/label-errors", timeout=30).raise_for_status()
    found: list[dict[str, object]] = answer.json()
    return found


def listed(world: World, project: int) -> list[int]:
    views = world.client.http.get("/api/dm/views/", project=project)
    view = next(view["id"] for view in views if view["data"]["title"] == DOUBTS_TAB)
    return [task["id"] for task in world.client.http.get("/api/tasks", view=view, include="id")["tasks"]]
