"""What the view Is it learning? shows of unusual projects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from backend.evaluation.judged_images import JudgedImage, judge_image
from backend.loop.context import Context
from backend.store.paths import report_file
from backend.store.store import ProjectRecord
from backend.types import WHOLE, LabeledBox, Prediction
from backend.web.page.views.learning import MOST_CLASSES, confusion_rows
from tests.evaluated import evaluation, judged, publish_evaluated
from tests.support import CONFIG, ROOT, serve

HTML = {"accept": "text/html"}
CHOICES = CONFIG.replace("RectangleLabels", "Choices").replace("<Label ", "<Choice ")


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    with serve(context) as client:
        yield client


def chosen(task: int, predicted: int, label: str) -> JudgedImage:
    probs = np.full((1, 2), 0.1, np.float32)
    probs[0, predicted] = 0.9
    prediction = Prediction(80, 60, np.array([[0, 0, 80, 60]], np.float32), probs, probs.max(axis=1))
    return judge_image(task, 0, prediction, [LabeledBox(label, WHOLE)], ("cat", "dog"), "classify")


def test_a_choice_is_wrong_in_words(client: httpx.Client, context: Context, classifier: Path) -> None:
    context.store.save_project(ProjectRecord(7, CHOICES, "", "", "", ""))
    images = [chosen(task, int(task == 20), "cat" if task % 2 == 0 else "dog") for task in range(20, 32)]
    stored, metrics = evaluation(images)
    publish_evaluated(context, 7, classifier, stored, metrics, task="classify")
    text = client.get("/projects/7/learning", headers=HTML).text
    assert "“\u2068cat\u2069” (0.90) instead of “\u2068dog\u2069”" in text
    assert "<path" not in text
    assert "top-1" in text or "accuracy" in text


def test_a_video_shows_the_frame(client: httpx.Client, context: Context, tiny_weights: Path) -> None:
    videos = (
        (ROOT / "label_config/videorectangle.xml").read_text(encoding="utf-8").replace('name="box"', 'name="label"')
    )
    context.store.save_project(ProjectRecord(7, videos, "", "", "", ""))
    label = LabeledBox("cat", (0.5, 0.5, 0.4, 0.4))
    nothing = Prediction(80, 60, np.zeros((0, 4), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    images = [judge_image(task, 6, nothing, [label], ("cat", "dog"), "detect") for task in range(20, 32)]
    stored, metrics = evaluation(images)
    publish_evaluated(context, 7, tiny_weights, stored, metrics)
    text = client.get("/projects/7/learning", headers=HTML).text
    assert "Task 20, frame 6" in text
    assert "/tasks/20/picture?tag=label&amp;width=320&amp;frame=6" in text


def test_a_missed_mask_is_filled(client: httpx.Client, context: Context, tiny_weights: Path) -> None:
    masks = CONFIG.replace("RectangleLabels", "BrushLabels")
    context.store.save_project(ProjectRecord(7, masks, "", "", "", ""))
    label = LabeledBox("cat", (0.5, 0.5, 0.4, 0.4), outline=(((0.3, 0.3), (0.7, 0.3), (0.7, 0.7)),))
    nothing = Prediction(80, 60, np.zeros((0, 4), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    images = [judge_image(task, 0, nothing, [label], ("cat", "dog"), "segment") for task in range(20, 32)]
    stored, metrics = evaluation(images)
    publish_evaluated(context, 7, tiny_weights, stored, metrics, task="segment")
    text = client.get("/projects/7/learning", headers=HTML).text
    assert '<path d="M30.00,30.00 70.00,30.00 70.00,70.00Z" class="annotator mask"' in text


def test_a_damaged_report_is_named_and_the_view_stays(
    client: httpx.Client, context: Context, tiny_weights: Path
) -> None:
    stored, metrics = evaluation(judged(range(20, 40), 0.5))
    publish_evaluated(context, 7, tiny_weights, stored, metrics)
    context.store.files.write(report_file(7, 1, "label"), b"{")
    answer = client.get("/projects/7/learning", headers=HTML)
    assert answer.status_code == 200
    assert "damaged file" in answer.text
    assert "delete the file" in answer.text


@pytest.mark.parametrize("query", ["?version=9", "?version=1&tag=nothing"])
def test_what_is_not_there_is_named(client: httpx.Client, context: Context, tiny_weights: Path, query: str) -> None:
    stored, metrics = evaluation(judged(range(20, 40), 0.5))
    publish_evaluated(context, 7, tiny_weights, stored, metrics)
    answer = client.get(f"/projects/7/learning{query}", headers=HTML)
    assert answer.status_code == 404
    assert "What to do:" in answer.text


@pytest.mark.parametrize("query", ["?version=", "?version=-1", "?version=²", "?version=" + "9" * 400])
def test_a_version_that_is_no_number_is_no_traceback(
    client: httpx.Client, context: Context, tiny_weights: Path, query: str
) -> None:
    stored, metrics = evaluation(judged(range(20, 40), 0.5))
    publish_evaluated(context, 7, tiny_weights, stored, metrics)
    assert client.get(f"/projects/7/learning{query}", headers=HTML).status_code in (200, 404)


def test_of_many_classes_those_with_most_mistakes_are_shown() -> None:
    classes = [f"class {kind}" for kind in range(40)]
    confusion = [[0] * 41 for _ in range(41)]
    for kind in range(40):
        confusion[kind][kind] = 5
        confusion[kind][40] = kind  # missed
    columns, rows, left_out = confusion_rows(confusion, classes)
    assert columns == (*classes[-MOST_CLASSES:], "nothing")
    assert left_out == 40 - MOST_CLASSES
    assert rows[-2].counts[-1] == 39
    assert rows[-1].label == "nothing"
