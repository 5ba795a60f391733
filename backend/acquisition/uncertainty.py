"""Uncertainty: pure measures of class distributions, and the strategies that sum them over an image's boxes.

For a detection, "is there an object" is h(s) of the top class score s; plain 1 − s would rank noise boxes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.aggregation import top_sum
from backend.acquisition.registry import Values, acquisition
from backend.types import FloatArray, Pool

BOXES = frozenset({"class_probs"})
SETTLES = "Settles, Active Learning Literature Survey, 2009"


def least_confidence(p: npt.ArrayLike) -> Values:
    """Return 1 − p₁, p₁ the most likely class: distributions (n, C) -> (n,), higher = sooner.

    >>> least_confidence([[.5, .4, .1], [.34, .33, .33], [.4, .4, .2]])
    array([0.5 , 0.66, 0.6 ])
    """
    return np.asarray(1.0 - _floats(p).max(axis=-1, initial=0.0))


def margin(p: npt.ArrayLike) -> Values:
    """Return 1 − (p₁ − p₂), the two most likely classes: distributions (n, C) -> (n,), higher = sooner.

    One class alone has p₂ = 0.

    >>> margin([[.5, .4, .1], [.34, .33, .33], [.4, .4, .2]]).round(2)
    array([0.9 , 0.99, 1.  ])
    """
    p = _floats(p)
    if p.shape[-1] < 2:
        return least_confidence(p)
    two = np.partition(p, -2, axis=-1)[..., -2:]
    return np.asarray(1.0 - (two[..., 1] - two[..., 0]))


def entropy(p: npt.ArrayLike) -> Values:
    """Return −Σ p ln p in nats, with 0 ln 0 = 0: distributions (n, C) -> (n,), higher = sooner.

    >>> nats = entropy([[.5, .4, .1], [.34, .33, .33], [.4, .4, .2], [1, 0, 0]])
    >>> (nats / np.log(2)).round(3)
    array([1.361, 1.585, 1.522, 0.   ])
    """
    p = _floats(p)
    return np.asarray(0.0 - np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))


def binary_entropy(s: npt.ArrayLike) -> Values:
    """Return h(s) = −s ln s − (1 − s) ln(1 − s) in nats, 0 at s = 0 and s = 1: any shape -> the same shape.

    >>> binary_entropy([0.0, 0.05, 0.5, 1.0]).round(4)
    array([0.    , 0.1985, 0.6931, 0.    ])
    """
    s = np.clip(_floats(s), 0.0, 1.0)
    return entropy(np.stack([s, 1.0 - s], axis=-1))


def with_nothing(class_probs: FloatArray) -> FloatArray:
    """Return each box's distribution over its classes and "nothing": sigmoid scores (m, C) -> (m, C + 1).

    q = (p₁ … p_C, 1 − s) / (Σp + 1 − s). Among the classes alone (p/Σp) a noise box looks as undecided as a real
    object, and with one class nothing is ever undecided; with the outcome "nothing" both come out right.

    >>> with_nothing(np.array([[.05], [.5]], dtype=np.float32)).round(2).tolist()[1]
    [0.5, 0.5]
    """
    nothing = np.clip(1.0 - class_probs.max(axis=1, initial=0.0), 0.0, 1.0)
    outcomes = np.column_stack([class_probs, nothing])
    outcomes /= outcomes.sum(axis=1, keepdims=True)
    return outcomes


@acquisition(
    "least_confidence",
    asks="how likely is the best guess for each box (a class, or nothing) wrong?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=SETTLES,
)
def image_least_confidence(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return least confidence of `with_nothing` boxes, summed over the top 10 of each image (n,)."""
    return top_sum(least_confidence(with_nothing(pool.class_probs)), pool.offsets)


@acquisition(
    "margin",
    asks="how close are the two best guesses for each box (classes, or nothing)?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=SETTLES,
)
def image_margin(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return 1 − margin of `with_nothing` boxes, summed over the top 10 of each image (n,)."""
    return top_sum(margin(with_nothing(pool.class_probs)), pool.offsets)


@acquisition(
    "entropy",
    asks="how uncertain is it that each box is an object?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=SETTLES,
)
def image_entropy(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return h(s) of the top class score, summed over the top 10 boxes of each image (n,), nats."""
    return top_sum(binary_entropy(pool.class_probs.max(axis=1, initial=0.0)), pool.offsets)


@acquisition(
    "class_entropy",
    asks="how uncertain is each box, where the model knows its class badly?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper="after Yang et al., Plug and Play Active Learning for Object Detection, CVPR 2024",
)
def image_class_entropy(pool: Pool, rng: np.random.Generator) -> Values:
    """Return w_c·h(s), c the predicted class, summed over the top 10 boxes of each image (n,); no weights = all one."""
    if pool.class_weights is None or not pool.class_probs.size:
        return image_entropy(pool, rng)
    weight = pool.class_weights[pool.class_probs.argmax(axis=1)]
    return top_sum(weight * binary_entropy(pool.class_probs.max(axis=1)), pool.offsets)


def _floats(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return an array of floats, without a copy where it is one already (a pool is large)."""
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
