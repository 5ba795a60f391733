"""What labeling costs, and what pre-annotation saves: seconds per task, corrections, and a controlled comparison.

Lead times have outliers, because an editor that is left open over lunch counts the lunch. So a typical time is a
median, and sums and means are taken after winsorising at Tukey's outer fence (Tukey, 1977): a longer time counts as
the fence, the upper quartile plus three times the distance of the quartiles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from backend.evaluation.annotators import TaskAgreement

Seconds = npt.NDArray[np.float64]

FEWEST_FENCED = 8  # with fewer lead times the quartiles mean too little to cut any
FEWEST_COMPARED = 5  # tasks of each kind, without which there is no estimate
DRAWS = 2_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How often an annotation gives a label."""

    tag: str  # name of the control tag
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class AnnotationEffort:
    """How one submitted annotation came about."""

    annotation_id: int
    task_id: int
    annotator: int  # id of the user; 0: not known
    seconds: float | None  # None: it was imported or written by a program
    version: int | None  # whose pre-annotation was on the task; 0: the base model; None: there was none
    blank: bool  # the version's regions were left out on purpose: a control task
    chance: bool  # the task was drawn at random
    kept: int
    moved: int
    relabeled: int
    deleted: int | None  # None: the pre-annotation was gone when this was measured
    added: int
    is_copy: bool = False  # it was made from another annotation, so its regions say nothing
    labels: tuple[LabelCount, ...] = ()


@dataclass(frozen=True, slots=True)
class EffortLog:
    """The efforts of a project, and which annotation of each task counted when they were measured."""

    stamps: Mapping[int, str] = field(default_factory=dict)  # task id -> annotation id and its updated_at
    efforts: tuple[AnnotationEffort, ...] = ()
    agreements: tuple[TaskAgreement, ...] = ()  # of tasks that several people annotated, per control tag


@dataclass(frozen=True, slots=True)
class VersionEffort:
    """The work on tasks with the pre-annotations of one version, or without any."""

    version: int | None  # None: without pre-annotation
    blank: bool  # control tasks of that version
    annotations: int
    annotators: int
    seconds: float | None  # median per annotation; None: no lead time is known
    quartiles: tuple[float, float] | None
    kept: int
    moved: int
    relabeled: int
    deleted: int
    added: int
    uncounted: int  # annotations whose deleted regions are not known

    @property
    def shown(self) -> int:
        """The number of regions that the pre-annotations showed."""
        return self.kept + self.moved + self.relabeled + self.deleted


@dataclass(frozen=True, slots=True)
class OverlapEffort:
    """The work on tasks that a number of people annotated."""

    annotators: int  # of one task
    tasks: int
    seconds: float  # median of the sum over a task's annotations


@dataclass(frozen=True, slots=True)
class Saving:
    """The time that pre-annotation saved against drawing everything, with 95% bootstrap intervals."""

    hours: float  # over all `images`
    interval: tuple[float, float]
    seconds: float  # per image
    seconds_interval: tuple[float, float]
    images: int  # annotations that began from a pre-annotation
    controls: int  # compared annotations without pre-annotation
    compared: int  # compared annotations with one


def counted(log: EffortLog) -> tuple[AnnotationEffort, ...]:
    """Return the annotations that count: one per task."""
    ids = {int(text.partition(" ")[0]) for text in log.stamps.values()}
    return tuple(effort for effort in log.efforts if effort.annotation_id in ids)


def fence(seconds: Seconds) -> float:
    """Return Tukey's outer fence of times (n,): longer times count as this; infinite for fewer than FEWEST_FENCED.

    >>> fence(np.array([10.0, 12, 14, 16, 18, 20, 22, 3600])), fence(np.array([10.0, 3600]))
    (41.5, inf)
    """
    if len(seconds) < FEWEST_FENCED:
        return float("inf")
    low, high = np.percentile(seconds, [25, 75])
    return float(high + 3 * (high - low))


def fence_of(efforts: Iterable[AnnotationEffort]) -> float:
    """Return the fence of the lead times of these annotations."""
    return fence(np.array([effort.seconds for effort in efforts if effort.seconds is not None], dtype=np.float64))


