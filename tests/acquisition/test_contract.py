"""Acquisition: the pure measures, the aggregation of boxes, and the contract of every strategy."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import acquisition
from backend.acquisition import aggregation, class_weights, registry
from backend.acquisition.aggregation import largest, mean, pool_of, top_mean, top_rows, top_sum, total
from backend.acquisition.columns import select_rows
from backend.acquisition.pool import Committee, Empty, Pool
from backend.acquisition.uncertainty import binary_entropy, entropy, least_confidence, margin, variance, with_nothing
from backend.errors import ModelError, SettingError
from backend.evaluation.calibration import calibrated
from backend.evaluation.stopping import mean_uncertainty
from backend.types import Outcomes, Prediction
from tests.columns import with_columns

EXAMPLES = [[0.5, 0.4, 0.1], [0.34, 0.33, 0.33], [0.4, 0.4, 0.2]]


def make_pool(
    images: int = 40, classes: int = 5, most: int = 14, seed: int = 0, weights: list[float] | None = None
) -> Pool:
    """Return a pool with 0..most boxes per image and shuffled task ids."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most + 1, images)
    return complete(
        Pool(
            task_ids=(rng.permutation(images) + 1000).astype(np.int64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            class_probs=rng.random((int(counts.sum()), classes), dtype=np.float32),
            columns={"embeddings": rng.random((images, 8), dtype=np.float32)},
            class_weights=None if weights is None else np.array(weights, dtype=np.float32),
        )
    )


def complete(pool: Pool, batch: int = 8) -> Pool:
    """Return the pool with all that any strategy needs: 60 labeled images, box embeddings, a committee of three."""
    rng = np.random.default_rng(11)
    boxes, classes = pool.class_probs.shape
    members = np.clip(pool.class_probs + rng.normal(0, 0.1, (3, boxes, classes)), 0, 1).astype(np.float32)
    embeddings = pool.columns.get("embeddings", rng.random((len(pool), 8), dtype=np.float32))
    columns = {
        "embeddings": embeddings,
        "box_variance": rng.random((boxes, 4), dtype=np.float32),
        "shape_confidence": rng.random(boxes, dtype=np.float32),
        "box_embeddings": rng.random((boxes, 6), dtype=np.float32),
    }
    return replace(
        pool,
        committee=Committee(pool.offsets, members, rng.random((3, boxes, 4), dtype=np.float32)),
        labeled_embeddings=rng.random((60, embeddings.shape[1]), dtype=np.float32),
        labeled_losses=rng.random(60, dtype=np.float32),
        columns=columns | {"thumbnails": rng.integers(0, 256, (len(pool), 192)).astype(np.uint8)},
        labeled_thumbnails=rng.integers(0, 256, (60, 192)).astype(np.uint8),
        batch=batch,
        map50=0.5,
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
    rows = np.concatenate([np.arange(pool.offsets[i], pool.offsets[i + 1]) for i in order])
    offsets = np.concatenate([[0], np.cumsum(np.diff(pool.offsets)[order])]).astype(np.int64)
    committee = pool.committee
    if committee is not None:
        assert (committee.offsets == pool.offsets).all()
        committee = Committee(offsets, committee.member_probs[:, rows], committee.member_boxes[:, rows])
    return replace(
        pool,
        task_ids=pool.task_ids[order],
        offsets=offsets,
        class_probs=pool.class_probs[rows],
        columns=select_rows(pool.columns, rows, order),
        committee=committee,
    )


def values(name: str, pool: Pool, seed: int = 0) -> npt.NDArray[Any]:
    if name == "video" and "embeddings" in pool.columns:  # the others are about images
        pool = with_columns(pool, video_doubt=pool.columns["embeddings"][:, 0])
    return acquisition.get(name)(pool, np.random.default_rng(seed))


# The pure measures


def test_worked_examples() -> None:
    assert least_confidence(EXAMPLES) == pytest.approx([0.5, 0.66, 0.6])
    assert margin(EXAMPLES) == pytest.approx([0.9, 0.99, 1.0])
    assert entropy(EXAMPLES) / np.log(2) == pytest.approx([1.361, 1.585, 1.522], abs=5e-4)


@pytest.mark.parametrize(
    ("measure", "order"),
    [(least_confidence, [1, 2, 0]), (margin, [2, 1, 0]), (entropy, [1, 2, 0]), (variance, [1, 2, 0])],
)
def test_order_of_worked_examples(measure: Any, order: list[int]) -> None:
    assert np.argsort(-measure(EXAMPLES)).tolist() == order


@pytest.mark.parametrize("measure", [least_confidence, margin, entropy, variance])
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
    for measure in (least_confidence, margin, entropy, variance):
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


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("least_confidence", [1, 2, 0]),
        ("margin", [2, 1, 0]),
        ("variance", [1, 2, 0]),
        *((name, [1, 2, 0]) for name in ("entropy", "entropy_max", "entropy_mean", "entropy_sum")),
    ],
)
def test_images_of_a_choice_come_in_the_order_of_the_worked_examples(strategy: str, order: list[int]) -> None:
    """With the outcome "nothing", as for boxes, the order would be reversed: for p₁ < .5 the highest comes first."""
    pool = Pool(np.arange(3), np.arange(4), np.array(EXAMPLES, np.float32), exclusive=True)
    assert np.argsort(-values(strategy, pool)).tolist() == order
    boxes = np.argsort(-values(strategy, replace(pool, exclusive=False))).tolist()
    assert boxes != order or strategy == "variance"


