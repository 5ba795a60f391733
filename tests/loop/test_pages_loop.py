"""The loop for tasks of two pages that name their own labels, with a real Label Studio: predict, label, retrain, score.

The model learns almost nothing in a few steps. The test checks that pages and labels go through the whole loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config, task_labels
from tests import drawings
from tests.kinds import boxes
from tests.support import IMGSZ, ImageSite, serve_images, tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = [pytest.mark.label_studio, pytest.mark.slow]

POOL, LABELED = 8, 4
CONFIG = (
    '<View><Image name="image" valueList="$pages"/>'
    '<RectangleLabels name="label" toName="image" value="$labels"/></View>'
)
OWN = (["red"], ["red", "blue"], [{"value": "blue"}], ["blue", "red"])


@pytest.fixture(scope="module")
def servers(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = {
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "TRAIN_STEPS": "1",
        "MIN_EPOCHS": "2",
        "MAX_EPOCHS": "2",
        "BATCH": "4",
        "MODEL_SCORE_THRESHOLD": "0.05",
        "TOLERANCE": "1",
        "ALLOWED_HOSTS": "127.0.0.1",
    }
    with open_servers(label_studio, tmp_path_factory.mktemp("pages"), settings) as servers:
        yield servers


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSite]:
    with serve_images(tmp_path_factory.mktemp("site") / "images") as site:
        yield site


def test_pages_and_labels_of_tasks_go_through_the_loop(servers: Servers, site: ImageSite) -> None:
    client = servers.client
    tiny_yolo(Path(servers.settings.model_dir) / "yolo11n.pt", ("red", "blue"))
    pictures = drawings.pictures(site.folder, drawings.bar, 2 * POOL, seed=0)
    uris = [f"{site.url}/{picture.path.name}" for picture in pictures]
    rows = [{"pages": uris[2 * row : 2 * row + 2], "labels": OWN[row % len(OWN)]} for row in range(POOL)]
    project = client.projects.create("pages", CONFIG)
    client.http.send("POST", f"/api/projects/{project}/import", rows)
    client.projects.attach_backend(project, servers.url, "yolo")
    await_shown(servers, project, "yolo11n-v0")
    (tag,) = label_config.parse(CONFIG)
    for _ in range(LABELED):
        task = client.tasks.next(project)
        assert task is not None
        own = task_labels.of_data("labels", task)
        result = []
        for page, uri in enumerate(task.data["pages"]):
            shapes = [box for box in pictures[uris.index(uri)].boxes if box.label in own]
            result += [region | {"item_index": page} for region in boxes(tag, shapes)]
        client.annotations.create(task.id, result)
    await_shown(servers, project, "yolo11n-v1")
    (version,) = servers.store.versions(project)
    assert version.models[0].classes == ("blue", "red")
    assert servers.status(project).failures == {}
    predictions = servers.predictions(project)
    assert len(predictions) == POOL - LABELED
    indices = set()
    for task in client.tasks.unlabeled(project):
        (prediction,) = predictions[task.id]
        labels = {label for region in prediction.result for label in region["value"]["rectanglelabels"]}
        assert labels <= set(task_labels.of_data("labels", task))
        indices |= {region["item_index"] for region in prediction.result}
    assert indices == {0, 1}
