"""Uncertainty: pure measures of class distributions, and the strategies that sum them over an image's boxes.

The uncertainty whether a detection is an object is h(s), s being its top class score. 1 − s would rank noise first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.aggregation import blockwise, largest, mean, top_sum, total
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.acquisition.video_uncertainty import video_doubt
from backend.types import FloatArray

BOXES = frozenset({"class_probs"})
SETTLES = "Settles, Active Learning Literature Survey, 2009"
BRUST = "Brust et al., Active Learning for Deep Object Detection, VISAPP 2019"


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


def variance(p: npt.ArrayLike) -> Values:
    """Return 1 − Var(p) / Var(certain), Var over the classes: distributions (n, C) -> (n,), higher = sooner.

    A certain distribution has the largest variance, (C − 1) / C², and gets 0; a uniform one gets 1.

    >>> variance([[.5, .4, .1], [.34, .33, .33], [.4, .4, .2], [1, 0, 0]]).round(4)
    array([0.87  , 0.9999, 0.96  , 0.    ])
    """
    p = _floats(p)
    classes = p.shape[-1]
    if classes < 2:
        return np.zeros(p.shape[:-1], dtype=p.dtype)
    return np.asarray(np.maximum(1.0 - p.var(axis=-1) * (classes**2 / (classes - 1)), 0.0))


def binary_entropy(s: npt.ArrayLike) -> Values:
    """Return h(s) = −s ln s − (1 − s) ln(1 − s) in nats, 0 at s = 0 and s = 1: any shape -> the same shape.

    >>> binary_entropy([0.0, 0.05, 0.5, 1.0]).round(4)
    array([0.    , 0.1985, 0.6931, 0.    ])
    """
    s = np.clip(_floats(s), 0.0, 1.0)
    return entropy(np.stack([s, 1.0 - s], axis=-1))


def with_nothing(class_probs: FloatArray) -> FloatArray:
    """Return each box's distribution over its classes and "nothing": sigmoid scores (m, C) -> (m, C + 1).

    q = (p₁ … p_C, 1 − s) / (Σp + 1 − s). Normalised over the classes alone (p/Σp), a noise box would look as uncertain
    as a real object, and with a single class every box would look certain.

    >>> with_nothing(np.array([[.05], [.5]], dtype=np.float32)).round(2).tolist()[1]
    [0.5, 0.5]
    """
    nothing = np.clip(1.0 - class_probs.max(axis=1, initial=0.0), 0.0, 1.0)
    outcomes = np.column_stack([class_probs, nothing])
    outcomes /= outcomes.sum(axis=1, keepdims=True)
    return outcomes


def row_measure(measure: Callable[[Values], Values], pool: Pool) -> Values:
    """Return a measure of each row of a pool (m,): over the classes of a choice, over `with_nothing` of a box."""
    if pool.exclusive:
        return blockwise(measure, pool.class_probs)
    return blockwise(lambda p: measure(with_nothing(p)), pool.class_probs)


def row_uncertainty(pool: Pool) -> Values:
    """Return the uncertainty of each row of a pool (m,), nats: h(s) of a box's top score, the entropy of a choice."""
    return blockwise(entropy, pool.class_probs) if pool.exclusive else _of_likeliest(pool)


def _of_likeliest(pool: Pool) -> Values:
    return binary_entropy(pool.class_probs.max(axis=1, initial=0.0))


@acquisition(
    "least_confidence",
    asks="how likely is the best guess for each box (a class, or nothing) wrong?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=SETTLES,
    when="you want the simplest measure",
)
def image_least_confidence(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the least confidence in the outcomes of boxes, summed over the top 10 of each image (n,)."""
    return top_sum(row_measure(least_confidence, pool), pool.offsets, empty=pool.empty)


@acquisition(
    "margin",
    asks="how close are the two best guesses for each box (classes, or nothing)?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=SETTLES,
    when="classes are mistaken for each other",
)
def image_margin(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return 1 − margin between the outcomes of boxes, summed over the top 10 of each image (n,)."""
    return top_sum(row_measure(margin, pool), pool.offsets, empty=pool.empty)


@acquisition(
    "variance",
    asks="how evenly do the guesses for each box (classes, or nothing) share the probability?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper="Hasty's variance heuristic",
    when="you compare measures; it is close to least_confidence",
)
def image_variance(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the variance measure of the outcomes of boxes, summed over the top 10 of each image (n,)."""
    return top_sum(row_measure(variance, pool), pool.offsets, empty=pool.empty)


@acquisition(
    "entropy",
    asks="how uncertain is it that each box is an object?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=SETTLES,
    when="classes are about equally frequent",
)
def image_entropy(pool: Pool, rng: np.random.Generator) -> Values:
    """Return the `row_uncertainty` of each image's boxes, summed over the top 10 (n,), nats; of videos `video`."""
    if "video_doubt" in pool.columns:
        return video_doubt(pool, rng)
    return top_sum(row_uncertainty(pool), pool.offsets, empty=pool.empty)


@acquisition(
    "entropy_max",
    asks="how uncertain is the most uncertain box?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=BRUST,
    when="one difficult object is worth a label, even in an almost empty image",
)
def image_entropy_max(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the largest of the `row_uncertainty` of each image's boxes (n,), nats."""
    return largest(row_uncertainty(pool), pool.offsets, empty=pool.empty)


@acquisition(
    "entropy_mean",
    asks="how uncertain is a box of the image on average?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=BRUST,
    when="images with many objects cost more than their labels help",
)
def image_entropy_mean(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the mean of the `row_uncertainty` of each image's boxes (n,), nats."""
    return mean(row_uncertainty(pool), pool.offsets, empty=pool.empty)


@acquisition(
    "entropy_sum",
    asks="how much uncertainty does the whole image have?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper=BRUST,
    when="you pay per image, so images with many objects may come first",
)
def image_entropy_sum(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the sum of the `row_uncertainty` of all boxes of each image (n,), nats."""
    return total(row_uncertainty(pool), pool.offsets, empty=pool.empty)


@acquisition(
    "class_entropy",
    asks="how uncertain is each box, with more weight on poorly detected classes?",
    needs=BOXES,
    cost="one pass over the boxes",
    paper="after Yang et al., Plug and Play Active Learning for Object Detection, CVPR 2024",
    when="some classes are rare or poorly detected",
)
def image_class_entropy(pool: Pool, rng: np.random.Generator) -> Values:
    """Return w_c·h(s), c the predicted class, summed over the top 10 boxes of each image (n,); no weights = all 1.

    The same formula is used for a choice. The entropy of all classes would first pick images that are like none of
    them, and models learn less from these (docs/results.md, choice-digits).
    """
    if "video_doubt" in pool.columns:
        return video_doubt(pool, rng)
    values = _of_likeliest(pool)
    if pool.class_weights is not None and values.size:
        values = pool.class_weights[pool.class_probs.argmax(axis=1)] * values
    return top_sum(values, pool.offsets, empty=pool.empty)


def _floats(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return an array of floats, without a copy if it has a float type (pools are large)."""
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