def test_class_entropy_of_a_choice_uses_its_most_likely_class() -> None:
    pool = Pool(np.arange(3), np.arange(4), np.array(EXAMPLES, np.float32), exclusive=True)
    expected = binary_entropy([0.5, 0.34, 0.4])
    assert values("class_entropy", pool) == pytest.approx(expected)
    weighted = replace(pool, class_weights=np.array([2, 1, 1], np.float32))
    assert values("class_entropy", weighted) == pytest.approx(2 * expected)


@pytest.mark.parametrize("strategy", ["entropy", "entropy_max", "class_entropy", "margin", "least_confidence"])
def test_of_several_labels_an_unsure_second_one_counts(strategy: str) -> None:
    scores = np.array([[0.99, 0.02, 0.01], [0.99, 0.5, 0.01]], np.float32)
    pool = calibrated(Pool(np.arange(2), np.arange(3), scores), 1.0, "several")
    sure, unsure = values(strategy, pool)
    assert unsure > 2 * sure


@pytest.mark.parametrize(
    ("outcomes", "scores", "expected"),
    [
        ("objects", [[0.5, 0.1], [0.99, 0.01]], 0.54),
        ("one", [[0.1] * 10, [0.91, *[0.01] * 9]], 0.61),
        ("several", [[0.99, 0.5], [0.99, 0.01]], 0.54),
    ],
)
def test_uncertainty_of_the_rows_of_a_pool(outcomes: Outcomes, scores: list[list[float]], expected: float) -> None:
    pool = Pool(np.arange(2), np.arange(3), np.array(scores, np.float32))
    assert mean_uncertainty(calibrated(pool, 1.0, outcomes)) == pytest.approx(expected, abs=0.01)


# From boxes to an image


def test_top_sum_takes_the_largest_k() -> None:
    crowd = np.full(30, 0.1)
    assert top_sum(np.concatenate([crowd, [0.9, 0.8]]), np.array([0, 30, 32]), k=10) == pytest.approx([1.0, 1.7])


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """The boxes of an image are never split, even if they are more than a block."""
    pool = make_pool(images=30)
    values = pool.class_probs[:, 0]
    whole, sums = top_rows(values, pool.offsets, 4), acquisition.get("margin")(pool, np.random.default_rng(0))
    expected = [row for begin, end in pairwise(pool.offsets) for row in begin + np.argsort(-values[begin:end])[:4]]
    monkeypatch.setattr(aggregation, "BLOCK", block)
    assert top_rows(values, pool.offsets, 4).tolist() == whole.tolist() == expected
    assert (acquisition.get("margin")(pool, np.random.default_rng(0)) == sums).all()
    assert top_rows(values[:0], np.zeros(3, np.int64), 4).tolist() == []


