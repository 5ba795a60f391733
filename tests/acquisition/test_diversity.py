"""Diversity and density: greedy picks compared with plain loops, near-duplicates, PPAL, and `auto`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.acquisition import auto, density, diversity, ppal
from backend.acquisition.distances import half_spread, nearest, squared_distances, unit
from backend.acquisition.pool import Pool
from tests.acquisition.test_contract import make_pool, values

Points = npt.NDArray[np.floating[Any]]
NOTHING = np.zeros((0, 1))


def embedded(embeddings: Points, labeled: Points | None = None, batch: int = 10, **changes: Any) -> Pool:
    """Return a pool of images with these embeddings; task ids 1, 2, ..."""
    pool = make_pool(images=len(embeddings))
    labeled_points = np.zeros((0, embeddings.shape[1])) if labeled is None else labeled
    return replace(
        pool,
        task_ids=np.arange(1, len(pool) + 1),
        columns={**pool.columns, "embeddings": embeddings.astype(np.float32)},
        labeled_embeddings=labeled_points.astype(np.float32),
        labeled_losses=None,
        batch=batch,
        **changes,
    )


def first(name: str, pool: Pool, count: int) -> list[int]:
    """Return the rows that a strategy puts first."""
    return [int(row) for row in np.argsort(-values(name, pool), kind="stable")[:count]]


def clustered(n: int, seed: int = 0, clusters: int = 50, dimensions: int = 16) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dimensions))
    return unit(centres[rng.integers(0, clusters, n)] + 0.3 * rng.normal(size=(n, dimensions)))


def scattered(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return embeddings without near-duplicates."""
    return unit(np.random.default_rng(seed).normal(size=(n, 64)))


# Geometry


def test_squared_distances_are_those_of_float64() -> None:
    x, y = clustered(30), clustered(20, seed=1)
    exact = ((x[:, None].astype(np.float64) - y) ** 2).sum(axis=2)
    assert squared_distances(x, y) == pytest.approx(exact, abs=1e-6)
    assert np.diag(squared_distances(x, x)).tolist() == [0.0] * 30


def test_nearest_beyond_one_block() -> None:
    x, y = clustered(3000), clustered(2500, seed=1)
    assert nearest(x, y) == pytest.approx(squared_distances(x, y).min(axis=1))
    assert np.isinf(nearest(x, y[:0])).all()


def test_half_spread_is_that_of_all_pairs() -> None:
    x = clustered(40)
    assert half_spread(x) == pytest.approx(squared_distances(x, x).mean() / 2, rel=1e-4)


# Core-set


def loop_k_center(points: Points, labeled: Points, batch: int) -> list[int]:
    picks: list[int] = []
    for _ in range(batch):
        centres = np.concatenate([labeled, points[picks]]).astype(np.float64)
        near = np.linalg.norm(points[:, None].astype(np.float64) - centres, axis=2).min(axis=1)
        near[picks] = -1
        picks.append(int(near.argmax()))
    return picks


@pytest.mark.parametrize("n", [60, 5000])
def test_k_center_picks_what_a_plain_loop_picks(n: int) -> None:
    points, labeled = clustered(n), clustered(5, seed=1)
    assert diversity.k_center(points, labeled, 25).tolist() == loop_k_center(points, labeled, 25)


def test_k_center_is_exact_when_the_front_has_to_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "FRONT", 16)
    points, labeled = clustered(400), clustered(5, seed=1)
    assert diversity.k_center(points, labeled, 400).tolist() == loop_k_center(points, labeled, 400)


def test_k_center_begins_at_the_mean_and_ends_with_the_pool() -> None:
    line = np.array([[0.0], [4.0], [5.0], [10.0]])
    assert diversity.k_center(line, NOTHING, 9).tolist() == [2, 0, 3, 1]
    assert diversity.k_center(line[:0], NOTHING, 3).tolist() == []
    assert diversity.k_center(np.ones((9, 2)), np.ones((1, 2)), 3).tolist() == [0, 1, 2]


