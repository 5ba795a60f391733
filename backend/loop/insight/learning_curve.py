"""Whether a project is learning: its learning curve, the truth beside picked tasks, and the next labels' worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.evaluation import basis, projection
from backend.evaluation.held_out_report import GroupQuality
from backend.evaluation.projection import NEEDED_VERSIONS, Projection
from backend.evaluation.stopping import Recommendation
from backend.loop.context import Context
from backend.loop.insight.tag_models import VersionModel, version_models
from backend.loop.review import round_value
from backend.store.store import ProjectRecord
from backend.types import ControlTag
from backend.yolo.tasks import quality

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClassPoint:
    """The quality of one class in a version."""

    label: str
    quality: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A trained model on the learning curve."""

    version: int
    name: str
    labeled: int  # images with labels, learned or held out
    images: int  # that it was trained on
    boxes: int | None  # labels that it was trained on; None: version of an earlier release
    quality: float
    interval: Interval | None
    images_judged: int  # held out
    promoted: bool
    classes: tuple[ClassPoint, ...]


@dataclass(frozen=True, slots=True)
class ChanceAndPicked:
    """The quality of a version on tasks drawn at random, and on tasks that the strategy picked."""

    version: int
    name: str
    held_out: GroupQuality | None  # drawn at random, before the training
    chance: GroupQuality | None  # drawn at random, labeled since
    picked: GroupQuality | None  # picked, labeled since


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The learning curve of one control tag's models, and what it says about more labels."""

    measure: str  # name of the quality, such as "mAP50"
    points: tuple[CurvePoint, ...]  # judged models, oldest first
    not_judged: tuple[str, ...]  # sentences about models that were measured on too few held-out images
    groups: tuple[ChanceAndPicked, ...]  # oldest first
    projection: Projection | None
    refusal: str  # why there is no projection
    stopping: Recommendation  # of the project

    @property
    def sentence(self) -> str:
        """The curve in a sentence."""
        accepted = [point for point in self.points if point.promoted]
        if not accepted:
            return "No version is judged yet." if self.not_judged or self.points else "There is no version yet."
        first, last = accepted[0], accepted[-1]
        figures = f"{last.quality:.3f}{basis.span(last.interval)} on {last.images_judged} held-out images"
        newest = f"{self.measure} is {figures}."
        if first is last:
            return f"{newest} A curve needs a second version."
        change = last.quality - first.quality
        moved = "rose" if change > 0 else "fell" if change < 0 else "changed"
        images = f"{last.images} images instead of {first.images}"
        return f"{newest} It {moved} by {abs(change):.3f} since {first.name}, with {images}."


def learning_curve(context: Context, record: ProjectRecord, tag: ControlTag) -> LearningCurve:
    """Return the learning curve of a tag's models, from the store and redis alone."""
    models = version_models(context, record, tag)
    trained = [shown for shown in models if not shown.model.carried]
    points = tuple(_point(shown) for shown in trained if basis.is_judged(shown.model.metrics))
    projected = projection.project_gain(
        [point.labeled for point in points],
        [point.quality for point in points],
        [point.interval for point in points],
        np.random.default_rng(0),
    )
    budget = context.project_settings(record).budget
    return LearningCurve(
        measure=quality(tag),
        points=points,
        not_judged=tuple(
            f"{shown.version.name}: {basis.in_words(shown.model.metrics)}"
            for shown in trained
            if not basis.is_judged(shown.model.metrics)
        ),
        groups=tuple(_groups(models)),
        projection=projected,
        refusal="" if projected else _refusal(points),
        stopping=round_value.recommendation(context, record.project_id, budget),
    )


def _refusal(points: Sequence[CurvePoint]) -> str:
    """Return why the gain of more labels is not projected."""
    sizes = len({point.labeled for point in points})
    return (
        f"Not enough versions yet: {sizes} judged version{'s' * (sizes != 1)} with different numbers of images, "
        f"{NEEDED_VERSIONS} are needed."
    )


def _point(shown: VersionModel) -> CurvePoint:
    version, metrics, report = shown.version, shown.model.metrics, shown.report
    assert metrics is not None, "only judged models are points"
    intervals = {of_class.label: of_class.interval for of_class in _class_qualities(shown)}
    return CurvePoint(
        version=version.number,
        name=version.name,
        labeled=version.snapshot.learned_tasks,
        images=report.learned.images if report else len(version.snapshot.train_tasks),
        boxes=report.learned.boxes if report else None,
        quality=metrics.map50,
        interval=metrics.interval,
        images_judged=metrics.images,
        promoted=version.promoted,
        classes=tuple(
            ClassPoint(label, value, intervals.get(label))
            for label, value in metrics.class_ap50.items()
            if np.isfinite(value)
        ),
    )


def _class_qualities(shown: VersionModel) -> Sequence[ClassPoint]:
    held_out = shown.report.held_out if shown.report else None
    if held_out is None:
        return ()
    return [
        ClassPoint(of_class.label, of_class.quality, of_class.interval)
        for of_class in held_out.class_quality
        if of_class.quality is not None
    ]


def _groups(models: Sequence[VersionModel]) -> list[ChanceAndPicked]:
    """Return the groups of each version that serves or served; the newest training since then knows most labels."""
    since = {shown.report.since.version: shown.report.since for shown in models if shown.report and shown.report.since}
    groups = []
    for shown in models:
        held_out = shown.report.held_out if shown.report else None
        labeled = since.get(shown.version.number)
        if shown.version.promoted and (held_out or labeled):
            groups.append(
                ChanceAndPicked(
                    version=shown.version.number,
                    name=shown.version.name,
                    held_out=held_out.group if held_out else None,
                    chance=labeled.chance if labeled else None,
                    picked=labeled.picked if labeled else None,
                )
            )
    return groups
