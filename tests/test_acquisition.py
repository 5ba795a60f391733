"""Acquisition: the pure measures, the way from boxes to an image, and the contract every strategy keeps."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import acquisition
from backend.acquisition import class_weights, registry
from backend.acquisition.aggregation import Empty, pool_of, top_sum
from backend.acquisition.uncertainty import binary_entropy, entropy, least_confidence, margin, with_nothing
from backend.errors import SettingError
from backend.types import Pool, Prediction

EXAMPLES = [[0.5, 0.4, 0.1], [0.34, 0.33, 0.33], [0.4, 0.4, 0.2]]


def make_pool(
    images: int = 40, classes: int = 5, most: int = 14, seed: int = 0, weights: list[float] | None = None
) -> Pool:
    """Return a pool with 0..most boxes per image and shuffled task ids."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most + 1, images)
    return Pool(
        task_ids=(rng.permutation(images) + 1000).astype(np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        class_probs=rng.random((int(counts.sum()), classes), dtype=np.float32),
        embeddings=rng.random((images, 8), dtype=np.float32),
        class_weights=None if weights is None else np.array(weights, dtype=np.float32),
    )


def boxes(*images: list[list[float]], weights: list[float] | None = None) -> Pool:
    """Return a pool with the given class scores, one list of boxes per image; task ids 1, 2, ..."""
    flat = [box for image in images for box in image]
    return Pool(
        task_ids=np.arange(1, len(images) + 1, dtype=np.int64),
        offsets=np.cumsum([0, *map(len, images)]).astype(np.int64),
        class_probs=np.array(flat, dtype=np.float32) if flat else np.zeros((0, 2), dtype=np.float32),
        class_weights=None if weights is None else np.array(weights, dtype=np.float32),
    )


def permuted(pool: Pool, order: npt.NDArray[np.int64]) -> Pool:
    """Return the same images in another order."""
    pieces = [pool.class_probs[pool.offsets[i] : pool.offsets[i + 1]] for i in order]
    return Pool(
        task_ids=pool.task_ids[order],
        offsets=np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        class_probs=np.concatenate(pieces),
        embeddings=None if pool.embeddings is None else pool.embeddings[order],
        class_weights=pool.class_weights,
    )


def values(name: str, pool: Pool, seed: int = 0) -> npt.NDArray[Any]:
    return acquisition.get(name)(pool, np.random.default_rng(seed))


# The pure measures


def test_worked_examples() -> None:
    assert least_confidence(EXAMPLES) == pytest.approx([0.5, 0.66, 0.6])
    assert margin(EXAMPLES) == pytest.approx([0.9, 0.99, 1.0])
    assert entropy(EXAMPLES) / np.log(2) == pytest.approx([1.361, 1.585, 1.522], abs=5e-4)


@pytest.mark.parametrize(
    ("measure", "order"), [(least_confidence, [1, 2, 0]), (margin, [2, 1, 0]), (entropy, [1, 2, 0])]
)
def test_order_of_worked_examples(measure: Any, order: list[int]) -> None:
    assert np.argsort(-measure(EXAMPLES)).tolist() == order


@pytest.mark.parametrize("measure", [least_confidence, margin, entropy])
def test_measures_at_the_edges(measure: Any) -> None:
    assert measure([[1.0, 0.0, 0.0]]).tolist() == [0.0]
    assert measure([[1, 0]]).tolist() == [0.0]
    assert measure([[1.0]]).tolist() == [0.0]
    assert measure(np.zeros((0, 3))).shape == (0,)
    assert measure(np.zeros((0, 0))).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_certainty_is_the_minimum_and_evenness_the_maximum(raw: list[float], at: int) -> None:
    p = np.array(raw)
    p[at % len(p)] += 1
    p /= p.sum()
    even = np.full((1, len(p)), 1 / len(p))
    for measure in (least_confidence, margin, entropy):
        value = measure(p[None])[0]
        assert -1e-12 <= value <= measure(even)[0] + 1e-12


def test_binary_entropy_is_symmetric_and_never_nan() -> None:
    assert binary_entropy([0.0, 1.0, 1.0000001, -1e-9]).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert binary_entropy([0.5]) == pytest.approx([np.log(2)])
    assert binary_entropy([0.2]) == pytest.approx(binary_entropy([0.8]))


def test_with_nothing_are_distributions() -> None:
    q = with_nothing(np.array([[0.9, 0.8], [0.05, 0.05], [1.0, 1.0], [0.0, 0.0]], dtype=np.float32))
    assert q.sum(axis=1) == pytest.approx(np.ones(4))
    assert least_confidence(q)[0] > 0.4  # two classes contend
    assert least_confidence(q)[1] < 0.1  # noise: most likely nothing
    assert q[3].tolist() == [0.0, 0.0, 1.0]


# From boxes to an image


def test_top_sum_takes_the_largest_k() -> None:
    crowd = np.full(30, 0.1)
    assert top_sum(np.concatenate([crowd, [0.9, 0.8]]), np.array([0, 30, 32]), k=10) == pytest.approx([1.0, 1.7])


@pytest.mark.parametrize(("empty", "expected"), [("lowest", 1.0), ("median", 2.0), ("highest", 6.0)])
def test_images_without_boxes(empty: Empty, expected: float) -> None:
    sums = top_sum(np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1, 2, 2, 3, 3]), empty=empty)
    assert sums.tolist() == [expected, 1.0, 2.0, expected, 6.0, expected]


