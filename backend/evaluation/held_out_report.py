"""The report of a model's evaluation: what it learned from, and how good its answers on held-out images are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from backend.evaluation import basis, bootstrap
from backend.evaluation.bootstrap import Measured
from backend.evaluation.judged_images import NOTHING, JudgedImage, PictureAnswers, ShownAnswer, sample_of, shown_answers
from backend.evaluation.matching import Detections
from backend.evaluation.paired_comparison import TaskSample
from backend.evaluation.reliability import ReliabilityBin, reliability
from backend.evaluation.shown_outlines import FEWEST_POINTS, coarser

MOST_MISTAKES = 24  # worst false positives and misses together
MOST_PICTURES = 500  # pictures whose objects are stored; of more only the counts are
MOST_OUTLINE_POINTS = 200_000  # of all stored objects together, while each keeps a recognisable outline
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class LearnedLabels:
    """The labels of a training."""

    images: int  # of videos: frames
    boxes: int
    by_class: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GroupQuality:
    """The quality of a model on a group of images, from detections that the pool stores (confidence >= 0.05)."""

    images: int
    boxes: int  # labels
    quality: float | None  # None: no image has a label
    interval: Interval | None  # 95%, over the images

    @property
    def is_judged(self) -> bool:
        """Whether the images are enough to judge a model by."""
        return self.images >= basis.MIN_JUDGED_IMAGES and self.quality is not None

    def in_words(self) -> str:
        """Return the quality with its interval and its basis, or the reason why it is not judged yet.

        >>> GroupQuality(24, 60, 0.5, (0.4, 0.6)).in_words(), GroupQuality(3, 9, 0.5, None).in_words()
        ('0.500 [0.400, 0.600] on 24 images', 'not judged yet (3 images; 10 images are needed)')
        """
        images = f"{self.images} image{'s' * (self.images != 1)}"
        if not self.is_judged or self.quality is None:
            return f"{basis.NOT_JUDGED} ({images}; {basis.MIN_JUDGED_IMAGES} images are needed)"
        return f"{self.quality:.3f}{basis.span(self.interval)} on {images}"


@dataclass(frozen=True, slots=True)
class LabeledSince:
    """The quality of a version's stored predictions for tasks that people labeled after it was trained."""

    version: int
    chance: GroupQuality  # tasks drawn at random
    picked: GroupQuality  # tasks that the strategy picked


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """The quality of one class on the held-out images."""

    label: str
    quality: float | None  # AP50, accuracy, or the measure of the task; None: no label is held out
    interval: Interval | None  # 95%, over the images
    labels: int  # held-out labels of the class


@dataclass(frozen=True, slots=True)
class Mistake:
    """A false positive, a miss or a confusion on a held-out image."""

    task_id: int
    frame: int
    answer: ShownAnswer


@dataclass(frozen=True, slots=True)
class HeldOutReport:
    """How good a model's answers on the held-out images are; C classes."""

    images: int
    raw: tuple[ReliabilityBin, ...]  # before the temperature
    calibrated: tuple[ReliabilityBin, ...]  # after it
    confusion: tuple[tuple[int, ...], ...]  # (C + 1, C + 1): rows are labels, columns predictions; last: nothing
    class_quality: tuple[ClassQuality, ...]  # C
    group: GroupQuality  # all held-out images, measured as tasks labeled since are
    mistakes: tuple[Mistake, ...]  # the worst ones


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The report of one model's evaluation."""

    classes: tuple[str, ...]
    learned: LearnedLabels
    held_out: HeldOutReport | None  # None: no image is held out
    since: LabeledSince | None  # about the version before; None: it has no stored predictions of these tasks


@dataclass(frozen=True, slots=True)
class HeldOutAnswers:
    """A model's answers on the held-out images, one by one."""

    pictures: tuple[PictureAnswers, ...]  # by task and frame
    sample: TaskSample | None


def group_quality(judged: Sequence[JudgedImage], classes: int) -> GroupQuality:
    """Return the quality on these images, with its 95% bootstrap interval; several frames of a task are one image."""
    sample = sample_of(judged, classes)
    boxes = sum(len(image.labels) for image in judged)
    value = float(sample.quality(np.ones((1, sample.size), np.int64))[0]) if sample.size else np.nan
    if not np.isfinite(value):
        return GroupQuality(sample.size, boxes, None, None)
    return GroupQuality(sample.size, boxes, value, bootstrap.interval(sample, np.random.default_rng(0)))


