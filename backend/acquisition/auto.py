"""The `auto` protocol: cover the pool while the model is cold, then take uncertain images that differ."""

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

COLD_LABELS = 50  # images; with fewer the scores of boxes are noise
COLD_MAP50 = 0.2


def is_cold(pool: Pool) -> bool:
    """Return whether the model's uncertainty is not to be trusted yet: few labels, or mAP50 under 0.2.

    What is not known does not count as cold; a model of which nothing is known is.
    """
    labels = None if pool.labeled_embeddings is None else len(pool.labeled_embeddings)
    if labels is None and pool.map50 is None:
        return True
    return (labels is not None and labels < COLD_LABELS) or (pool.map50 is not None and pool.map50 < COLD_MAP50)


def candidates(scores: Floats, batch: int) -> IntArray:
    """Return the rows a batch is herded from: the min(4B, n/2) highest scores, at least one batch: (n,) -> (c,).

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
    """Return places (n,): a batch by MaxHerding, weighted by class entropy once warm; near-duplicates at the back.

    After the batch come the others, when cold by their distance to labels and batch, when warm by class entropy; then
    the near-duplicates in the same way.
    """
    order = by_task(pool)
    points, labeled, scores = units(pool, order), labeled_units(pool), image_class_entropy(pool, rng)[order]
    again = repeats(pool, order, scores, rng)
    singles = np.flatnonzero(~again)
    cold = is_cold(pool)
    picks = singles[_batch(points[singles], labeled, None if cold else scores[singles], pool.batch, rng)]
    rest = nearest(points, np.concatenate([labeled, points[picks]])) if cold else scores
    behind = np.lexsort((-rest, again))
    behind = behind[~np.isin(behind, picks)]
    return places(order, np.concatenate([picks, behind]), scores)


def _batch(
    points: FloatArray, labeled: FloatArray, scores: Floats | None, batch: int, rng: np.random.Generator
) -> IntArray:
    if scores is None:
        return herd_sampled(points, labeled, batch, None, rng)
    rows = candidates(scores, batch)
    return rows[herd_sampled(points[rows], labeled, batch, scores[rows], rng)]
