"""Density: batches that represent many images of the pool, by information density and MaxHerding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backend.acquisition.distances import (
    Floats,
    blocks,
    by_task,
    half_spread,
    labeled_units,
    nearest,
    places,
    squared_distances,
    units,
)
from backend.acquisition.diversity import BOTH, EMBEDDINGS
from backend.acquisition.duplicates import repeats
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.acquisition.uncertainty import image_class_entropy
from backend.types import FloatArray, IntArray

REFERENCES = 4096  # sample of a larger pool over which means and coverage are computed
CANDIDATES = 20_000  # sample of a larger pool from which MaxHerding picks
_ROWS = 128  # references at a time
BETA = 4  # similarities differ little; with a lower power, uncertain images that do not belong stay in front


def mean_similarity(points: Floats, references: Floats) -> npt.NDArray[np.float64]:
    """Return the mean of 1 / (1 + d) over the references: (n, D), (r, D) -> (n,), the point itself included.

    >>> mean_similarity(np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [1.0], [3.0]])).round(4)
    array([0.5833, 0.6111, 0.5278])
    """
    means = np.zeros(len(points))
    for rows in blocks(len(points)):
        squares = squared_distances(points[rows], references)
        np.sqrt(squares, out=squares)
        squares += 1.0
        means[rows] = np.reciprocal(squares, out=squares).mean(axis=1, dtype=np.float64)
    return means


def herd(
    points: Floats,
    batch: int,
    *,
    references: Floats,
    labeled: Floats,
    weights: Floats | None = None,
    scale: float = 1.0,
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Return MaxHerding's picks (b,) and the gain of each: points (n, D), references (r, D), labeled (l, D).

    gain(x) = Σ_r w_r·max(0, k(r, x) − max_{j labeled or picked} k(r, j)), k = exp(−d² / scale), weights (r,) or all 1.
    The search is greedy and exact, and takes 4·n·r bytes. A pick changes the gain only at references that it covers
    better than before. Source: Bae et al., Generalized Coverage for More Robust Low-Budget Active Learning, ECCV 2024.

    >>> line = np.array([[0.0], [1.0], [3.0]])
    >>> picks, gains = herd(line, 2, references=line, labeled=np.zeros((0, 1)))
    >>> picks, gains.round(3)
    (array([1, 2]), array([1.386, 0.982]))
    """
    weights = np.ones(len(references)) if weights is None else weights
    kernel = _kernel(references, points, scale)
    covered = np.exp(-nearest(references, labeled) / np.float32(scale))
    gain = np.zeros(len(points))
    for rows in blocks(len(references), _ROWS):
        gain += weights[rows] @ np.maximum(kernel[rows] - covered[rows, None], 0.0)
    picks = np.zeros(min(batch, len(points)), dtype=np.int64)
    gains = np.zeros(len(picks))
    for turn in range(len(picks)):
        pick = int(gain.argmax())
        picks[turn], gains[turn] = pick, gain[pick]
        _cover(kernel, weights, covered, gain, kernel[:, pick].copy())
        gain[pick] = -np.inf
    return picks, gains


def _kernel(references: Floats, points: Floats, scale: float) -> FloatArray:
    """Return exp(−d² / scale) (r, n)."""
    kernel = np.empty((len(references), len(points)), dtype=np.float32)
    for rows in blocks(len(references), _ROWS):
        kernel[rows] = squared_distances(references[rows], points)
        kernel[rows] /= -scale
        np.exp(kernel[rows], out=kernel[rows])
    return kernel


def _cover(kernel: FloatArray, weights: Floats, covered: FloatArray, gain: Floats, better: FloatArray) -> None:
    """Update `covered` (r,) and `gain` (n,) in place after a pick; `better` (r,) is the picked point's kernel."""
    changed = np.flatnonzero(better > covered)
    for part in blocks(len(changed), _ROWS):
        rows = changed[part]
        lost = kernel[rows]
        lost -= covered[rows, None]
        np.clip(lost, 0.0, (better[rows] - covered[rows])[:, None], out=lost)
        gain -= weights[rows].astype(np.float32) @ lost
    covered[changed] = better[changed]


def herd_sampled(
    points: FloatArray, labeled: FloatArray, batch: int, weights: Floats | None, rng: np.random.Generator
) -> IntArray:
    """Return MaxHerding's picks (b,) from points (n, D) with weights (n,); the points are also the references.

    Random samples bound memory and time: at most 20,000 points are candidates, and 4,096 are references. The scale of
    the kernel is half the mean squared distance of two points.
    """
    n = len(points)
    candidates = _sample(n, max(CANDIDATES, batch), rng)
    references = _sample(n, REFERENCES, rng)
    reference_weights = None if weights is None or not weights.any() else weights[references]
    picks, _ = herd(
        points[candidates],
        batch,
        references=points[references],
        labeled=labeled,
        weights=reference_weights,
        scale=half_spread(points),
    )
    return candidates[picks]


def _sample(n: int, most: int, rng: np.random.Generator) -> IntArray:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


@acquisition(
    "information_density",
    asks="how uncertain is the image, and how similar is it to the pool?",
    needs=BOTH,
    cost="4,096 distances per image",
    paper="Settles & Craven, An Analysis of Active Learning Strategies for Sequence Labeling Tasks, EMNLP 2008",
    when="the pool has images that do not belong; they are uncertain, but resemble no other image",
    relative=True,
)
def information_density(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): class-weighted entropy × mean similarity to the pool."""
    order = by_task(pool)
    scores = (typicality(pool, rng) * image_class_entropy(pool, rng))[order]
    return places(order, np.argsort(-scores, kind="stable"), scores)


@acquisition(
    "information_density_unique",
    asks="how uncertain is the image, how typical is it of the pool, and does another image show the same?",
    needs=BOTH | {"thumbnails"},
    cost="4,096 distances per image, and 1,024 twice",
    paper="after Settles & Craven, EMNLP 2008; near-duplicates come last",
    when="the pool is not cleaned: it has copies, bursts, and images that do not belong",
    relative=True,
)
def information_density_unique(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): class-weighted entropy × (mean similarity)^BETA; near-duplicates come last.

    A near-duplicate shows the same as a labeled image, or as an image with a higher value.
    """
    order = by_task(pool)
    scores = (typicality(pool, rng) ** BETA * image_class_entropy(pool, rng))[order]
    is_duplicate = repeats(pool, order, scores, rng)
    return places(order, np.lexsort((-scores, is_duplicate)), scores)


def typicality(pool: Pool, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the mean similarity of each image to the pool, or to a sample of 4,096 images of a larger pool (n,)."""
    order = by_task(pool)
    points = units(pool, order)
    values = np.empty(len(pool))
    values[order] = mean_similarity(points, points[_sample(len(points), REFERENCES, rng)])
    return values


@acquisition(
    "max_herding",
    asks="which image makes the labels cover most of the pool?",
    needs=EMBEDDINGS,
    cost="4,096 kernel values for each of at most 20,000 images",
    paper="Bae et al., Generalized Coverage for More Robust Low-Budget Active Learning, ECCV 2024",
    when="there are few labels, so the model's uncertainty means little yet",
    relative=True,
)
def max_herding(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): one batch by MaxHerding, the rest by their distance to labels and batch."""
    order = by_task(pool)
    points, labeled = units(pool, order), labeled_units(pool)
    picks = herd_sampled(points, labeled, pool.batch, None, rng)
    return places(order, picks, nearest(points, np.concatenate([labeled, points[picks]])))