@pytest.mark.parametrize("name", ["class_entropy", "entropy_max", "entropy_mean", "margin", "localization"])
def test_empty_decides_the_value_of_images_without_boxes(name: str) -> None:
    pool = make_pool()
    nothing = np.diff(pool.offsets) == 0
    values = {
        empty: acquisition.get(name)(replace(pool, empty=empty), np.random.default_rng(0))
        for empty in ("lowest", "median", "highest")
    }
    assert values["lowest"][nothing].max() == values["lowest"].min()
    assert values["highest"][nothing].min() == values["highest"].max()
    assert values["lowest"][nothing].max() < values["median"][nothing].max() < values["highest"][nothing].max()
    assert (values["lowest"][~nothing] == values["highest"][~nothing]).all()


@pytest.mark.parametrize(("empty", "expected"), [("lowest", 1.0), ("median", 2.0), ("highest", 6.0)])
def test_images_without_boxes(empty: Empty, expected: float) -> None:
    sums = top_sum(np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1, 2, 2, 3, 3]), empty=empty)
    assert sums.tolist() == [expected, 1.0, 2.0, expected, 6.0, expected]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [(largest, [3.0, 6.0]), (mean, [2.0, 6.0]), (total, [6.0, 6.0]), (top_mean, [2.0, 6.0]), (top_sum, [6.0, 6.0])],
)
def test_aggregations(aggregate: Any, expected: list[float]) -> None:
    assert aggregate(np.array([1.0, 3.0, 2.0, 6.0]), np.array([0, 3, 4])).tolist() == expected
    middle = float(np.median(expected))
    assert aggregate(np.array([1.0, 3.0, 2.0, 6.0]), np.array([0, 3, 3, 4])).tolist() == [
        expected[0],
        middle,
        expected[1],
    ]
    assert aggregate(np.zeros(0), np.array([0, 0])).tolist() == [0.0]
    assert aggregate(np.zeros(0), np.array([0])).tolist() == []


def test_top_mean_leaves_out_the_smallest() -> None:
    assert top_mean(np.array([1.0, 3.0, 2.0]), np.array([0, 3]), k=2).tolist() == [2.5]


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
    family = {"random", "least_confidence", "margin", "variance", "entropy", "class_entropy"}
    aggregated = {"entropy_max", "entropy_mean", "entropy_sum"}
    spread = {"core_set", "kmeans", "class_entropy_unique", "information_density", "max_herding", "ppal", "auto"}
    assert family | aggregated | spread <= set(acquisition.names())


def test_unknown_strategy_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(SettingError, match=r"entrpy.*class_entropy, .*entropy") as caught:
        acquisition.get("entrpy")
    assert caught.value.status == 400


def test_a_name_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    register = acquisition.acquisition("twice", asks="?", cost="none", paper="none")
    register(lambda pool, rng: np.zeros(len(pool)))
    with pytest.raises(ValueError, match="'twice' is already"):
        register(lambda pool, rng: np.ones(len(pool)))


def test_needs_that_no_pool_has_are_refused() -> None:
    register = acquisition.acquisition("nose", asks="?", cost="none", paper="none", needs=frozenset({"smell"}))
    with pytest.raises(ValueError, match=r"'nose' needs smell; use some of .*box_variance"):
        register(lambda pool, rng: np.zeros(len(pool)))


# The contract of every strategy


