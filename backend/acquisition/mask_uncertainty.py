"""Shape: how uncertain the model is about the pixels of masks and the points of skeletons."""

from __future__ import annotations

import numpy as np

from backend.acquisition.aggregation import top_sum
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition


@acquisition(
    "shape",
    asks="how uncertain are the masks or the points?",
    needs=frozenset({"class_probs", "shape_confidence"}),
    cost="one pass over the boxes",
    paper="least confidence, of pixels and points instead of classes",
    when="outlines or points matter more than classes; only for polygons, brush masks and key points",
)
def image_shape(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return s·(1 − shape confidence) of each box, summed over the top 10 of each image (n,).

    Because of the class score s, objects that are most likely noise do not come first: their masks are always
    uncertain.
    """
    unsure = pool.class_probs.max(axis=1, initial=0.0) * (1.0 - pool.columns["shape_confidence"])
    return top_sum(unsure, pool.offsets, empty=pool.empty)