def report_held_out(
    judged: Sequence[JudgedImage],
    detections: Detections,
    measured: Measured,
    classes: Sequence[str],
    temperature: float,
) -> tuple[HeldOutReport, HeldOutAnswers]:
    """Return the report on held-out images, and the answers image by image.

    `detections` are those of all images, `measured` is the measurement by which the model was judged.
    """
    pictures = sorted((shown_answers(image) for image in judged), key=lambda picture: (picture.task_id, picture.frame))
    report = HeldOutReport(
        images=len({image.task_id for image in judged}),
        raw=reliability(detections, 1.0),
        calibrated=reliability(detections, temperature),
        confusion=confusion(pictures, len(classes)),
        class_quality=class_qualities(measured, classes, judged),
        group=group_quality(judged, len(classes)),
        mistakes=worst_mistakes(pictures),
    )
    sample = TaskSample(measured.tasks, tuple(classes), measured.sample)
    return report, HeldOutAnswers(tuple(stored_pictures(pictures)), sample)


def stored_pictures(
    pictures: Sequence[PictureAnswers], most_points: int = MOST_OUTLINE_POINTS
) -> Iterable[PictureAnswers]:
    """Yield the pictures, those after the first MOST_PICTURES without objects.

    The more objects there are, the coarser their outlines become, so that all have about `most_points` points.
    """
    shown = pictures[:MOST_PICTURES]
    outlined = sum(bool(answer.outline) + bool(answer.label_outline) for picture in shown for answer in picture.answers)
    most = max(most_points // max(outlined, 1), FEWEST_POINTS)
    for picture in shown:
        answers = (
            replace(answer, outline=coarser(answer.outline, most), label_outline=coarser(answer.label_outline, most))
            for answer in picture.answers
        )
        yield replace(picture, answers=tuple(answers))
    yield from (replace(picture, answers=()) for picture in pictures[MOST_PICTURES:])


def confusion(pictures: Iterable[PictureAnswers], classes: int) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix (C + 1, C + 1) of the shown answers: rows are labels, columns are predictions.

    The last row counts detections of nothing, the last column missed labels.

    >>> box = (0.0, 0.0, 10.0, 10.0)
    >>> answers = (ShownAnswer(0, 0, 0.9, box), ShownAnswer(0, 1, 0.8, box), ShownAnswer(1, NOTHING, 0.5, box))
    >>> confusion([PictureAnswers(1, 0, 1, 2, 1, answers)], 2)
    ((1, 0, 0), (1, 0, 0), (0, 1, 0))
    """
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for picture in pictures:
        for answer in picture.answers:
            table[answer.labeled, answer.predicted] += 1  # -1 is the last row or column
    return tuple(tuple(row) for row in table.tolist())


def class_qualities(
    measured: Measured, classes: Sequence[str], judged: Sequence[JudgedImage]
) -> tuple[ClassQuality, ...]:
    """Return the quality of each class as it was measured, with its 95% interval and its number of labels."""
    labels = np.concatenate([np.zeros(0, np.int64), *(image.labels for image in judged)])
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    spans = bootstrap.class_intervals(measured.sample, np.random.default_rng(0))
    qualities = measured.metrics.class_ap50
    return tuple(
        ClassQuality(name, qualities.get(name), span if name in qualities else None, int(count))
        for name, span, count in zip(classes, spans, counts, strict=True)
    )


def worst_mistakes(pictures: Iterable[PictureAnswers], most: int = MOST_MISTAKES) -> tuple[Mistake, ...]:
    """Return the worst false positives and misses, at most half of them of each kind if both kinds are many.

    A false positive is worse the more confident it is, a miss the larger the label is.
    """
    wrong, missed = list[Mistake](), list[Mistake]()
    for picture in pictures:
        for answer in picture.answers:
            if not answer.is_right:
                mistakes = missed if answer.predicted == NOTHING else wrong
                mistakes.append(Mistake(picture.task_id, picture.frame, answer))
    wrong.sort(key=lambda mistake: -mistake.answer.confidence)
    missed.sort(key=lambda mistake: -mistake.answer.box[2] * mistake.answer.box[3])
    kept = min(len(missed), max(most // 2, most - len(wrong)))
    return (*islice(wrong, most - kept), *islice(missed, kept))
