"""REGION_CHOICES: questions about boxes are answered for each predicted box, and leave the queue to the boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.labelstudio import label_config
from backend.loop import serving
from backend.loop.context import Context
from backend.loop.insight import pool_drawing
from backend.loop.scoring import push, scoring, strategy_inputs
from backend.loop.served_models import models_for, pool_keys
from backend.loop.serving import TaskResult
from backend.types import Json, Task
from tests.loop.test_tags_together import pool, predict, publish_both, put_base, rank, served
from tests.support import CONFIG, ImageSite

pytestmark = pytest.mark.torch

QUESTION = (
    '<Choices name="quality" toName="image" perRegion="true" model_score_threshold="0"><Choice value="cat"/>'
    '<Choice value="dog"/></Choices>'
)
ABOUT_BOXES = CONFIG.replace("</View>", QUESTION + "</View>")


def setup(context: Context, *, asked: bool = True, schema: str = ABOUT_BOXES, **params: Any) -> None:
    extra = json.dumps({"REGION_CHOICES": asked, **params})
    serving.setup(context, 7, schema, "http://studio.example", extra, "http://backend.example:9090")


@pytest.fixture
def trained(context: Context, tiny_weights: Path, classifier: Path) -> Context:
    """A project whose served version has a model for the boxes and one for the question about them."""
    setup(context)
    publish_both(context, tiny_weights, classifier)
    return context


def of_type(result: TaskResult, kind: str) -> list[Json]:
    return [region for region in result.regions if region["type"] == kind]


def tag_names(context: Context) -> list[str]:
    record = context.store.project(7)
    assert record is not None
    return [tag.from_name for tag in label_config.parse(record.label_config)]


# The setting


def test_it_is_off_by_default(context: Context, tiny_weights: Path, images: ImageSite) -> None:
    serving.setup(context, 7, ABOUT_BOXES, "http://studio.example", "", "http://backend.example:9090")
    record = context.store.project(7)
    assert record is not None
    assert record.label_config == ABOUT_BOXES
    assert tag_names(context) == ["label"]
    put_base(context, "yolo11n.pt", tiny_weights)
    (result,) = predict(context, ABOUT_BOXES, *pool(images, 1))
    assert {region["type"] for region in result.regions} == {"rectanglelabels"}


def test_a_setup_switches_it_on_and_off(context: Context) -> None:
    setup(context)
    assert tag_names(context) == ["label", "quality"]
    assert not any("models answer about the whole image" in line for line in warnings(context))
    setup(context, asked=False)
    assert tag_names(context) == ["label"]
    assert any("models answer about the whole image" in line for line in warnings(context))


def warnings(context: Context) -> Sequence[str]:
    record = context.store.project(7)
    assert record is not None
    return label_config.warnings(record.label_config)


# Predictions


def test_each_shown_box_has_an_answer_under_its_id(trained: Context, images: ImageSite) -> None:
    for result in predict(trained, ABOUT_BOXES, *pool(images, 3)):
        boxes, answers = of_type(result, "rectanglelabels"), of_type(result, "choices")
        assert boxes
        assert [answer["id"] for answer in answers] == [box["id"] for box in boxes]
        for box, answer in zip(boxes, answers, strict=True):
            assert answer["value"] == {**box["value"], "choices": answer["value"]["choices"]}
            assert answer["value"]["choices"][0] in ("cat", "dog")
            assert 0.5 <= answer["score"] <= 1


def test_the_answer_is_about_what_the_box_shows(trained: Context, images: ImageSite) -> None:
    """A classifier that sees the crop of a box answers the same as one that gets the crop as an image."""
    (task,) = pool(images, 1)
    boxes, about = served(trained)
    ((found,), (asked,)), reasons = scoring.predict_all(trained, (boxes, about), [task])
    assert reasons == {}
    assert found is not None
    assert asked is not None
    is_shown = found.confidence >= trained.settings.model_score_threshold
    assert np.array_equal(asked.boxes, found.boxes[is_shown])
    assert np.allclose(asked.class_probs.sum(axis=1), 1, atol=1e-5)
    assert len({tuple(row) for row in asked.class_probs.round(5).tolist()}) > 1, "boxes differ, and so do answers"


def test_a_higher_threshold_asks_about_fewer_boxes_and_predicts_again(trained: Context, images: ImageSite) -> None:
    tasks = pool(images, 2)
    rank(trained, tasks)
    before = keys(trained)
    strict = ABOUT_BOXES.replace('name="label"', 'name="label" model_score_threshold="0.3"')
    setup(trained, schema=strict)
    assert keys(trained)["label"] == before["label"]
    assert keys(trained)["quality"] != before["quality"]
    for result in predict(trained, strict, *tasks):
        assert len(of_type(result, "choices")) == len(of_type(result, "rectanglelabels"))


def keys(context: Context) -> dict[str, str]:
    record = context.store.project(7)
    assert record is not None
    return pool_keys(context, record)


def test_without_a_model_of_its_own_a_question_has_the_answers_of_the_base_weights(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context)
    put_base(context, "yolo11n.pt", tiny_weights)
    put_base(context, "yolo11n-cls.pt", classifier)
    (result,) = predict(context, ABOUT_BOXES, *pool(images, 1))
    assert len(of_type(result, "choices")) == len(of_type(result, "rectanglelabels")) > 0


def test_a_failed_image_costs_its_task_alone_and_is_named_once(trained: Context, images: ImageSite) -> None:
    good, bad = Task(1, {"image": images.add("1.png", 1)}), Task(2, {"image": f"{images.url}/404.png"})
    first, second = predict(trained, ABOUT_BOXES, good, bad)
    assert of_type(first, "choices")
    assert second.regions == ()
    assert trained.progress.failures(7)[2].count("(404)") == 1


def test_a_question_about_some_labels_is_asked_about_their_boxes(trained: Context, images: ImageSite) -> None:
    schema = ABOUT_BOXES.replace('perRegion="true"', 'perRegion="true" whenLabelValue="dog"')
    setup(trained, schema=schema)
    results = predict(trained, schema, *pool(images, 3))
    asked = {answer["id"] for result in results for answer in of_type(result, "choices")}
    boxes = [box for result in results for box in of_type(result, "rectanglelabels")]
    assert asked == {box["id"] for box in boxes if box["value"]["rectanglelabels"] == ["dog"]}
    assert 0 < len(asked) < len(boxes)


# The queue


def test_boxes_alone_order_the_queue(trained: Context, images: ImageSite) -> None:
    tasks = pool(images, 12)
    models, order = rank(trained, tasks)
    assert [model.tag.ranks for model in models] == [True, False]
    setup(trained, asked=False)
    _, alone = rank(trained, tasks)
    assert order.task_ids.tolist() == alone.task_ids.tolist()
    assert np.array_equal(order.priority, alone.priority)


def test_a_committee_is_asked_about_the_boxes_alone(trained: Context) -> None:
    record = trained.store.project(7)
    assert record is not None
    models = models_for(trained, record, accepted=False)
    assert [model.tag.from_name for model, _ in strategy_inputs.committees(trained, record, models)] == ["label"]


def test_stored_answers_are_pushed_and_served(trained: Context, images: ImageSite) -> None:
    tasks = pool(images, 4)
    models, order = rank(trained, tasks)
    rows = list(push.prediction_rows(trained, trained.settings, models, order, {task.id: task for task in tasks}))
    for path in images.folder.iterdir():
        path.unlink()  # stored predictions need no image
    results = predict(trained, ABOUT_BOXES, *tasks)
    assert [tuple(region.as_json() for region in row.regions) for row in rows] == [result.regions for result in results]
    assert all(of_type(result, "choices") for result in results)


def test_the_map_of_a_pool_has_no_images_of_a_question_about_boxes(trained: Context, images: ImageSite) -> None:
    (boxes, about), _ = rank(trained, pool(images, 4))
    assert len(pool_drawing.pool_map(trained, boxes)) == 4
    assert len(pool_drawing.pool_map(trained, about)) == 0
