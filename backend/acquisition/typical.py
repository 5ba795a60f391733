"""A first batch that teaches: typical images of clusters (TypiClust), and images that cover the pool (ProbCover).

Both read embeddings alone, so they work before anything is labeled, if the base weights are pretrained.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backend.acquisition.distances import (
    Floats,
    blocks,
    by_task,
    labeled_units,
    nearest,
    places,
    squared_distances,
    units,
)
from backend.acquisition.diversity import EMBEDDINGS, k_means
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.types import BoolArray, IntArray

NEIGHBOURS = 20  # of a typical image, as in the paper
MOST_CLUSTERS = 500  # as in the paper
SMALLEST_CLUSTER = 5  # images; smaller clusters are outliers, as in the paper
REFERENCES = 4096  # sample of a larger cluster in which neighbours are looked for
CANDIDATES = 8192  # sample of a larger pool that ProbCover covers
PURITY = 0.95  # share of balls that hold images of one cluster only, as in the paper


def typicality(points: Floats, references: Floats) -> npt.NDArray[np.float64]:
    """Return 1 / the mean distance to the 20 nearest references: (n, D), (r, D) -> (n,); the point itself is none.

    A point without another reference has 0. Source: Hacohen, Dekel & Weinshall, Active Learning on a Budget, ICML 2022.

    >>> line = np.array([[0.0], [1.0], [3.0]])
    >>> typicality(line, line).round(3)
    array([0.5  , 0.667, 0.4  ])
    """
    values = np.zeros(len(points))
    count = min(NEIGHBOURS, len(references) - 1)
    for rows in blocks(len(points)) if count > 0 else ():
        distances = np.sqrt(np.maximum(squared_distances(points[rows], references), 0.0))
        closest = np.sort(np.partition(distances, count, axis=1)[:, : count + 1], axis=1)
        values[rows] = 1.0 / np.maximum(closest[:, 1:].mean(axis=1, dtype=np.float64), 1e-12)
    return values


def typical_picks(clusters: IntArray, values: Floats, labeled_in: IntArray, batch: int) -> IntArray:
    """Return TypiClust's picks (b,): the most typical image of the largest cluster that has the fewest labels, in turn.

    `clusters` and `values` are (n,), `labeled_in` (l,) the clusters of labeled images. Clusters of fewer than 5 images
    come last.

    >>> typical_picks(np.array([0] * 6 + [1] * 5), np.arange(11.0), np.array([], dtype=int), 3)
    array([ 5, 10,  4])
    """
    count = int(clusters.max(initial=-1)) + 1
    sizes = np.bincount(clusters, minlength=count)
    taken = np.bincount(labeled_in, minlength=count)
    by_cluster = np.split(np.lexsort((values, clusters)), np.cumsum(sizes)[:-1])
    queues = [members.tolist() for members in by_cluster]  # the most typical image last
    picks: list[int] = []
    while len(picks) < min(batch, len(clusters)):
        waiting = [cluster for cluster in range(count) if queues[cluster]]
        chosen = min(waiting, key=lambda cluster: (sizes[cluster] < SMALLEST_CLUSTER, taken[cluster], -sizes[cluster]))
        picks.append(int(queues[chosen].pop()))
        taken[chosen] += 1
    return np.array(picks, dtype=np.int64)


def pure_radius(points: Floats, clusters: IntArray) -> float:
    """Return the radius up to which 95% of the open balls around points hold points of one cluster only.

    A ball is pure up to the distance to the nearest point of another cluster, so this is a quantile of that distance.

    >>> pure_radius(np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1]))
    4.0
    """
    impure = np.full(len(points), np.inf)
    for rows in blocks(len(points)):
        distances = np.sqrt(np.maximum(squared_distances(points[rows], points), 0.0))
        impure[rows] = np.where(clusters[rows, None] == clusters[None, :], np.inf, distances).min(
            axis=1, initial=np.inf
        )
    finite = impure[np.isfinite(impure)]
    return float(np.quantile(finite, 1.0 - PURITY, method="lower")) if len(finite) else 0.0


def covering_picks(near: BoolArray, covered: BoolArray, batch: int) -> IntArray:
    """Return ProbCover's picks (b,): each covers the most points that no earlier pick and no label covers.

    `near` (n, n) says which points a ball holds, `covered` (n,) which are covered already. It is greedy, and ends where
    nothing is left to cover. Source: Yehuda et al., Active Learning Through a Covering Lens, NeurIPS 2022.

    >>> covering_picks(np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]]) > 0, np.zeros(3, bool), 3)
    array([1])
    """
    gains, covered = (near & ~covered).sum(axis=1), covered.copy()
    picks: list[int] = []
    while len(picks) < batch and gains.max(initial=0) > 0:
        pick = int(gains.argmax())
        picks.append(pick)
        fresh = near[pick] & ~covered
        gains = gains - near[:, fresh].sum(axis=1)
        covered |= fresh
    return np.array(picks, dtype=np.int64)


@acquisition(
    "typiclust",
    asks="which images are the most typical of their kind?",
    needs=EMBEDDINGS,
    cost="k-means with a cluster per labeled or chosen image, and distances inside clusters",
    paper="Hacohen, Dekel & Weinshall, Active Learning on a Budget, ICML 2022",
    when="little or nothing is labeled and the base weights are pretrained; see also FIRST_BATCH",
    relative=True,
)
def typiclust(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): the most typical image of each cluster without labels, then the others by typicality."""
    order = by_task(pool)
    points, labeled = units(pool, order), labeled_units(pool)
    count = min(len(labeled) + pool.batch, MOST_CLUSTERS, max(len(points), 1))
    clusters = k_means(np.concatenate([points, labeled]), count, int(rng.integers(2**31)))
    own, values = clusters[: len(points)], np.zeros(len(points))
    for cluster in np.unique(own):
        members = np.flatnonzero(own == cluster)
        sample = members if len(members) <= REFERENCES else np.sort(rng.choice(members, REFERENCES, replace=False))
        values[members] = typicality(points[members], points[sample])
    return places(order, typical_picks(own, values, clusters[len(points) :], pool.batch), values)


@acquisition(
    "probcover",
    asks="which images have the most neighbours that no labeled image has?",
    needs=EMBEDDINGS,
    cost="k-means, and distances between at most 8,192 images",
    paper="Yehuda et al., Active Learning Through a Covering Lens, NeurIPS 2022; one cluster per image of the batch",
    when="as typiclust; it avoids outliers more strictly",
    relative=True,
)
def probcover(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): images in the order in which they cover the pool, then the others by typicality."""
    order = by_task(pool)
    points, labeled = units(pool, order), labeled_units(pool)
    rows = np.sort(rng.choice(len(points), min(len(points), CANDIDATES), replace=False)).astype(np.int64)
    sample = points[rows]
    clusters = k_means(sample, min(max(pool.batch, 2), max(len(sample), 1)), int(rng.integers(2**31)))
    radius = pure_radius(sample, clusters)
    covered = np.asarray(nearest(sample, labeled) < radius**2, dtype=np.bool_)
    picks = covering_picks(_within(sample, radius), covered, pool.batch)
    return places(order, rows[picks], typicality(points, sample))


def _within(points: Floats, radius: float) -> BoolArray:
    """Return which points (n, n) lie within a radius of each other, themselves included."""
    near = np.zeros((len(points), len(points)), dtype=np.bool_)
    for rows in blocks(len(points)):
        near[rows] = squared_distances(points[rows], points) < radius**2
    np.fill_diagonal(near, val=True)
    return near
