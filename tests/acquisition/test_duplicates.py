"""Near-duplicates: groups within a radius, "near" for thumbnails, and the resulting order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.acquisition import duplicates
from backend.acquisition.distances import unit
from backend.acquisition.pool import Pool
from tests.acquisition.test_contract import values
from tests.acquisition.test_diversity import embedded, first
from tests.columns import with_columns

Points = npt.NDArray[np.uint8]


def looks(n: int, seed: int = 0) -> Points:
    """Return thumbnails of n images (n, 192), with random brightness and colours that differ less."""
    rng = np.random.default_rng(seed)
    return np.asarray((128 + rng.normal(0, 30, (n, 1)) + rng.normal(0, 12, (n, 192))).clip(0, 255).astype(np.uint8))


def nearly_alike(points: Points, seed: int = 1) -> Points:
    """Return near-copies of images: brightness changed by 5%, and a little noise everywhere."""
    rng = np.random.default_rng(seed)
    changed = points * rng.uniform(0.95, 1.05, (len(points), 1)) + rng.normal(0, 1.5, points.shape)
    return np.asarray(changed.clip(0, 255).astype(np.uint8))


def pictured(points: Points, labeled: Points | None = None, map50: float | None = None) -> Pool:
    """Return a pool of images with these thumbnails, whose embeddings are the thumbnails too."""
    labeled_points = None if labeled is None else labeled.astype(np.float64)
    pool = embedded(points.astype(np.float64), labeled_points, map50=map50)
    return replace(with_columns(pool, thumbnails=points), labeled_thumbnails=labeled)


@pytest.mark.parametrize("n", [300, 6000])
def test_copies_find_their_leader(n: int) -> None:
    rng = np.random.default_rng(0)
    originals = unit(rng.normal(size=(n, 32)))
    points = np.concatenate([originals, originals[: n // 3] + 1e-4 * rng.normal(size=(n // 3, 32)).astype(np.float32)])
    leader = duplicates.near_duplicates(points, 0.1, rng)
    assert leader[:n].tolist() == list(range(n))
    assert leader[n:].tolist() == list(range(n // 3))


@given(st.lists(st.integers(0, 40), max_size=40))
@settings(max_examples=60, deadline=None)
def test_groups_keep_to_the_radius(line: list[int]) -> None:
    points = np.array(line, dtype=np.float64).reshape(-1, 1)
    leader = duplicates.near_duplicates(points, 2.5, np.random.default_rng(0))
    assert (leader <= np.arange(len(line))).all()
    assert (leader[leader] == leader).all()
    assert (np.abs(points[leader] - points) <= 2.5).all()
    heads = np.sort(points[leader == np.arange(len(line)), 0])
    assert (np.diff(heads) > 2.5).all()


def repeated(points: Points, labeled: Points | None = None) -> list[bool]:
    """Return which images are near-duplicates, if earlier images have higher values."""
    pool = pictured(points, labeled)
    better = -np.arange(len(points), dtype=np.float64)
    flags: list[bool] = duplicates.repeats(pool, np.arange(len(points)), better, np.random.default_rng(0)).tolist()
    return flags


def test_near_copies_are_found_and_different_images_are_not() -> None:
    originals = looks(200)
    assert repeated(np.concatenate([originals, nearly_alike(originals)])) == [False] * 200 + [True] * 200


def test_copies_of_labeled_images_are_found() -> None:
    labeled, fresh = looks(200), looks(50, seed=2)
    assert repeated(np.concatenate([nearly_alike(labeled[:50]), fresh]), labeled) == [True] * 50 + [False] * 50


def test_embeddings_do_not_decide_near_duplicates() -> None:
    """An early version embeds different images alike, and copies apart."""
    originals, rng = looks(200), np.random.default_rng(3)
    pool = pictured(np.concatenate([originals, nearly_alike(originals)]))
    for embeddings in (np.ones((400, 32)), rng.normal(size=(400, 32))):
        blind = with_columns(replace(pool, labeled_embeddings=None), embeddings=embeddings.astype(np.float32))
        again = duplicates.repeats(blind, np.arange(400), -np.arange(400.0), rng)
        assert again.tolist() == [False] * 200 + [True] * 200


@pytest.mark.parametrize("n", [0, 1, 2, 7, 31])
def test_a_small_pool_has_exact_copies_only(n: int) -> None:
    originals = looks(n)
    assert repeated(np.concatenate([originals, originals[:3]]) if n < 20 else originals) == (
        [False] * n + [True] * (min(n, 3) if n < 20 else 0)
    )


def test_a_pool_of_equal_images_is_one_image_and_its_copies() -> None:
    assert repeated(np.full((100, 192), 7, dtype=np.uint8)) == [False] + [True] * 99


def test_a_large_pool_is_whitened_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "SAMPLE", 1000)
    white = duplicates.whitened(looks(4000).astype(np.float64), np.random.default_rng(0))
    assert white.shape == (4000, 64)
    assert white.std(axis=0) == pytest.approx(np.ones(64), abs=0.3)


@pytest.mark.parametrize("name", ["class_entropy_unique", "information_density_unique", "auto"])
@pytest.mark.parametrize("map50", [0.1, 0.6])
def test_one_of_a_group_is_offered_the_rest_go_to_the_back(name: str, map50: float) -> None:
    originals = looks(50)
    pool = pictured(np.concatenate([originals, originals[:20], originals[:20]]), looks(60, seed=1), map50=map50)
    order = first(name, pool, 90)
    shown = [row if row < 50 else (row - 50) % 20 for row in order]
    assert len(set(shown[:50])) == 50
    scores = values("class_entropy", pool)
    for row in range(20):
        group = [row, row + 50, row + 70]
        assert next(at for at in order if at in group) == max(group, key=lambda at: scores[at])


@pytest.mark.parametrize("name", ["class_entropy_unique", "information_density_unique", "auto"])
def test_a_near_duplicate_of_a_labeled_image_goes_to_the_back(name: str) -> None:
    labeled = looks(100)
    pool = pictured(np.concatenate([labeled[:30], looks(60, seed=1)]), labeled, map50=0.6)
    assert sorted(first(name, pool, 60)) == list(range(30, 90))
