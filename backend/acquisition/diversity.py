"""Diversity: batches that spread over the embeddings, by k-center greedy and by clusters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backend.acquisition.distances import (
    Floats,
    by_task,
    from_products,
    labeled_units,
    nearest,
    places,
    squared_distances,
    squared_lengths,
    units,
)
from backend.acquisition.duplicates import set_back
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.acquisition.uncertainty import image_class_entropy
from backend.types import FloatArray, IntArray

EMBEDDINGS = frozenset({"embeddings"})
BOTH = frozenset({"class_probs", "embeddings"})
FRONT = 1024  # farthest points whose distances stay up to date; with more, BLAS starts threads for each pick
_ROUNDING = 2e-6  # of the squared lengths: what float32 may have got wrong in a squared distance
_TIE = 1e-5  # relative difference of squared distances that float32 may have got wrong
_TIED = 64


def k_center(points: Floats, labeled: Floats, batch: int) -> IntArray:
    """Return the first `batch` picks of argmax_i min_j d(i, j) over labeled and picked j: (n, D), (l, D) -> (b,).

    Without labeled points, the first pick is the point nearest to the mean. Ties go to the lower row, or beyond 1,024
    points to any row, the same in every run. The result is exact although most distances are never computed: the
    distance to the nearest pick only shrinks, so an outdated distance still proves that a point is not the farthest.
    Source: Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018.

    >>> k_center(np.array([[1.0], [10.0], [11.0]]), np.array([[0.0]]), 2)  # then 1 and 10 tie
    array([2, 0])
    """
    points = np.asarray(points, dtype=np.float32)
    picks: list[int] = []
    near = nearest(points, labeled)
    if not len(labeled) and len(points):
        picks.append(int(squared_distances(points, points.mean(axis=0, keepdims=True))[:, 0].argmin()))
        near = nearest(points, points[picks])
        near[picks] = -1.0
    picks_counted = np.full(len(points), len(picks))  # how many picks each distance takes into account
    while len(picks) < min(batch, len(points)):
        front, bound = _front(near)
        near[front] = np.minimum(near[front], nearest(points[front], points[picks[picks_counted[front].min() :]]))
        _pick(points, labeled, front, near, bound, picks, min(batch, len(points)))
        picks_counted[front] = len(picks)
    return np.array(picks[:batch], dtype=np.int64)


def _front(near: FloatArray) -> tuple[IntArray, float]:
    """Return the rows of the largest distances, ascending, and a bound that no other row's distance exceeds."""
    if len(near) <= FRONT:
        return np.arange(len(near)), -np.inf
    parted = np.argpartition(near, len(near) - FRONT)
    return np.sort(parted[-FRONT:]), float(near[parted[:-FRONT]].max())


def _pick(
    points: FloatArray,
    labeled: Floats,
    front: IntArray,
    near: FloatArray,
    bound: float,
    picks: list[int],
    batch: int,
) -> None:
    """Append picks from the front while its farthest point is the farthest of all, and update `near` of the front."""
    inside, distance = points[front], near[front]
    lengths = squared_lengths(inside)
    while len(picks) < batch:
        farthest = int(distance.argmax())
        if distance[farthest] < bound:
            break
        tied = np.flatnonzero(distance >= distance[farthest] * (1.0 - _TIE))[:_TIED]
        if len(tied) > 1 and distance[farthest] > 0:
            farthest = int(tied[_exact(inside[tied], labeled, points[picks]).argmax()])
        picks.append(int(front[farthest]))
        squares = from_products(inside @ inside[farthest], lengths + lengths[farthest])
        np.minimum(distance, squares, out=distance)
        distance[farthest] = -1.0
    near[front] = distance


def _exact(points: FloatArray, labeled: Floats, picked: FloatArray) -> npt.NDArray[np.float64]:
    """Return what `nearest` does, in float64, for a few points (n,), so that rounding does not decide between them.

    Only the centres that are nearest within the rounding of float32 are measured again.
    """
    centres = np.concatenate([labeled, picked])
    squares = squared_distances(points, centres)
    rounding = _ROUNDING * (squared_lengths(points)[:, None] + squared_lengths(centres))
    is_nearest = squares - rounding <= (squares + rounding).min(axis=1, keepdims=True)
    rows, columns = np.nonzero(is_nearest)
    difference = points[rows].astype(np.float64) - centres[columns]
    least = np.full(len(points), np.inf)
    np.minimum.at(least, rows, np.einsum("ij,ij->i", difference, difference))
    return least


def round_robin(clusters: IntArray, scores: Floats) -> IntArray:
    """Return rows in turns: the best of each cluster, then the second best of each, ...: (n,), (n,) -> (n,).

    Within a turn the higher score comes first; ties go to the lower row.

    >>> round_robin(np.array([0, 0, 0, 1, 1]), np.array([.9, .8, .7, .2, .1]))
    array([0, 3, 1, 4, 2])
    """
    order = np.lexsort((-scores, clusters))
    starts = np.searchsorted(clusters[order], clusters[order])
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = np.arange(len(order)) - starts
    return np.asarray(np.lexsort((-scores, turn)), dtype=np.int64)


@acquisition(
    "core_set",
    asks="which image is farthest from all that are labeled or chosen?",
    needs=EMBEDDINGS,
    cost="at most n·B distances",
    paper="Sener & Savarese, Active Learning for CNNs: A Core-Set Approach, ICLR 2018",
    when="rare images matter more than typical ones; it prefers outliers and ignores uncertainty",
    relative=True,
)
def core_set(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return places (n,): one batch by k-center greedy, the rest by their distance to labels and batch."""
    order = by_task(pool)
    points, labeled = units(pool, order), labeled_units(pool)
    picks = k_center(points, labeled, pool.batch)
    return places(order, picks, nearest(points, np.concatenate([labeled, points[picks]])))


@acquisition(
    "kmeans",
    asks="what is the most uncertain image of each cluster?",
    needs=BOTH,
    cost="mini-batch k-means with B clusters",
    paper="after Zhdanov, Diverse mini-batch Active Learning, 2019",
    when="uncertain images look alike, as in video, and a batch should have different images",
    relative=True,
)
def kmeans(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): round robin over B clusters of the embeddings, highest class-weighted entropy first."""
    order = by_task(pool)
    clusters = k_means(units(pool, order), pool.batch, int(rng.integers(2**31)))
    picks = round_robin(clusters, image_class_entropy(pool, rng)[order])
    return places(order, picks, np.zeros(len(pool)))


@acquisition(
    "class_entropy_unique",
    asks="as class_entropy, and does another image show the same?",
    needs=frozenset({"class_probs", "thumbnails"}),
    cost="1,024 distances per image, twice",
    paper="near-duplicates come last, after Yang et al., CVPR 2024",
    when="the pool has copies, bursts or video frames, and all images belong",
)
def class_entropy_unique(pool: Pool, rng: np.random.Generator) -> Values:
    """Return class-weighted entropy (n,); `set_back` puts near-duplicates below all others."""
    return set_back(pool, image_class_entropy(pool, rng), rng)


def k_means(points: Floats, count: int, seed: int) -> IntArray:
    """Return the cluster of each point (n, D) -> (n,), by mini-batch k-means with at most `count` clusters."""
    from sklearn.cluster import MiniBatchKMeans  # takes a second to import

    if not len(points):
        return np.zeros(0, dtype=np.int64)
    model = MiniBatchKMeans(min(count, len(points)), batch_size=4096, n_init=1, max_iter=20, random_state=seed)
    return np.asarray(model.fit_predict(points), dtype=np.int64)
