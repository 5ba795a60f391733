"""Localization: how uncertain the sides of the boxes are, by the distributions that the head predicts (DFL)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.aggregation import top_sum
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition


def dfl_variance(p: npt.ArrayLike) -> Values:
    """Return Σ k² p_k − (Σ k p_k)² of distributions over bins k = 0 … K − 1: (..., K) -> (...), bins².

    Multiply by stride² for px². Source: Li et al., Generalized Focal Loss, NeurIPS 2020.

    >>> dfl_variance([[1 / 16] * 16, [0, 0, 0, 1] + [0] * 12, [.5, 0, 0, 0, .5] + [0] * 11]).round(4)
    array([21.25,  0.  ,  4.  ])
    """
    p = np.asarray(p, dtype=np.float64)
    k = np.arange(p.shape[-1])
    mean = (p * k).sum(axis=-1, keepdims=True)
    return np.asarray((p * (k - mean) ** 2).sum(axis=-1))


def blur(variance: npt.NDArray[np.floating[Any]], score: npt.NDArray[np.floating[Any]]) -> Values:
    """Return s·(mean standard deviation of the four sides): px² (m, 4), top class scores (m,) -> (m,), px.

    Because of the root, one very uncertain side of a large box does not outweigh all others. Because of the score,
    boxes that are most likely noise do not come first: their sides are always uncertain.

    >>> blur(np.array([[4., 4., 16., 16.]]), np.array([.5]))
    array([1.5])
    """
    return np.asarray(score * np.sqrt(np.maximum(variance, 0.0)).mean(axis=1))


@acquisition(
    "localization",
    asks="how uncertain are the sides of each box?",
    needs=frozenset({"class_probs", "box_variance"}),
    cost="one pass over the boxes",
    paper="after Choi et al., Active Learning for Deep Object Detection via Probabilistic Modeling, ICCV 2021",
    when="exact boxes matter more than classes; only models with DFL, so not YOLO26",
)
def image_localization(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return `blur` of each box, summed over the top 10 of each image (n,), px."""
    variance = pool.columns["box_variance"]
    return top_sum(blur(variance, pool.class_probs.max(axis=1, initial=0.0)), pool.offsets, empty=pool.empty)