@pytest.fixture(params=acquisition.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def copies() -> Pool:
    """Return a pool that shows the same image 30 times."""
    pool = make_pool(images=30)
    pool = replace(pool, labeled_embeddings=np.ones((60, 8), np.float32))
    return with_columns(pool, embeddings=np.ones((30, 8), np.float32))


POOLS = {
    "usual": make_pool(weights=[1, 2, 3, 1, 1]),
    "one class": make_pool(classes=1),
    "80 classes": make_pool(images=20, classes=80),
    "no weights": make_pool(),
    "one image": make_pool(images=1),
    "two images": make_pool(images=2),
    "no boxes": make_pool(most=0, weights=[1, 2, 3, 1, 1]),
    "no images": make_pool(images=0),
    "classes unknown": complete(Pool(np.array([1, 2]), np.array([0, 0, 0]), np.zeros((0, 0), np.float32))),
    "saturated": complete(boxes([[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [], weights=[1.0, 3.0])),
    "copies": copies(),
    "batch of one": replace(make_pool(), batch=1),
    "batch larger than the pool": replace(make_pool(), batch=1000),
    "zero embeddings": with_columns(make_pool(), embeddings=np.zeros((40, 8), np.float32)),
    "cold model": replace(make_pool(), map50=0.1),
}


@pytest.mark.parametrize("kind", POOLS)
def test_one_finite_value_per_image(name: str, kind: str) -> None:
    got = values(name, POOLS[kind])
    assert got.shape == (len(POOLS[kind]),)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("kind", ["usual", "copies", "no boxes", "zero embeddings", "cold model", "one class"])
def test_strategies_that_order_give_every_place_once(name: str, kind: str) -> None:
    n = len(POOLS[kind])
    got = values(name, POOLS[kind])
    orders = acquisition.get(name).relative and name != "choi"  # its z-scores compare within the pool, but order none
    assert not orders or sorted(got.tolist()) == list(range(1, n + 1))


def test_a_missing_need_of_a_strategy_is_named(name: str) -> None:
    pool = boxes([[0.5, 0.2]])
    missing = sorted(need for need in acquisition.get(name).needs if not pool.has(need))
    if missing:
        with pytest.raises(ModelError, match=f"'{name}' needs {missing[0]}"):
            values(name, pool)
    else:
        assert values(name, pool).shape == (1,)


def test_same_seed_same_values_and_the_pool_is_left_alone(name: str) -> None:
    pool = POOLS["usual"]
    before = pool.class_probs.copy()
    assert values(name, pool, seed=3).tolist() == values(name, pool, seed=3).tolist()
    assert (pool.class_probs == before).all()


@pytest.mark.parametrize("kind", ["usual", "copies", "no boxes", "cold model"])
def test_permuting_the_pool_permutes_the_values(name: str, kind: str) -> None:
    pool = POOLS[kind]
    order = np.random.default_rng(5).permutation(len(pool))
    assert values(name, permuted(pool, order)) == pytest.approx(values(name, pool)[order], rel=1e-6)


def test_every_strategy_describes_itself(name: str) -> None:
    entry = acquisition.get(name)
    assert entry.name == name
    assert entry.asks
    assert entry.cost
    assert entry.paper
    assert entry.when, "people choose a strategy by this text"


@pytest.mark.parametrize(
    "strategy", ["least_confidence", "margin", "variance", "entropy", "class_entropy", "entropy_max"]
)
@pytest.mark.parametrize("classes", [1, 3])
def test_undecided_before_certain_before_noise(strategy: str, classes: int) -> None:
    others = [0.01] * (classes - 1)
    undecided, certain, noise = values(strategy, boxes([[0.5, *others]], [[0.97, *others]], [[0.01, *others]]))
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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "field",
    [
        *("class_probs", "class_weights", "labeled_embeddings"),
        *("embeddings", "box_embeddings", "box_variance", "shape_confidence"),
    ],
)
def test_values_that_are_not_finite_are_refused_by_name(field: str, bad: float) -> None:
    pool = POOLS["usual"]
    array: Any = (pool.columns[field] if field in pool.columns else getattr(pool, field)).copy()
    array.flat[1] = bad
    with pytest.raises(ValueError, match=f"{field} holds NaN or infinity"):
        with_columns(pool, **{field: array}) if field in pool.columns else replace(pool, **{field: array})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"columns": {"embeddings": np.zeros((3, 8), np.float32)}}, "embeddings .* must have 40 rows"),
        ({"columns": {"embeddings": np.zeros(40, np.float32)}}, "embeddings .* must have 40 rows"),
        ({"columns": {"box_embeddings": np.zeros((3, 8), np.float32)}}, "box_embeddings .* must have"),
        ({"labeled_embeddings": np.zeros((3, 7), np.float32)}, "labeled_embeddings .* do not fit"),
        ({"labeled_embeddings": np.zeros(8, np.float32)}, "labeled_embeddings .* do not fit"),
        ({"batch": 0}, "batch is 0"),
        ({"map50": 1.5}, "map50 is 1.5"),
        ({"map50": float("nan")}, "map50 is nan"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(POOLS["usual"], **changes)


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


@pytest.mark.processes
def test_a_million_boxes_take_about_a_second() -> None:
    pool = make_pool(images=100_000, classes=10, most=20)
    started = time.process_time()
    values("entropy", pool)
    assert time.process_time() - started < 1.5  # 0.4 s of an idle core