@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_copy_of_a_labeled_image_is_never_first(n: int, copies: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labeled = rng.normal(size=(4, 6))
    points = np.concatenate([labeled[rng.integers(0, 4, copies)] * rng.uniform(0.5, 2), rng.normal(size=(n, 6))])
    pool = embedded(points[rng.permutation(len(points))], labeled)
    copied = nearest(unit(pool.columns["embeddings"]), unit(pool.labeled_embeddings)) <= 1e-5  # type: ignore[arg-type]
    order = first("core_set", pool, len(pool))
    assert copied[order].tolist() == sorted(copied.tolist())


def test_the_rest_of_core_set_is_ordered_by_distance() -> None:
    pool = embedded(clustered(200), clustered(5, seed=1), batch=20)
    order = first("core_set", pool, 200)
    points = unit(pool.columns["embeddings"])
    centres = np.concatenate([unit(pool.labeled_embeddings), points[order[:20]]])  # type: ignore[arg-type]
    assert order[:20] == loop_k_center(points, centres[:5], 20)
    assert (np.diff(nearest(points, centres)[order[20:]]) <= 0).all()


# Clusters


def test_kmeans_takes_one_of_each_cluster() -> None:
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(5), 20)
    pool = embedded(np.eye(8)[which] + 0.01 * rng.normal(size=(100, 8)), batch=5)
    order = np.array(first("kmeans", pool, 10))
    assert sorted(which[order[:5]].tolist()) == [0, 1, 2, 3, 4]
    assert sorted(which[order[5:]].tolist()) == [0, 1, 2, 3, 4]
    scores = values("class_entropy", pool)
    best = [int(np.flatnonzero(which == cluster)[scores[which == cluster].argmax()]) for cluster in range(5)]
    assert order[:5].tolist() == sorted(best, key=lambda row: -scores[row])


# Density


def loop_herd(points: Points, weights: Points, labeled: Points, batch: int) -> list[int]:
    kernel = np.exp(-((points[:, None].astype(np.float64) - points) ** 2).sum(axis=2))
    labeled_kernel = np.exp(-((points[:, None].astype(np.float64) - labeled) ** 2).sum(axis=2))
    covered = labeled_kernel.max(axis=1, initial=0.0)
    picks: list[int] = []
    for _ in range(batch):
        gain = weights @ np.maximum(kernel - covered[:, None], 0.0)
        gain[picks] = -np.inf
        picks.append(int(gain.argmax()))
        covered = np.maximum(covered, kernel[:, picks[-1]])
    return picks


@pytest.mark.parametrize("weighted", [False, True])
def test_herd_picks_what_a_plain_loop_picks(weighted: bool) -> None:
    points, labeled = clustered(500), clustered(5, seed=1)
    weights = np.random.default_rng(0).random(500) if weighted else np.ones(500)
    picks, gains = density.herd(points, 40, references=points, labeled=labeled, weights=weights)
    assert picks.tolist() == loop_herd(points, weights, labeled, 40)
    assert (np.diff(gains) <= 1e-6).all()


def test_herd_of_little() -> None:
    assert density.herd(NOTHING, 3, references=NOTHING, labeled=NOTHING)[0].tolist() == []
    two = np.array([[0.0], [1.0]])
    assert sorted(density.herd(two, 9, references=two, labeled=two)[0].tolist()) == [0, 1]


def test_max_herding_begins_in_the_crowd_and_core_set_at_the_edge() -> None:
    crowd = unit(np.array([1.0, 0, 0]) + 0.05 * np.random.default_rng(0).normal(size=(30, 3)))
    pool = embedded(np.concatenate([crowd, [[0.0, 1.0, 0.0]]]), np.array([[0.0, 0.0, 1.0]]))
    assert first("max_herding", pool, 1)[0] < 30
    assert first("core_set", pool, 31).index(30) < 3
    assert first("information_density", replace(pool, class_weights=None), 31)[0] < 30


def test_a_large_pool_is_sampled_and_still_covers_all_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "CANDIDATES", 200)
    monkeypatch.setattr(density, "REFERENCES", 150)
    rng = np.random.default_rng(0)
    which = rng.integers(0, 6, 1000)
    pool = embedded(np.eye(8)[which] + 0.01 * rng.normal(size=(1000, 8)), batch=6)
    assert sorted(which[first("max_herding", pool, 6)].tolist()) == [0, 1, 2, 3, 4, 5]


def test_images_similar_to_the_others_are_typical() -> None:
    pool = embedded(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]))
    similarity = density.typicality(pool, np.random.default_rng(0))
    assert similarity == pytest.approx([(3 + 1 / 3) / 4] * 3 + [(1 + 3 / 3) / 4])
    wanted = np.argsort(-similarity * values("class_entropy", pool), kind="stable")
    assert first("information_density", pool, 4) == wanted.tolist()


