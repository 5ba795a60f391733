"""Reasons agree with what the model says: what it confuses, what it detects badly, and what is typical."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from backend.acquisition.pool import Pool
from backend.loop.insight import reasons
from backend.model_versions import Metrics
from backend.sampling.pins import Pins
from backend.sampling.ranking import quantiles
from backend.types import Ranking

CLASSES = ("one", "seven", "eight")
METRICS = Metrics(0.5, 0.3, {"one": 0.9, "seven": 0.31}, images=20, boxes=50, detections=60)


def pool(*images: list[list[float]], exclusive: bool = False) -> Pool:
    rows = [row for image in images for row in image]
    probs = np.array(rows, dtype=np.float32).reshape(-1, len(CLASSES))
    offsets = np.cumsum([0, *map(len, images)], dtype=np.int64)
    return Pool(np.arange(1, len(images) + 1), offsets, probs, exclusive=exclusive)


def of_boxes(*boxes: list[float], exclusive: bool = False, metrics: Metrics | None = None) -> list[str]:
    return reasons.of_boxes(pool([], list(boxes), exclusive=exclusive), 1, CLASSES, metrics)


def test_confused_classes_are_named_with_the_highest_entropy() -> None:
    (reason,) = of_boxes([0.5, 0.45, 0.0], [0.4, 0.5, 0.0], [0.99, 0.0, 0.0])
    assert reason == "2 boxes between 'one' and 'seven' (entropy 1.10)"


def test_a_box_may_show_nothing() -> None:
    assert of_boxes([0.0, 0.0, 0.5]) == ["1 box 'eight' or nothing (entropy 0.69)"]


def test_a_sure_model_gives_no_reason() -> None:
    assert of_boxes([0.0, 0.99, 0.0]) == []


def test_nothing_is_detected() -> None:
    assert of_boxes() == ["the model sees nothing here"]


def test_choices_are_confused_with_each_other() -> None:
    assert of_boxes([0.5, 0.5, 0.0], exclusive=True) == ["1 choice between 'one' and 'seven' (entropy 0.69)"]


def test_classes_that_are_detected_badly_or_that_nothing_measures() -> None:
    sure = [[0.99, 0.0, 0.0], [0.0, 0.99, 0.0], [0.0, 0.0, 0.99]]
    assert of_boxes(*sure, metrics=METRICS) == [
        "class 'seven' is detected badly (AP50 0.31)",
        "class 'eight' is rare: no held-out image shows it",
    ]
    collapsed = replace(METRICS, class_ap50={"one": 0.0, "seven": float("nan")})
    assert of_boxes(*sure, metrics=collapsed) == [], "nothing tells the classes apart"


@pytest.mark.parametrize("name", ["<b>one</b>", "é" * 300, "😀", "אחת"])
def test_any_name_of_a_class_is_shown(name: str) -> None:
    (reason,) = reasons.of_boxes(pool([[0.5, 0.5, 0.0]]), 0, (name, "seven", "eight"), None)
    assert f"'{name}'" in reason


def order() -> Ranking:
    values = np.array([4, 3, 2, 1], dtype=np.float32)
    explored, late = np.array([False, True, True, False]), np.array([False, False, False, True])
    return Ranking(np.array([11, 12, 13, 14]), quantiles(np.arange(4)), values, explored, "entropy", late)


def test_how_a_task_got_its_place() -> None:
    placings = list(reasons.placings(order(), Pins(front=(12,)), [11, 12, 13, 14]))
    assert [reasons.of_placing(placing, "entropy")[0] for placing in placings] == [
        "entropy 4, higher than 75% of the pool",
        "pinned to the front",
        "drawn by chance, to measure the model",
        "arrived late: placed by entropy",
    ]
    assert reasons.of_placing(placings[3], "core_set") == ["arrived late: placed by class_entropy"]
    without_late = replace(order(), late=None)
    assert not any(placing.late for placing in reasons.placings(without_late, Pins(), [11, 14]))


def test_typical_images_and_strange_ones() -> None:
    rng = np.random.default_rng(0)
    embeddings = (np.array([1.0, 0.0, 0.0]) + 0.3 * rng.normal(size=(200, 3))).astype(np.float32)
    measure = reasons.typicality(embeddings)
    assert reasons.of_typicality(measure, np.array([1, 0, 0], np.float32))[0].startswith(
        "typical of the pool: more like"
    )
    assert reasons.of_typicality(measure, np.array([-1, 0, 0], np.float32)) == [
        "unlike the pool: 100% of the images are more like the others"
    ]
    assert reasons.of_typicality(measure, np.array([1, 0], np.float32)) == [], "the embedding of another model"
    assert reasons.of_typicality(None, np.array([1, 0, 0], np.float32)) == []


@pytest.mark.parametrize("embeddings", [np.zeros((0, 3)), np.zeros((9, 3)), np.zeros((50, 0))])
def test_too_few_images_to_compare(embeddings: npt.NDArray[np.float64]) -> None:
    assert reasons.typicality(embeddings.astype(np.float32)) is None


def test_embeddings_of_zeros_are_no_error() -> None:
    measure = reasons.typicality(np.zeros((20, 3), np.float32))
    assert measure is not None
    assert np.isfinite(measure.similarities).all()
