"""The interval of a measured quality: a bootstrap over the images on which it was measured.

Predictions are matched with the labels once, see `samples`. A thousand draws cost about as much as measuring the model
once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.evaluation.samples import Sample, Values
from backend.model_versions import Metrics
from backend.types import IntArray

# Draws for mAP50 and for mAP50-95, which costs ten times as much: one mAP per IoU threshold.
DRAWS, STRICT_DRAWS = 500, 200
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Measured:
    """The quality of one model on a set of images, and the sample from which it was computed."""

    metrics: Metrics
    sample: Sample
    tasks: tuple[str, ...] = ()  # n, the task of each image of the sample


def measured(
    metrics: Metrics, sample: Sample, strict: Sample | None = None, *, tasks: tuple[str, ...] = ()
) -> Measured:
    """Return a measurement with its intervals, always the same for the same images.

    `strict` is the sample behind mAP50-95. A task without it has one quality for both. `tasks` are those of the
    sample's images, in its order.
    """
    span = interval(sample, np.random.default_rng(0))
    strict_span = span if strict is None else interval(strict, np.random.default_rng(0), STRICT_DRAWS)
    return Measured(replace(metrics, interval=span, interval_50_95=strict_span), sample, tasks)


def gained(challenger: Measured, champion: Measured) -> Measured:
    """Return the challenger's measurement with the interval of its gain over the champion."""
    span = difference(challenger.sample, champion.sample, np.random.default_rng(0))
    return replace(challenger, metrics=replace(challenger.metrics, gained=span))


def interval(sample: Sample, rng: np.random.Generator, draws: int = DRAWS) -> tuple[float, float] | None:
    """Return the 95% bootstrap interval of the quality; None for fewer than 2 images, and if no draw has a label.

    >>> from backend.evaluation.samples import Answers
    >>> answers = Answers(right=np.array([[1]] * 90 + [[0]] * 10), labeled=np.ones((100, 1), dtype=np.int64))
    >>> low, high = interval(answers, np.random.default_rng(0))
    >>> round(low, 2), round(high, 2)
    (0.84, 0.95)
    """
    if sample.size < 2:
        return None
    return between(sample.quality(_drawn(sample.size, rng, draws)))


def ratio_interval(
    parts: Sequence[int], totals: Sequence[int], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float] | None:
    """Return the 95% bootstrap interval of Σ parts / Σ totals over n images (n,), (n,); None as in `interval`.

    >>> low, high = ratio_interval([1] * 90 + [0] * 10, [1] * 100, np.random.default_rng(0))
    >>> round(low, 2), round(high, 2)
    (0.84, 0.95)
    """
    if len(totals) < 2 or not any(totals):
        return None
    counts = _drawn(len(totals), rng, draws)
    drawn = counts @ np.asarray(totals)
    return between((counts @ np.asarray(parts))[drawn > 0] / drawn[drawn > 0])


def class_intervals(
    sample: Sample, rng: np.random.Generator, draws: int = STRICT_DRAWS
) -> tuple[tuple[float, float] | None, ...]:
    """Return the 95% bootstrap interval of the quality of each class (C), None as in `interval`."""
    counts = _drawn(sample.size, rng, draws) if sample.size else np.zeros((0, 0), np.int64)
    by_class = sample.by_class(counts)
    return tuple(between(values) if sample.size >= 2 else None for values in by_class)


def difference(
    sample: Sample, other: Sample, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float] | None:
    """Return the 95% interval of `sample`'s quality minus `other`'s; both must be of the same images, in one order.

    Raises ValueError for different numbers of images.
    """
    if sample.size != other.size:
        raise ValueError(f"{sample.size} images against {other.size}: they must be the same ones")
    if sample.size < 2:
        return None
    counts = _drawn(sample.size, rng, draws)
    return between(sample.quality(counts) - other.quality(counts))


def _drawn(size: int, rng: np.random.Generator, draws: int) -> IntArray:
    """Return how often each draw, with replacement, holds each image (draws, size)."""
    counts: IntArray = rng.multinomial(size, np.full(size, 1 / size), size=draws)
    return counts


def between(values: Values) -> tuple[float, float] | None:
    """Return the 2.5% and the 97.5% quantile of the finite values (B,); None if there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