def test_top_sum_of_nothing() -> None:
    assert top_sum(np.zeros(0), np.array([0])).tolist() == []
    assert top_sum(np.zeros(0), np.array([0, 0, 0])).tolist() == [0.0, 0.0]


@given(st.lists(st.lists(st.floats(0, 3), max_size=6), max_size=8), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_top_sum_is_what_a_loop_gives(images: list[list[float]], k: int) -> None:
    sums = top_sum(np.array([v for image in images for v in image]), np.cumsum([0, *map(len, images)]), k=k)
    wanted = [sum(sorted(image, reverse=True)[:k]) for image in images if image]
    assert [value for value, image in zip(sums, images, strict=True) if image] == pytest.approx(wanted)


def test_pool_of_predictions_leaves_out_the_failed() -> None:
    def prediction(n: int) -> Prediction:
        probs = np.full((n, 2), 0.25 * n, dtype=np.float32)
        return Prediction(9, 9, np.zeros((n, 4), np.float32), probs, probs[:, 0], np.ones(3, np.float32))

    pool = pool_of(np.array([4, 5, 6]), [prediction(2), None, prediction(0)], None)
    assert pool.task_ids.tolist() == [4, 6]
    assert pool.offsets.tolist() == [0, 2, 2]
    assert len(pool_of(np.array([4]), [None], np.ones(2, np.float32))) == 0


# Class weights


def test_ppal_weights() -> None:
    assert class_weights.class_weights(np.array([0.5, 1.0, np.nan])) == pytest.approx([1.1605, 1.0, 1.2], abs=5e-5)
    assert class_weights.class_weights(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("ap", "weights"),
    [
        ([0.8, 0.4, 0.0], [1.0, 2.0, 3.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([np.nan, np.nan], [1.0, 1.0]),
        ([0.5, np.nan], [1.0, 3.0]),
        ([], []),
    ],
)
def test_long_tail_weights(ap: list[float], weights: list[float]) -> None:
    assert class_weights.long_tail(np.array(ap)).tolist() == pytest.approx(weights)


# The registry


def test_strategies_of_this_release() -> None:
    assert {"random", "least_confidence", "margin", "entropy", "class_entropy"} <= set(acquisition.names())


def test_unknown_strategy_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(SettingError, match=r"entrpy.*class_entropy, entropy") as caught:
        acquisition.get("entrpy")
    assert caught.value.status == 400


def test_a_name_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    register = acquisition.acquisition("twice", asks="?", cost="none", paper="none")
    register(lambda pool, rng: np.zeros(len(pool)))
    with pytest.raises(ValueError, match="'twice' is already"):
        register(lambda pool, rng: np.ones(len(pool)))


# The contract of every strategy


@pytest.fixture(params=acquisition.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


POOLS = {
    "usual": make_pool(weights=[1, 2, 3, 1, 1]),
    "one class": make_pool(classes=1),
    "no weights": make_pool(),
    "one image": make_pool(images=1),
    "no boxes": make_pool(most=0, weights=[1, 2, 3, 1, 1]),
    "no images": make_pool(images=0),
    "classes unknown": Pool(np.array([1, 2]), np.array([0, 0, 0]), np.zeros((0, 0), np.float32)),
    "saturated": boxes([[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [], weights=[1.0, 3.0]),
}


@pytest.mark.parametrize("kind", POOLS)
def test_one_finite_value_per_image(name: str, kind: str) -> None:
    got = values(name, POOLS[kind])
    assert got.shape == (len(POOLS[kind]),)
    assert np.isfinite(got).all()


def test_same_seed_same_values_and_the_pool_is_left_alone(name: str) -> None:
    pool = POOLS["usual"]
    before = pool.class_probs.copy()
    assert values(name, pool, seed=3).tolist() == values(name, pool, seed=3).tolist()
    assert (pool.class_probs == before).all()


def test_permuting_the_pool_permutes_the_values(name: str) -> None:
    pool = POOLS["usual"]
    order = np.random.default_rng(5).permutation(len(pool))
    assert values(name, permuted(pool, order)) == pytest.approx(values(name, pool)[order], rel=1e-6)


def test_says_what_it_asks_needs_and_costs(name: str) -> None:
    entry = acquisition.get(name)
    assert entry.name == name
    assert entry.asks
    assert entry.cost
    assert entry.paper
    assert entry.needs <= set(Pool.__dataclass_fields__)


@pytest.mark.parametrize("strategy", ["least_confidence", "margin", "entropy", "class_entropy"])
@pytest.mark.parametrize("classes", [1, 3])
def test_undecided_before_certain_before_noise(strategy: str, classes: int) -> None:
    rest = [0.01] * (classes - 1)
    undecided, certain, noise = values(strategy, boxes([[0.5, *rest]], [[0.97, *rest]], [[0.01, *rest]]))
    assert undecided > certain
    assert undecided > noise


@pytest.mark.parametrize("strategy", ["least_confidence", "margin"])
def test_contending_classes_count_as_uncertain(strategy: str) -> None:
    clear, contended = values(strategy, boxes([[0.9, 0.02]], [[0.9, 0.85]]))
    assert contended > clear


def test_class_entropy_weighs_the_predicted_class() -> None:
    pool = boxes([[0.6, 0.1]], [[0.1, 0.6]], weights=[1.0, 3.0])
    assert values("entropy", pool)[0] == values("entropy", pool)[1]
    assert values("class_entropy", pool)[1] == pytest.approx(3 * values("class_entropy", pool)[0])


def test_weights_that_do_not_fit_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="class_weights"):
        boxes([[0.6, 0.1]], weights=[1.0, 2.0, 3.0])


def test_random_draws_belong_to_the_task_not_to_its_place() -> None:
    pool = make_pool()
    alone = Pool(pool.task_ids[7:8], np.array([0, 0]), np.zeros((0, 5), np.float32))
    assert values("random", alone, seed=9)[0] == values("random", pool, seed=9)[7]
    assert values("random", pool, seed=9)[7] != values("random", pool, seed=10)[7]


def test_random_draws_are_uniform() -> None:
    n = 20_000
    pool = Pool(np.arange(n), np.zeros(n + 1, np.int64), np.zeros((0, 1), np.float32))
    draws = values("random", pool)
    assert np.histogram(draws, bins=10, range=(0, 1))[0] == pytest.approx(np.full(10, n / 10), rel=0.1)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03


def test_a_million_boxes_take_about_a_second() -> None:
    pool = make_pool(images=100_000, classes=10, most=20)
    started = time.process_time()
    values("entropy", pool)
    assert time.process_time() - started < 1.5  # 0.4 s of an idle core
