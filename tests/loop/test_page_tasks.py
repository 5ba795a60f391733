"""Tasks with several pages: predicted, stored, answered and learned page by page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.errors import ModelError
from backend.labelstudio import label_config
from backend.loop import serving
from backend.loop.context import Context
from backend.loop.scoring import scoring, strategy_inputs
from backend.loop.served_models import ServedModel, models_for, require_project
from backend.loop.training import label_reading
from backend.types import AnnotatedTask, Json, Task
from tests.support import CONFIG, ImageSite, publish

pytestmark = pytest.mark.torch

SHOWN = 'model_score_threshold="0.05"'
PAGES = CONFIG.replace('value="$image"', 'valueList="$pages"').replace("<RectangleLabels", f"<RectangleLabels {SHOWN}")
(TAG,) = label_config.parse(PAGES)


@pytest.fixture
def served(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with pages and a published and served version."""
    serving.setup(context, 7, PAGES, "http://studio.example", "", "http://backend.example:9090")
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    return context


def models_of(context: Context) -> tuple[ServedModel, ...]:
    return models_for(context, require_project(context, 7), accepted=False)


def task(images: ImageSite, number: int, count: int) -> Task:
    sizes = [(80, 60), (60, 90), (120, 50)]
    names = [images.add(f"{number}-{page}.png", 10 * number + page, sizes[page % 3]) for page in range(count)]
    return Task(number, {"pages": names})


def box(page: int) -> Json:
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["cat"]}
    region = {"id": f"r{page}", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    return region | {"item_index": page}


def labeled(of: Task, *regions: Json) -> AnnotatedTask:
    return AnnotatedTask(of, of.id, "2026-01-01T00:00:00Z", regions)


def test_all_pages_are_predicted_stored_and_answered(served: Context, images: ImageSite) -> None:
    models, tasks = models_of(served), [task(images, 1, 3), task(images, 2, 1)]
    shards = scoring.predict_shards(served, models, 0, tasks)
    assert scoring.save_shards(served, models, shards)
    (stored,) = scoring.stored_predictions(served, models, tasks[0])
    (fresh, _) = shards[0].predictions
    assert stored is not None
    assert fresh is not None
    assert stored.pages is not None
    assert fresh.pages is not None
    assert [(page.width, page.height) for page in stored.pages] == [(80, 60), (60, 90), (120, 50)]
    for page, stored_page in zip(fresh.pages, stored.pages, strict=True):
        np.testing.assert_array_equal(page.boxes, stored_page.boxes)
    for answer in (
        serving.predict(served, 7, PAGES, [tasks[0]]),
        serving.predict(served, 7, PAGES, [task(images, 3, 3)]),
    ):
        (result,) = answer
        assert {region["item_index"] for region in result.regions} == {0, 1, 2}
        sizes = {(region["item_index"], region["original_width"]) for region in result.regions}
        assert sizes == {(0, 80), (1, 60), (2, 120)}


def test_a_page_that_fails_costs_its_task_alone(served: Context, images: ImageSite) -> None:
    broken = Task(1, {"pages": [images.add("a.png"), f"{images.url}/404.png"]})
    (predictions,), reasons = scoring.predict_all(served, models_of(served), [broken, task(images, 2, 2)])
    assert [prediction is None for prediction in predictions] == [True, False]
    assert "404.png" in reasons[1]
    assert set(reasons) == {1}


def test_each_page_is_learned_as_an_image(served: Context, images: ImageSite) -> None:
    annotated = (labeled(task(images, 1, 3), box(1)), labeled(task(images, 2, 1)))
    (read,) = label_reading.labeled_images(served, 7, (TAG,), annotated, frozenset({1}))
    assert [(image.task_id, image.frame, len(image.boxes), image.random) for image in read.images] == [
        (1, 1, 0, True),
        (1, 2, 1, True),
        (1, 3, 0, True),
        (2, 1, 0, False),
    ]


def test_what_cannot_be_learned_of_pages_has_a_reason(served: Context, images: ImageSite) -> None:
    turned = box(1) | {"original_width": 90, "original_height": 60}
    annotated = (
        labeled(task(images, 1, 2), turned),
        labeled(task(images, 2, 2), box(0), box(5)),
        labeled(Task(3, {"pages": []})),
        labeled(Task(4, {"pages": [images.add("4.png"), images.add("small.png", 1, (5, 5))]}), box(0)),
    )
    (read,) = label_reading.labeled_images(served, 7, (TAG,), annotated, frozenset())
    failures = served.progress.failures(7)
    assert "page 2: region r1 was drawn on 90 x 60 pixels, and the image has 60 x 90" in failures[1]
    assert "regions on pages past the end of the task, which has 2: [6]" in failures[2]
    assert "the task has no list of images" in failures[3]
    assert "page 2 has 5 x 5 pixels" in failures[4]
    assert [(image.task_id, image.frame) for image in read.images] == [(2, 1), (2, 2), (4, 1)]


def test_a_committee_is_refused(served: Context) -> None:
    with pytest.raises(ModelError, match="tasks are lists of pages"):
        strategy_inputs.committee(served, require_project(served, 7), models_of(served)[0])
