"""A model's answers on one image: right, confused, of nothing, and missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from backend.evaluation.judged_images import (
    NOTHING,
    JudgedImage,
    PictureAnswers,
    judge_frames,
    judge_image,
    sample_of,
    shown_answers,
)
from backend.types import FloatArray, LabeledBox, Prediction

CLASSES = ("cat", "dog")


def prediction(boxes: Sequence[Sequence[float]], kinds: Sequence[int], confidence: Sequence[float]) -> Prediction:
    """Return a prediction for an image of 100 x 100 pixels."""
    probs = np.zeros((len(kinds), len(CLASSES)), np.float32)
    probs[np.arange(len(kinds)), kinds] = confidence
    return Prediction(100, 100, np.array(boxes, np.float32).reshape(-1, 4), probs, np.array(confidence, np.float32))


def label(name: str, left: float, top: float, side: float = 0.2) -> LabeledBox:
    return LabeledBox(name, (left + side / 2, top + side / 2, side, side))


def judge(predicted: Prediction, *labels: LabeledBox) -> JudgedImage:
    return judge_image(7, 0, predicted, labels, CLASSES, "detect")


def outcomes(picture: PictureAnswers) -> list[tuple[int, int]]:
    return [(answer.predicted, answer.labeled) for answer in picture.answers]


def test_a_detection_is_right_confused_or_of_nothing_and_a_label_is_missed() -> None:
    predicted = prediction([[0, 0, 20, 20], [40, 40, 60, 60], [80, 0, 100, 20]], [0, 1, 0], [0.9, 0.8, 0.7])
    picture = shown_answers(judge(predicted, label("cat", 0, 0), label("cat", 0.4, 0.4), label("dog", 0, 0.8)))
    assert outcomes(picture) == [(0, 0), (1, 0), (0, NOTHING), (NOTHING, 1)]
    assert (picture.hits, picture.extra, picture.missed) == (1, 2, 2)
    assert picture.f1 == pytest.approx(2 / 6)
    assert picture.answers[1].label_box == (40.0, 40.0, 20.0, 20.0)
    assert picture.answers[3].box == (0.0, 80.0, 20.0, 20.0)


def ring(left: float, top: float, side: float = 20) -> FloatArray:
    return np.array([(left, top), (left + side, top), (left + side, top + side)], np.float32)


def test_answers_of_masks_have_outlines_of_detections_and_labels() -> None:
    boxes = prediction([[0, 0, 20, 20], [40, 40, 60, 60]], [0, 1], [0.9, 0.8])
    predicted = replace(boxes, outlines=((ring(0, 0),), (ring(40, 40), ring(45, 45, 5))))
    painted = [
        replace(label("cat", at, at), outline=(tuple(map(tuple, ring(at, at, 0.2).tolist())),)) for at in (0.4, 0.8)
    ]
    confused, missed = shown_answers(judge_image(7, 0, predicted, painted, CLASSES, "segment")).answers[1:]
    assert len(confused.outline) == 2
    assert confused.outline[0] == ((40.0, 40.0), (60.0, 40.0), (60.0, 60.0))
    assert confused.label_outline == (((40.0, 40.0), (60.0, 40.0), (60.0, 60.0)),)
    assert missed.outline == (((80.0, 80.0), (100.0, 80.0), (100.0, 100.0)),)


def test_an_area_has_the_outlines_of_all_labels_of_its_class() -> None:
    painted = [
        replace(label("cat", at, at), outline=(tuple(map(tuple, ring(at, at, 0.2).tolist())),)) for at in (0.4, 0.8)
    ]
    predicted = replace(prediction([[0, 0, 20, 20]], [1], [0.9]), outlines=((ring(0, 0),),))
    judged = judge_image(7, 0, predicted, painted, CLASSES, "semantic")
    (missed,) = (answer for answer in shown_answers(judged).answers if answer.predicted == NOTHING)
    assert len(missed.outline) == 2


def test_a_rotated_box_has_its_corners() -> None:
    rotated = np.array([[50, 50, 20, 10, 0]], np.float32)
    judged = judge(replace(prediction([[40, 45, 60, 55]], [0], [0.9]), rotated=rotated))
    (answer,) = shown_answers(judged).answers
    assert answer.outline == (((40.0, 45.0), (60.0, 45.0), (60.0, 55.0), (40.0, 55.0)),)


def test_a_detection_below_the_shown_confidence_does_not_count() -> None:
    picture = shown_answers(judge(prediction([[0, 0, 20, 20]], [0], [0.2]), label("cat", 0, 0)))
    assert outcomes(picture) == [(NOTHING, 0)]
    assert (picture.hits, picture.extra, picture.missed) == (0, 0, 1)


def test_a_label_is_covered_by_its_own_class_rather_than_by_another() -> None:
    predicted = prediction([[0, 0, 20, 20], [1, 1, 20, 20]], [1, 0], [0.9, 0.5])
    assert outcomes(shown_answers(judge(predicted, label("cat", 0, 0)))) == [(1, NOTHING), (0, 0)]


def test_a_label_of_a_class_that_the_model_lacks_is_not_missed() -> None:
    picture = shown_answers(judge(prediction([], [], []), label("bird", 0, 0)))
    assert (picture.missed, picture.answers) == (0, ())


def test_a_wrong_choice_is_a_confusion_whatever_its_confidence() -> None:
    chosen = LabeledBox("dog", (0.5, 0.5, 1.0, 1.0))
    predicted = prediction([[0, 0, 100, 100]], [0], [0.2])
    judged = judge_image(7, 0, predicted, [chosen], CLASSES, "classify")
    assert outcomes(shown_answers(judged)) == [(0, 1)]
    assert shown_answers(judge_image(7, 0, predicted, [], CLASSES, "classify")).answers == ()


def test_several_classes_of_one_image_are_judged_alone() -> None:
    predicted = Prediction(
        100, 100, np.array([[0, 0, 100, 100]], np.float32), np.array([[0.9, 0.1]], np.float32), np.array([0.9])
    )
    dog = LabeledBox("dog", (0.5, 0.5, 1.0, 1.0))
    picture = shown_answers(judge_image(7, 0, predicted, [dog, dog], CLASSES, "classify", multiple=True))
    assert outcomes(picture) == [(0, NOTHING), (NOTHING, 1)]


def test_frames_of_a_video_have_their_numbers() -> None:
    probs, labels = np.full((3, 2), 0.9, np.float32), np.array([[True, False]] * 3)
    judged = judge_frames(probs, labels, ("5", "5", "6"), step=4)
    assert [(image.task_id, image.frame) for image in judged] == [(5, 1), (5, 5), (6, 1)]
    assert sample_of(judged, 2).size == 2


def test_the_sample_of_boxes_has_their_ap() -> None:
    """The object of the first image is detected, that of the second is not."""
    judged = [
        judge(prediction([[0, 0, 20, 20]], [0], [0.9]), label("cat", 0, 0)),
        judge_image(8, 0, prediction([], [], []), [label("cat", 0, 0)], CLASSES, "detect"),
    ]
    sample = sample_of(judged, 2)
    assert sample.quality(np.array([[1, 1], [2, 0], [0, 2]])).round(2).tolist() == [0.5, 1.0, 0.0]
    assert sample_of([], 2).size == 0


def test_the_sample_of_choices_has_their_accuracy() -> None:
    whole = (0.5, 0.5, 1.0, 1.0)
    predicted = prediction([[0, 0, 100, 100]], [0], [0.9])
    judged = [
        judge_image(task, 0, predicted, [LabeledBox(name, whole)], CLASSES, "classify")
        for task, name in enumerate(("cat", "cat", "dog", "dog"))
    ]
    once = np.ones((1, 4), np.int64)
    assert sample_of(judged, 2).quality(once).tolist() == [0.5]
    assert sample_of(judged, 2).by_class(once).tolist() == [[1.0], [0.0]]