def test_uncertain_images_that_do_not_belong_come_late() -> None:
    """A tenth of the pool lies apart and is twice as uncertain, so plain uncertainty picks all of it first."""
    rng, n = np.random.default_rng(0), 200
    points = np.eye(8)[0] + 0.2 * rng.normal(size=(n, 8))
    points[:20] = -np.eye(8)[rng.integers(1, 8, 20)] + 0.2 * rng.normal(size=(20, 8))
    scores = np.where(np.arange(n) < 20, 0.4, 0.1 + 0.05 * rng.random(n)).astype(np.float32)
    looks = rng.integers(0, 256, (n, 192)).astype(np.uint8)
    columns = {"embeddings": points.astype(np.float32), "thumbnails": looks}
    pool = Pool(np.arange(n), np.arange(n + 1), scores[:, None], columns)
    assert set(first("class_entropy", pool, 20)) == set(range(20))
    assert not set(first("information_density_unique", pool, 100)) & set(range(20))
    assert set(first("information_density_unique", pool, n)) == set(range(n))


# PPAL


def test_matching_similarity_is_what_a_loop_gives() -> None:
    rng = np.random.default_rng(0)
    image, classes, scores = np.sort(rng.integers(0, 8, 40)), rng.integers(0, 3, 40), rng.random(40)
    vectors = unit(rng.random((40, 5)))
    wanted = np.zeros((8, 8))
    for a in range(8):
        for b in range(8):
            for i in np.flatnonzero(image == a):
                same = (image == b) & (classes == classes[i])
                best = (vectors[same] @ vectors[i]).max() if same.any() else 0.0
                wanted[a, b] += scores[i] * best / scores[image == a].sum()
    got = ppal.matching_similarity(image, classes, scores, vectors, 8)
    assert got == pytest.approx((wanted + wanted.T) / 2, abs=1e-5)


@pytest.mark.parametrize("k", [1, 3, 9, 20])
def test_k_medoids_gives_k_rows_even_of_copies(k: int) -> None:
    assert len(set(ppal.k_medoids(np.zeros((9, 9)), k, np.random.default_rng(0)).tolist())) == min(k, 9)


def test_ppal_takes_uncertain_images_that_show_different_things() -> None:
    n = 20  # 4B = 16 uncertain images that show one of two things, and 4 certain ones
    probs = np.where(np.arange(n) < 16, 0.5, 0.99).astype(np.float32)[:, None]
    shown = np.where(np.arange(n) < 12, 0, 1)
    columns = {"box_embeddings": np.eye(4, dtype=np.float32)[shown]}
    pool = Pool(np.arange(n), np.arange(n + 1), probs, columns, batch=4)
    for seed in range(5):
        picks = np.argsort(-values("ppal", pool, seed))[:4]
        assert (picks < 16).all()
        assert set(shown[picks].tolist()) == {0, 1}


# The protocol


@pytest.mark.parametrize(
    ("labels", "map50", "cold"),
    [(None, None, True), (None, 0.1, True), (None, 0.2, False), (49, 0.9, True), (50, 0.1, True), (50, None, False)],
)
def test_when_a_model_is_cold(labels: int | None, map50: float | None, cold: bool) -> None:
    embeddings = None if labels is None else np.ones((labels, 8), np.float32)
    assert auto.is_cold(replace(make_pool(), labeled_embeddings=embeddings, labeled_losses=None, map50=map50)) is cold


def test_auto_ignores_the_boxes_of_a_cold_model() -> None:
    pool = embedded(scattered(300), scattered(60, seed=1), batch=10, map50=0.1)
    assert first("auto", pool, 10) == first("max_herding", pool, 10)


def test_auto_picks_uncertain_images_of_a_warm_model() -> None:
    pool = embedded(scattered(300), scattered(60, seed=1), batch=10, map50=0.6)
    scores = values("class_entropy", pool)
    top = np.argsort(-scores, kind="stable")
    picks = first("auto", pool, 10)
    assert set(picks) <= set(top[:40].tolist())
    assert picks != top[:10].tolist()
    others = [row for row in top.tolist() if row not in picks]
    assert first("auto", pool, 300)[10:] == others


@pytest.mark.parametrize(("n", "batch", "count"), [(0, 5, 0), (3, 5, 3), (100, 5, 20), (30, 5, 15), (8, 5, 5)])
def test_how_many_candidates(n: int, batch: int, count: int) -> None:
    assert len(auto.candidates(np.arange(n, dtype=np.float64), batch)) == count


def test_ten_thousand_images_take_seconds() -> None:
    pool = embedded(clustered(10_000, dimensions=64), clustered(60, seed=1, dimensions=64), batch=100, map50=0.6)
    started = time.process_time()
    values("auto", pool)
    values("core_set", pool)
    assert time.process_time() - started < 10
