"""TypiClust and ProbCover: worked examples, plain loops, and pools where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from backend.acquisition import typical
from tests.acquisition.test_diversity import Points, embedded, first


def three_groups(rng: np.random.Generator, sizes: tuple[int, ...] = (40, 20, 10)) -> Points:
    """Return groups of unit vectors around orthogonal directions, of these sizes, one after the other."""
    centres = np.repeat(np.eye(3, 8), sizes, axis=0)
    return centres + rng.normal(0, 0.05, centres.shape)


def test_typicality_is_the_inverse_of_the_mean_distance_to_the_nearest_points() -> None:
    points = np.random.default_rng(0).normal(size=(60, 4))
    expected = [
        1 / np.sort(np.linalg.norm(points - point, axis=1))[1 : 1 + typical.NEIGHBOURS].mean() for point in points
    ]
    np.testing.assert_allclose(typical.typicality(points, points), expected, rtol=1e-5)


def test_the_pure_radius_is_below_the_distance_to_another_cluster() -> None:
    points, clusters = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1])
    radius = typical.pure_radius(points, clusters)
    for point, cluster in zip(points, clusters, strict=True):
        inside = np.abs(points - point)[:, 0] < radius
        assert set(clusters[inside]) == {cluster}
    assert typical.pure_radius(points, np.zeros(4, dtype=np.int64)) == 0.0


def test_covering_picks_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    near = rng.random((30, 30)) < 0.15
    near |= near.T
    np.fill_diagonal(near, val=True)
    covered, expected = np.zeros(30, np.bool_), []
    while not covered.all():
        gains = [(row & ~covered).sum() for row in near]
        expected.append(int(np.argmax(gains)))
        covered |= near[expected[-1]]
    assert typical.covering_picks(near, np.zeros(30, np.bool_), 30).tolist() == expected


def test_small_clusters_are_outliers_and_come_last() -> None:
    clusters = np.array([0] * 6 + [1] * 4 + [2] * 5)
    picks = typical.typical_picks(clusters, np.zeros(15), np.array([], dtype=np.int64), 3)
    assert clusters[picks].tolist() == [0, 2, 0]


def test_a_cluster_with_a_label_waits() -> None:
    clusters = np.array([0] * 6 + [1] * 5)
    picks = typical.typical_picks(clusters, np.zeros(11), np.array([0]), 2)
    assert clusters[picks].tolist() == [1, 0]


@pytest.mark.parametrize("name", ["typiclust", "probcover"])
def test_a_first_batch_has_each_group_and_typical_members_of_it(name: str) -> None:
    points = three_groups(np.random.default_rng(2))
    outlier = np.zeros((1, 8))
    outlier[0, 7] = 1.0
    picks = first(name, embedded(np.concatenate([points, outlier]), batch=3), 3)
    assert sorted(np.searchsorted([40, 60, 70], picks, side="right").tolist()) == [0, 1, 2]


@pytest.mark.parametrize("name", ["typiclust", "probcover"])
def test_groups_with_labels_wait(name: str) -> None:
    points = three_groups(np.random.default_rng(3))
    pool = embedded(points, labeled=points[[0, 45]], batch=1)
    (pick,) = first(name, pool, 1)
    assert pick >= 60
