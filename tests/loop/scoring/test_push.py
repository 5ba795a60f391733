"""Which predictions a push writes to Label Studio, and which Label Studio refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.loop.context import Context
from backend.loop.scoring import push
from backend.loop.served_models import ServedModel
from backend.settings import Settings
from backend.types import Prediction, Region
from tests.support import CONFIG

pytestmark = pytest.mark.label_studio


def region(label: str) -> Region:
    value = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": [label]}
    return Region("r1", "rectanglelabels", "label", "image", value, 0.5, 100, 100)


def test_a_refused_prediction_is_listed_and_the_others_are_written(
    label_studio: LabelStudioProcess, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    (tag,) = label_config.parse(CONFIG)
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("push", CONFIG)
        model = ServedModel(project, 1, "yolo11n-v1", ("cat", "dog"), None, 1.0, None, 64, "cpu", tag, "label")
        images = [{"data": {"image": f"http://images.example/{n}.png"}} for n in range(3)]
        client.http.send("POST", f"/api/projects/{project}/import", images)
        ids = [task.id for task in client.tasks.unlabeled(project)]
        labels = ["cat", "gone", "dog"]
        rows = [PredictionRow(task, 0.5, (region(label),)) for task, label in zip(ids, labels, strict=True)]
        with_studio = replace(context, label_studio=client)
        assert push.write_predictions(with_studio, model, iter(rows), [], push.no_check) == 3
        present = client.predictions.stamps(project, model.name)
        assert push.write_predictions(with_studio, model, iter(rows), present, push.no_check) == 0, (
            "nothing has changed"
        )
        held = [client.predictions.of_task(task) for task in ids]
    assert [[len(prediction.result) for prediction in predictions] for predictions in held] == [[1], [0], [1]]
    failures = context.progress.failures(project)
    assert set(failures) == {ids[1]}
    assert "gone" in failures[ids[1]]
    assert f"task {ids[1]}: Label Studio refuses its prediction" in caplog.text


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_prediction_with_the_same_score_stays_unless_all_are_written_again(
    label_studio: LabelStudioProcess, overwrite: bool
) -> None:
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("anew", CONFIG)
        client.http.send("POST", f"/api/projects/{project}/import", [{"image": "http://images.example/1.png"}])
        (task,) = client.tasks.unlabeled(project)
        for label, write_all in (("cat", False), ("dog", overwrite)):
            present = list(client.predictions.stamps(project, "yolo11n-v1"))
            rows = iter([PredictionRow(task.id, 0.5, (region(label),))])
            push.import_or_update(client, project, "yolo11n-v1", rows, present, overwrite=write_all)
        (held,) = client.predictions.of_task(task.id)
    assert [region["value"]["rectanglelabels"] for region in held.result] == [["dog" if overwrite else "cat"]]


def test_of_several_predictions_of_a_version_one_stays(label_studio: LabelStudioProcess) -> None:
    """Otherwise the queue could go by any of them, and a push would update only one."""
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("twice", CONFIG)
        images = [{"image": f"http://images.example/{n}.png"} for n in range(2)]
        client.http.send("POST", f"/api/projects/{project}/import", images)
        twice, once = [task.id for task in client.tasks.unlabeled(project)]
        for version in ("yolo11n-v0", "yolo11n-v1"):
            for task, score in ((twice, 0.2), (twice, 0.9), (once, 0.4)):
                client.predictions.create(version, PredictionRow(task, score, (region("cat"),)))
        rows = [PredictionRow(twice, 0.5, (region("dog"),)), PredictionRow(once, 0.4, (region("dog"),))]
        present = client.predictions.stamps(project, "yolo11n-v1")
        assert push.import_or_update(client, project, "yolo11n-v1", iter(rows), present) == 1
        held = {task: client.predictions.of_task(task) for task in (twice, once)}
    scores = {task: [(pred.version, pred.score) for pred in predictions] for task, predictions in held.items()}
    assert scores[twice] == [("yolo11n-v0", 0.2), ("yolo11n-v0", 0.9), ("yolo11n-v1", 0.5)]
    assert scores[once] == [("yolo11n-v0", 0.4), ("yolo11n-v1", 0.4)]


@pytest.mark.parametrize(("trained", "kinds"), [(True, ["choices"]), (False, ["rectanglelabels", "choices"])])
def test_the_answer_of_a_trained_model_hides_other_tags(trained: bool, kinds: list[str]) -> None:
    question = '<Choices name="kind" toName="image"><Choice value="street"/><Choice value="other"/></Choices>'
    shown = 'visibleWhen="choice-selected" whenTagName="kind" whenChoiceValue="street"'
    config = CONFIG.replace("<RectangleLabels", f"{question}<View {shown}><RectangleLabels").replace(
        "</RectangleLabels>", "</RectangleLabels></View>"
    )
    models = [
        ServedModel(1, 1, "v1", tag.labels, None, 1.0, None, 64, "cpu", tag, tag.from_name, trained=trained)
        for tag in label_config.parse(config)
    ]
    probs = np.array([[0.1, 0.9]], np.float32)
    answer = Prediction(100, 100, np.array([[0, 0, 50, 50]], np.float32), probs, probs.max(axis=1))
    assert [region.kind for region in push.encode(Settings(), models, 1, [answer, answer])] == kinds