def by_version(efforts: Iterable[AnnotationEffort]) -> tuple[VersionEffort, ...]:
    """Return the work per version and kind of task: without pre-annotation first, then by version, controls last."""
    groups: dict[tuple[int, bool], list[AnnotationEffort]] = {}
    for effort in efforts:
        groups.setdefault((-1 if effort.version is None else effort.version, effort.blank), []).append(effort)
    return tuple(_version(groups[key]) for key in sorted(groups))


def _version(group: Sequence[AnnotationEffort]) -> VersionEffort:
    times = np.array([effort.seconds for effort in group if effort.seconds is not None], dtype=np.float64)
    drawn = [effort for effort in group if not effort.is_copy]
    return VersionEffort(
        version=group[0].version,
        blank=group[0].blank,
        annotations=len(group),
        annotators=len({effort.annotator for effort in group}),
        seconds=float(np.median(times)) if len(times) else None,
        quartiles=(float(np.percentile(times, 25)), float(np.percentile(times, 75))) if len(times) else None,
        kept=sum(effort.kept for effort in drawn),
        moved=sum(effort.moved for effort in drawn),
        relabeled=sum(effort.relabeled for effort in drawn),
        deleted=sum(effort.deleted or 0 for effort in drawn),
        added=sum(effort.added for effort in drawn),
        uncounted=sum(effort.deleted is None for effort in drawn),
    )


def by_annotators(efforts: Iterable[AnnotationEffort]) -> tuple[OverlapEffort, ...]:
    """Return the time per task by the number of people who annotated it, ascending.

    A task counts if the lead times of all its annotations are known.
    """
    tasks: dict[int, list[AnnotationEffort]] = {}
    for effort in efforts:
        tasks.setdefault(effort.task_id, []).append(effort)
    sums: dict[int, list[float]] = {}
    for group in tasks.values():
        times = [effort.seconds for effort in group if effort.seconds is not None]
        if len(times) == len(group):
            sums.setdefault(len({effort.annotator for effort in group}), []).append(sum(times))
    return tuple(OverlapEffort(people, len(sums[people]), float(np.median(sums[people]))) for people in sorted(sums))


def hours(efforts: Iterable[AnnotationEffort], annotation_ids: Collection[int], longest: float) -> float:
    """Return the hours that these annotations took; a time above `longest` seconds counts as that."""
    times = (effort.seconds for effort in efforts if effort.annotation_id in annotation_ids)
    return sum(min(seconds, longest) for seconds in times if seconds is not None) / 3600


def saving(efforts: Sequence[AnnotationEffort], rng: np.random.Generator) -> Saving | None:
    """Return the hours that pre-annotation saved; None with fewer than FEWEST_COMPARED tasks of either kind.

    Only tasks drawn at random are compared, of versions that have control tasks. So both kinds of task are alike but
    for the pre-annotation. The difference of the winsorised means is then applied to all annotations that began from
    a pre-annotation. The interval resamples both kinds of annotation separately.
    """
    timed = [effort for effort in efforts if effort.seconds is not None and not effort.is_copy]
    longest = fence_of(timed)
    versions = {effort.version for effort in timed if effort.blank}
    treated = [effort for effort in timed if effort.chance and not effort.blank and effort.version in versions]
    without, with_one = (
        _winsorised(group, longest) for group in ([effort for effort in timed if effort.blank], treated)
    )
    if min(len(without), len(with_one)) < FEWEST_COMPARED:
        return None
    images = sum(effort.version is not None and not effort.blank for effort in efforts)
    draws = _resampled_means(without, rng) - _resampled_means(with_one, rng)
    low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
    seconds = float(without.mean() - with_one.mean())
    scale = images / 3600
    return Saving(
        *(seconds * scale, (low * scale, high * scale), seconds, (low, high)),
        images=images,
        controls=len(without),
        compared=len(with_one),
    )


def _winsorised(group: Iterable[AnnotationEffort], longest: float) -> Seconds:
    return np.minimum(np.array([effort.seconds for effort in group], dtype=np.float64), longest)


def _resampled_means(times: Seconds, rng: np.random.Generator) -> Seconds:
    """Return the means of DRAWS samples with replacement (DRAWS,); one sample at a time is in memory."""
    return np.array([times[rng.integers(0, len(times), len(times))].mean() for _ in range(DRAWS)])
