"""PPAL: of the most uncertain images, those whose objects differ most, compared class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.aggregation import top_rows
from backend.acquisition.distances import Floats, by_task, places, unit
from backend.acquisition.parts import ragged
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.acquisition.uncertainty import image_class_entropy
from backend.types import FloatArray, IntArray

BOXES_PER_IMAGE = 10
_ROUNDS = 20


def matching_similarity(image: IntArray, classes: IntArray, scores: Floats, embeddings: Floats, n: int) -> FloatArray:
    """Return the similarity of the objects in n images (n, n): symmetric, in 0..1 for cosines that are not negative.

    S(a → b) = Σ_i s_i·max_j cos(i, j) / Σ_i s_i, over the boxes i of a and the boxes j of b of the same class; without
    such a j the maximum is 0. The result is the mean of both directions. The arrays have one row per box (m,), and
    `image` ascends.
    Source: Yang et al., Plug and Play Active Learning for Object Detection, CVPR 2024.

    >>> two = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> matching_similarity(np.array([0, 1, 1]), np.array([4, 4, 5]), np.array([.9, .5, .5]), two[[0, 0, 1]], 2)
    array([[1.  , 0.75],
           [0.75, 1.  ]], dtype=float32)
    """
    directed = np.zeros((n, n), dtype=np.float32)
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        shown, starts = np.unique(image[rows], return_index=True)
        vectors, weights = unit(embeddings[rows]), np.asarray(scores[rows], dtype=np.float32)
        for source, begin, end in zip(shown, starts, [*starts[1:], len(rows)], strict=True):
            best = np.maximum.reduceat(vectors[begin:end] @ vectors.T, starts, axis=1)
            directed[source, shown] += weights[begin:end] @ best
    directed /= np.maximum(np.bincount(image, weights=scores, minlength=n), 1e-12).astype(np.float32)[:, None]
    return np.asarray((directed + directed.T) / 2.0)


def k_medoids(distances: Floats, k: int, rng: np.random.Generator) -> IntArray:
    """Return the rows of k medoids, ascending: distances (n, n) -> (min(k, n),).

    k-means++ chooses the first medoids. Then each row joins its nearest medoid, and the most central row of each group
    becomes its medoid, until nothing changes (20 times at most).

    >>> line = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
    >>> k_medoids(np.abs(line[:, None] - line), 2, np.random.default_rng(0))
    array([1, 4])
    """
    n = len(distances)
    if k >= n:
        return np.arange(n)
    medoids = _seeds(distances, k, rng)
    for _ in range(_ROUNDS):
        group = distances[:, medoids].argmin(axis=1)
        group[medoids] = np.arange(k)  # a copy of another medoid keeps its own group
        moved = np.array([_central(distances, np.flatnonzero(group == medoid)) for medoid in range(k)])
        if (moved == medoids).all():
            break
        medoids = moved
    return np.sort(medoids)


def _seeds(distances: Floats, k: int, rng: np.random.Generator) -> IntArray:
    """Return k rows by k-means++ (k,): first the most central, then random rows, with a preference for far ones."""
    chosen = [int(distances.sum(axis=1).argmin())]
    near = distances[chosen[0]].astype(np.float64)
    near[chosen] = 0.0
    while len(chosen) < k:
        odds = near**2
        if odds.sum() <= 0:  # only copies are left
            odds = np.ones(len(near))
            odds[chosen] = 0.0
        chosen.append(int(rng.choice(len(near), p=odds / odds.sum())))
        near = np.minimum(near, distances[chosen[-1]])
        near[chosen] = 0.0
    return np.array(chosen)


def _central(distances: Floats, rows: IntArray) -> int:
    return int(rows[distances[np.ix_(rows, rows)].sum(axis=1).argmin()])


@acquisition(
    "ppal",
    asks="which of the most uncertain images show different things?",
    needs=frozenset({"class_probs", "box_embeddings"}),
    cost="similarities of the boxes of 4B images",
    paper="Yang et al., Plug and Play Active Learning for Object Detection, CVPR 2024",
    when="uncertain images repeat the same objects, and the model embeds boxes",
    relative=True,
)
def ppal(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): first B medoids of the 4B images of highest class entropy, then the others by entropy."""
    order = by_task(pool)
    scores = image_class_entropy(pool, rng)[order]
    candidates = np.argsort(-scores, kind="stable")[: 4 * pool.batch]
    medoids = candidates[k_medoids(_distances(pool, order[candidates]), pool.batch, rng)]
    return places(order, medoids[np.argsort(-scores[medoids], kind="stable")], scores)


def _distances(pool: Pool, rows: IntArray) -> npt.NDArray[np.floating[Any]]:
    """Return 1 − matching similarity of the images `rows`, by their 10 most confident boxes: (c,) -> (c, c)."""
    boxes, offsets = ragged(pool.offsets, rows)
    probs = pool.class_probs[boxes]
    confidence = probs.max(axis=1, initial=0.0)
    top = top_rows(confidence, offsets, BOXES_PER_IMAGE)
    if not len(top):
        return np.ones((len(rows), len(rows))) - np.eye(len(rows))
    image = np.repeat(np.arange(len(rows)), np.diff(offsets))[top]
    vectors = pool.columns["box_embeddings"][boxes[top]]
    distances = 1.0 - matching_similarity(image, probs[top].argmax(axis=1), confidence[top], vectors, len(rows))
    np.fill_diagonal(distances, 0.0)
    return np.asarray(np.maximum(distances, 0.0))
