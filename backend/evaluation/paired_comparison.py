"""Two models compared on the images that both were judged by: the draws of a bootstrap are the same for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.evaluation import bootstrap
from backend.evaluation.samples import Sample, Values
from backend.types import IntArray


@dataclass(frozen=True, slots=True)
class TaskSample:
    """The sample of a measurement, with its tasks and classes, so that two models can be compared on common tasks."""

    tasks: tuple[str, ...]  # n
    classes: tuple[str, ...]  # C
    sample: Sample


@dataclass(frozen=True, slots=True)
class PairedQuality:
    """The qualities of two models on the same images, and the 95% interval of the second minus the first."""

    label: str  # a class; "": all of them
    before: float
    after: float
    interval: tuple[float, float] | None  # None: fewer than 2 images


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two models compared on the held-out images that they have in common."""

    images: int
    qualities: tuple[PairedQuality, ...]  # of all classes together, then of each class that both have


def compare_samples(before: TaskSample, after: TaskSample, draws: int = bootstrap.STRICT_DRAWS) -> PairedComparison:
    """Return the qualities of two models on their common tasks, with intervals of a bootstrap over these tasks."""
    common = sorted(set(before.tasks) & set(after.tasks))
    if not common:
        return PairedComparison(0, ())
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(common), np.full(len(common), 1 / len(common)), size=draws)
    counts = np.concatenate([np.ones((1, len(common)), np.int64), drawn])
    sides = [(side, _on_tasks(side.tasks, common, counts)) for side in (before, after)]
    by_class = [dict(zip(side.classes, side.sample.by_class(times), strict=True)) for side, times in sides]
    overall = [{"": side.sample.quality(times)} for side, times in sides]
    first, second = (whole | of_class for whole, of_class in zip(overall, by_class, strict=True))
    pairs = [(label, first[label], second[label]) for label in ("", *after.classes) if label in first]
    return PairedComparison(
        len(common),
        tuple(
            PairedQuality(label, float(old[0]), float(new[0]), _interval(new - old, len(common)))
            for label, old, new in pairs
            if np.isfinite(old[0]) and np.isfinite(new[0])
        ),
    )


def _interval(differences: Values, images: int) -> tuple[float, float] | None:
    return bootstrap.between(differences[1:]) if images >= 2 else None


def _on_tasks(tasks: Sequence[str], common: Sequence[str], counts: IntArray) -> IntArray:
    """Return counts of draws over common tasks (B, m) as counts over all tasks of a sample (B, n)."""
    place = {task: column for column, task in enumerate(tasks)}
    spread = np.zeros((len(counts), len(tasks)), dtype=np.int64)
    spread[:, [place[task] for task in common]] = counts
    return spread
