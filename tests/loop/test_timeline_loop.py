"""The loop for TimelineLabels, with a real Label Studio: predict, correct, retrain, score.

The model learns almost nothing in a few steps. The test checks that ranges go through the whole loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import StoredPrediction
from backend.types import Json
from backend.yolo.classifier import TEMPORAL
from backend.yolo.runtime import load_model
from tests import clips
from tests.clips import Mover
from tests.support import IMGSZ, ImageSite, tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = pytest.mark.label_studio

CONFIG = (
    '<View><Video name="video" value="$video" frameRate="25"/><TimelineLabels name="event" toName="video" '
    'model_classifier_epochs="1">'
    '<Label value="red"/><Label value="blue"/></TimelineLabels></View>'
)
ORDERED = CONFIG.replace("model_classifier_epochs", 'model_classifier_hidden_size="8" model_classifier_epochs')
(TAG,) = label_config.parse(CONFIG)
POOL, LABELED, FRAMES = 6, 4, 50


@pytest.fixture
def servers(label_studio: LabelStudioProcess, tmp_path: Path) -> Iterator[Servers]:
    settings = {
        "ALLOWED_HOSTS": "127.0.0.1",
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "TRAIN_STEPS": "1",
        "MIN_EPOCHS": "2",
        "MAX_EPOCHS": "2",
        "TOLERANCE": "1",  # versions are published whatever their quality
        "MODEL_SCORE_THRESHOLD": "0.05",
    }
    with open_servers(label_studio, tmp_path / "backend", settings) as servers:
        yield servers


def ranges(number: int) -> list[Json]:
    """Return an annotator's result as Label Studio's editor writes it: without size, one range per region."""
    spans = {"red": (5 + number, 25), "blue": (20, 40 + number)}
    return [
        {
            "id": f"r{number}{label}",
            "type": "timelinelabels",
            "from_name": TAG.from_name,
            "to_name": TAG.to_name,
            "origin": "manual",
            "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]},
        }
        for label, (start, end) in spans.items()
    ]


def video(site: ImageSite, number: int) -> str:
    movers = [
        Mover("red", (10, 10), (1, 0), (40, 30), 4 + number, 24),
        Mover("blue", (90, 60), (-1, 0), (50, 40), 19, 39 + number),
    ]
    clips.write(site.folder / f"{number}.avi", movers, FRAMES)
    return f"{site.url}/{number}.avi"


@pytest.mark.parametrize(
    ("config", "epochs", "hidden_size"),
    [pytest.param(CONFIG, 1, None, id="frames"), pytest.param(ORDERED, 2, 8, marks=pytest.mark.slow, id="lstm")],
)
def test_predicted_corrected_retrained_scored(
    servers: Servers, images: ImageSite, config: str, epochs: int, hidden_size: int | None
) -> None:
    client = servers.client
    tiny_yolo(Path(servers.settings.model_dir) / "yolo11n-cls.pt", TAG.labels, task="classify")
    project = client.projects.create("timeline", config)
    data = [{"video": video(images, number)} for number in range(POOL)]
    client.http.send("POST", f"/api/projects/{project}/import", data)
    number_of = {task.id: int(str(task.data["video"])[-5]) for task in client.tasks.unlabeled(project)}
    client.projects.attach_backend(project, servers.url, "yolo")
    await_shown(servers, project, "yolo11n-cls-v0")
    first = servers.predictions(project)
    assert_predicted(first, POOL)

    task = client.tasks.next(project)
    assert task is not None
    corrected = correct(servers, task.id, first[task.id][0], ranges(number_of[task.id]))
    for _ in range(LABELED - 1):
        task = client.tasks.next(project)
        assert task is not None
        client.annotations.create(task.id, ranges(number_of[task.id]))
    for annotated in client.annotations.annotated_tasks(project):
        drawn = tags.decode(TAG, ranges(number_of[annotated.task.id]))
        assert tags.decode(TAG, annotated.result) == drawn

    await_shown(servers, project, "yolo11n-cls-v1")
    (version,) = servers.store.versions(project)
    (model,) = version.models
    assert (model.task, model.classes) == ("classify", TAG.labels)
    # The tag's epochs, also under MIN_EPOCHS; with an LSTM they are the LSTM's.
    assert model.hyper_parameters["epochs"] == epochs
    assert model.hyper_parameters.get("lstm", {}).get("hidden_size") == hidden_size
    lstm = getattr(load_model(servers.store.weights(version, TAG.from_name)), TEMPORAL, None)
    assert (lstm and lstm["lstm"].hidden_size) == hidden_size
    assert len(version.snapshot.annotations) == LABELED
    assert corrected in version.snapshot.annotations
    assert servers.status(project).failures == {}

    after = servers.predictions(project)
    assert_predicted(after, POOL - LABELED)
    scores = []
    while (task := client.tasks.next(project)) is not None:
        (prediction,) = after[task.id]
        scores.append(prediction.score)
        client.annotations.create(task.id, [dict(region) for region in prediction.result])
    assert scores == pytest.approx([1 / 3, 2 / 3])
    all_annotated = client.annotations.annotated_tasks(project)
    submitted = {annotated.task.id: tags.decode(TAG, annotated.result) for annotated in all_annotated}
    for task_id, (prediction,) in after.items():
        assert submitted[task_id] == tags.decode(TAG, prediction.result)


def correct(servers: Servers, task_id: int, prediction: StoredPrediction, true: list[Json]) -> int:
    """Submit the true regions as an annotator who moves the predicted ones; moved regions keep their ids."""
    ids = [region["id"] for region in prediction.result] + [region["id"] for region in true]
    moved = [
        {**region, "id": region_id, "origin": "prediction-changed"}
        for region, region_id in zip(true, ids, strict=False)
    ]
    body = {"result": moved, "parent_prediction": prediction.id, "lead_time": 2.5}
    return int(servers.client.http.send("POST", f"/api/tasks/{task_id}/annotations/", body)["id"])


def assert_predicted(by_task: dict[int, list[StoredPrediction]], count: int) -> None:
    """Assert that every unlabeled task has one prediction with ranges inside its video, and its own place."""
    assert len(by_task) == count
    predictions = [prediction for (prediction,) in by_task.values()]
    scores = sorted(prediction.score for prediction in predictions if prediction.score is not None)
    assert scores == pytest.approx([place / (count + 1) for place in range(1, count + 1)], abs=1e-6)
    regions = [region for prediction in predictions for region in prediction.result]
    assert {region["type"] for region in regions} == {"timelinelabels"}
    for box in tags.decode(TAG, regions):
        assert 1 <= box.frame <= box.last <= FRAMES
