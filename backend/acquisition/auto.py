"""The `auto` strategy: cover the pool while the model is cold, then pick uncertain images that differ."""

from __future__ import annotations

import numpy as np

from backend.acquisition.density import herd_sampled
from backend.acquisition.distances import Floats, by_task, labeled_units, nearest, places, units
from backend.acquisition.diversity import BOTH
from backend.acquisition.duplicates import repeats
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.acquisition.uncertainty import image_class_entropy
from backend.types import FloatArray, IntArray

COLD_LABELS = 50  # labeled images; with fewer, the scores of boxes are noise
COLD_MAP50 = 0.2


def is_cold(pool: Pool) -> bool:
    """Return whether the model's uncertainty means nothing yet: under 50 labeled images, or an mAP50 under 0.2.

    A number that is not known is not counted against the model. If neither is known, the model is cold.
    """
    labels = None if pool.labeled_embeddings is None else len(pool.labeled_embeddings)
    if labels is None and pool.map50 is None:
        return True
    return (labels is not None and labels < COLD_LABELS) or (pool.map50 is not None and pool.map50 < COLD_MAP50)


def candidates(scores: Floats, batch: int) -> IntArray:
    """Return the rows from which MaxHerding picks a batch: the min(4B, n/2) highest scores, at least B: (n,) -> (c,).

    >>> candidates(np.array([.1, .9, .5, .7, .2, .3]), 2)
    array([1, 3, 2])
    """
    count = max(min(4 * batch, len(scores) // 2), min(batch, len(scores)))
    return np.argsort(-scores, kind="stable")[:count]


@acquisition(
    "auto",
    asks="for a model that has learned little: which images cover the pool? later: which uncertain images differ?",
    needs=BOTH | {"thumbnails"},
    cost="near-duplicates, then kernel values of 20,000 images (early) or of 4B images (later), for a batch of B",
    paper="after Bae et al., ECCV 2024, and Yang et al., CVPR 2024",
    when="you do not want to choose",
    relative=True,
)
def auto(pool: Pool, rng: np.random.Generator) -> Values:
    """Return places (n,): first a batch by MaxHerding, then the other images, then the near-duplicates.

    While the model is cold, MaxHerding has no weights, and the others are ordered by their distance to the labeled
    images and the batch. Afterwards class entropy is the weight, and orders the others.
    """
    order = by_task(pool)
    points, labeled, scores = units(pool, order), labeled_units(pool), image_class_entropy(pool, rng)[order]
    is_duplicate = repeats(pool, order, scores, rng)
    singles = np.flatnonzero(~is_duplicate)
    cold = is_cold(pool)
    picks = singles[_batch(points[singles], labeled, None if cold else scores[singles], pool.batch, rng)]
    tail_values = nearest(points, np.concatenate([labeled, points[picks]])) if cold else scores
    tail = np.lexsort((-tail_values, is_duplicate))
    tail = tail[~np.isin(tail, picks)]
    return places(order, np.concatenate([picks, tail]), scores)


def _batch(
    points: FloatArray, labeled: FloatArray, scores: Floats | None, batch: int, rng: np.random.Generator
) -> IntArray:
    if scores is None:
        return herd_sampled(points, labeled, batch, None, rng)
    rows = candidates(scores, batch)
    return rows[herd_sampled(points[rows], labeled, batch, scores[rows], rng)]
