"""The report of a model's evaluation on held-out images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from backend.evaluation import held_out_report, matching
from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.held_out_report import (
    MOST_MISTAKES,
    MOST_PICTURES,
    confusion,
    group_quality,
    report_held_out,
    worst_mistakes,
)
from backend.evaluation.judged_images import NOTHING, JudgedImage, PictureAnswers, ShownAnswer, judge_image, sample_of
from backend.model_versions import Metrics
from backend.types import LabeledBox, Prediction

CLASSES = ("cat", "dog", "owl")
WHOLE = (0.5, 0.5, 1.0, 1.0)
BOX = (0.0, 0.0, 10.0, 10.0)


def choices(count: int) -> tuple[list[JudgedImage], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return random choices, the true classes and the predicted ones."""
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.ones(3), count).astype(np.float32)
    true = rng.integers(0, 3, count)
    judged = [
        judge_image(
            *(
                task,
                0,
                Prediction(
                    8, 8, np.array([[0, 0, 8, 8]], np.float32), probs[task][None], probs[task].max(keepdims=True)
                ),
            ),
            *([LabeledBox(CLASSES[true[task]], WHOLE)], CLASSES, "classify"),
        )
        for task in range(count)
    ]
    return judged, true, probs.argmax(axis=1)


def measured_choices(judged: list[JudgedImage]) -> Measured:
    sample = sample_of(judged, 3)
    values = sample.by_class(np.ones((1, sample.size), np.int64))[:, 0]
    metrics = Metrics(0.5, 0.5, dict(zip(CLASSES, values.tolist(), strict=True)), len(judged), len(judged), len(judged))
    return measured(metrics, sample, tasks=tuple(str(image.task_id) for image in judged))


def test_the_confusion_of_choices_is_that_of_scikit_learn() -> None:
    judged, true, predicted = choices(200)
    detections = matching.joined([image.detections for image in judged], 3, single=True)
    report, answers = report_held_out(judged, detections, measured_choices(judged), CLASSES, 1.0)
    assert np.array(report.confusion)[:3, :3].tolist() == confusion_matrix(true, predicted).tolist()
    assert np.array(report.confusion)[3].sum() == np.array(report.confusion)[:, 3].sum() == 0
    assert sum(part.count for part in report.raw) == report.images == len(answers.pictures) == 200
    accuracy = (true == predicted).mean()
    assert report.group.quality == pytest.approx(accuracy)
    assert sum(part.accuracy * part.count for part in report.raw) / 200 == pytest.approx(accuracy, abs=1e-4)


def test_each_class_has_its_quality_with_an_interval() -> None:
    judged, true, predicted = choices(200)
    qualities = held_out_report.class_qualities(measured_choices(judged), CLASSES, judged)
    for kind, quality in enumerate(qualities):
        assert quality.labels == (true == kind).sum()
        assert quality.quality == pytest.approx((predicted == kind)[true == kind].mean())
        assert quality.interval is not None
        assert quality.quality is not None
        assert quality.interval[0] < quality.quality < quality.interval[1]


def test_a_class_without_held_out_labels_has_no_quality() -> None:
    judged = [image for image in choices(60)[0] if image.labels[0] != 2]
    base = measured_choices(judged)
    metrics = Metrics(0.5, 0.5, {"cat": 0.5, "dog": 0.5}, 5, 5, 5)
    *_, owl = held_out_report.class_qualities(Measured(metrics, base.sample), CLASSES, judged)
    assert (owl.label, owl.quality, owl.interval, owl.labels) == ("owl", None, None, 0)


def answer(predicted: int, labeled: int, confidence: float = 0.0, side: float = 10.0) -> ShownAnswer:
    return ShownAnswer(predicted, labeled, confidence, (0.0, 0.0, side, side))


def test_the_worst_mistakes_are_confident_or_large() -> None:
    wrong = tuple(answer(0, NOTHING, confidence) for confidence in (0.3, 0.9, 0.6))
    missed = tuple(answer(NOTHING, 1, side=side) for side in (10.0, 40.0))
    picture = PictureAnswers(7, 0, 1, 3, 2, (*wrong, answer(1, 1, 0.99), *missed))
    worst = worst_mistakes([picture], most=4)
    assert [mistake.answer.confidence for mistake in worst[:2]] == [0.9, 0.6]
    assert [mistake.answer.box[2] for mistake in worst[2:]] == [40.0, 10.0]
    assert len(worst_mistakes([picture] * 9)) == MOST_MISTAKES
    only_missed = PictureAnswers(8, 0, 0, 0, 2, missed)
    assert len(worst_mistakes([only_missed] * 20)) == MOST_MISTAKES
    assert worst_mistakes([]) == ()


def test_of_very_many_pictures_the_last_have_counts_alone() -> None:
    judged = choices(MOST_PICTURES + 3)[0]
    detections = matching.joined([image.detections for image in judged], 3, single=True)
    report, answers = report_held_out(judged, detections, measured_choices(judged), CLASSES, 1.0)
    assert [bool(picture.answers) for picture in answers.pictures[-4:]] == [True, False, False, False]
    assert np.array(report.confusion).sum() == MOST_PICTURES + 3
    assert all(picture.hits + picture.extra == 1 for picture in answers.pictures)


def test_the_more_objects_the_coarser_their_stored_outlines() -> None:
    around = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    ring = tuple((float(x), float(y)) for x, y in 50 + 40 * np.stack([np.cos(around), np.sin(around)], axis=1).round(3))
    tip = ring[:4]  # of a key point
    picture = PictureAnswers(7, 0, 1, 0, 0, (ShownAnswer(0, 0, 0.9, BOX, BOX, (ring, tip), (ring,)),))
    for count, most in ((1, 84), (200, 84), (MOST_PICTURES, 31)):
        stored = tuple(held_out_report.stored_pictures([picture] * count, most_points=40 * 2 * MOST_PICTURES))
        assert sum(map(len, stored[-1].answers[0].outline)) == most
        assert stored[-1].answers[0].outline[1] == tip


def test_detections_of_nothing_and_missed_labels_have_a_row_and_a_column() -> None:
    picture = PictureAnswers(7, 0, 0, 1, 1, (answer(0, NOTHING, 0.9), answer(NOTHING, 1)))
    assert confusion([picture], 2) == ((0, 0, 0), (0, 0, 1), (1, 0, 0))


def test_too_few_images_are_not_judged() -> None:
    judged, _, _ = choices(12)
    assert group_quality(judged, 3).is_judged
    assert group_quality(judged[:9], 3).in_words() == "not judged yet (9 images; 10 images are needed)"
    assert group_quality([], 3).in_words() == "not judged yet (0 images; 10 images are needed)"
