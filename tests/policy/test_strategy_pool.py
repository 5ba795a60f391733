"""A strategy gets the inputs that it needs; expensive inputs that it does not need are not computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest

from backend.acquisition.pool import Committee, Pool
from backend.model_versions import Metrics
from backend.policy.strategy_pool import LabeledImages, pool_for, weights_of
from backend.settings import Settings

T = TypeVar("T")
POOL = Pool(np.array([1, 2]), np.array([0, 1, 2]), np.array([[0.9, 0.1], [0.2, 0.3]], dtype=np.float32))
LABELED = LabeledImages(np.ones((3, 2), np.float32), np.zeros((3, 192), np.uint8))
METRICS = Metrics(0.25, 0.1, {"cat": 0.5}, 4, 4, 10)
LOSSES = np.array([0.5, 1.0, np.nan], dtype=np.float32)
VOTES = Committee(np.array([0, 1, 2]), np.ones((2, 2, 2), np.float32), np.zeros((2, 2, 4), np.float32))


def never() -> Any:
    raise AssertionError("the strategy does not need it")


def strategy_pool(strategy: str, **changed: Any) -> Pool:
    inputs: dict[str, Any] = {"metrics": METRICS, "temperature": 1.0, "outcomes": "objects"}
    inputs |= {"losses": never, "committee": never} | changed
    return pool_for(strategy, Settings(retrain_every=7, empty="lowest"), POOL, LABELED, **inputs)


def test_every_strategy_gets_the_settings_the_quality_and_the_labeled_images() -> None:
    pool = strategy_pool("class_entropy")
    assert (pool.batch, pool.empty, pool.map50) == (7, "lowest", 0.25)
    assert pool.labeled_embeddings is LABELED.embeddings
    assert pool.labeled_thumbnails is LABELED.thumbnails
    assert (pool.labeled_losses, pool.committee) == (None, None)


def once(value: T) -> Callable[[], T]:
    """Return a function that may be called once."""
    values = [value]
    return lambda: values.pop()


def test_losses_and_votes_are_computed_if_the_strategy_needs_them() -> None:
    pool = strategy_pool("learning_loss", losses=once(LOSSES))
    assert (pool.labeled_losses is LOSSES, pool.committee) == (True, None)
    pool = strategy_pool("bald", committee=once(VOTES))
    assert (pool.labeled_losses, pool.committee is VOTES) == (None, True)


@pytest.mark.parametrize("metrics", [None, Metrics(math.nan, math.nan, {}, 0, 0, 0)])
def test_an_unknown_quality_is_none(metrics: Metrics | None) -> None:
    assert strategy_pool("class_entropy", metrics=metrics).map50 is None


def test_the_outcomes_decide_how_confidences_are_calibrated() -> None:
    assert strategy_pool("class_entropy", temperature=2.0).class_probs[0, 0] == pytest.approx(0.75)
    choice = strategy_pool("class_entropy", temperature=2.0, outcomes="one")
    assert (choice.exclusive, choice.class_probs[0, 0]) == (True, pytest.approx(0.75))
    several = strategy_pool("class_entropy", outcomes="several")
    assert several.offsets.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("kind", "weights"),
    [("none", None), ("long_tail", [1.0, 3.0]), ("ppal", [pytest.approx(1.1114372), pytest.approx(1.2)])],
)
def test_the_settings_choose_how_much_each_class_counts(kind: str, weights: list[float] | None) -> None:
    class_weights = weights_of(Settings(class_weights=kind), ("cat", "dog"), METRICS, {"cat": 0.8})
    assert (class_weights if class_weights is None else class_weights.tolist()) == weights


def test_without_any_quality_all_classes_count_alike() -> None:
    class_weights = weights_of(Settings(class_weights="long_tail"), ("cat", "dog"), None, {})
    assert class_weights is not None
    assert class_weights.tolist() == [1.0, 1.0]
