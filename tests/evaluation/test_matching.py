"""Matching of detections with labels, and the quality of classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.acquisition.class_weights import match_quality
from backend.evaluation.calibration import fit, scaled, softened
from backend.evaluation.matching import class_map, class_quality, detections, matched
from backend.types import WHOLE, BoolArray, FloatArray, LabeledBox, Prediction, Ring, YoloTask

LABELS = ("outdoors", "sunny", "crowded", "blurred")


def prediction(boxes: list[list[float]], classes: list[int], confidence: list[float], of: int = 2) -> Prediction:
    probs = np.full((len(boxes), of), 0.01, dtype=np.float32)
    probs[np.arange(len(boxes)), classes] = confidence
    return Prediction(
        100,
        100,
        np.array(boxes, np.float32).reshape(-1, 4),
        probs,
        np.array(confidence, np.float32),
        np.zeros(3, np.float32),
    )


def test_true_and_false_positives() -> None:
    detected = prediction(
        [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [50, 50, 60, 60], [80, 80, 90, 90]],
        [0, 0, 0, 1, 1],
        [0.6, 0.9, 0.8, 0.7, 0.95],
    )
    labels = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    assert matched(detected, labels, np.array([0, 1])).tolist() == pytest.approx([0, 0.9, 0, 1, 0])


def test_a_detection_takes_the_label_it_overlaps_most() -> None:
    detected = prediction([[0, 0, 10, 10], [0, 0, 10, 8]], [0, 0], [0.9, 0.8])
    labels = np.array([[0, 0, 10, 7], [0, 0, 10, 10]], np.float32)
    assert matched(detected, labels, np.array([0, 0])).tolist() == pytest.approx([1, 0.875])


@pytest.mark.parametrize(("width", "overlap"), [(10, 1.0), (5, 0.5), (4.9, 0.0)])
def test_half_the_overlap_is_enough(width: float, overlap: float) -> None:
    detected = prediction([[0, 0, width, 10]], [0], [0.9])
    assert matched(detected, np.array([[0, 0, 10, 10]], np.float32), np.array([0])).tolist() == pytest.approx([overlap])


def test_no_labels_and_no_detections() -> None:
    none = np.zeros((0, 4), np.float32)
    no_classes = np.zeros(0, np.int64)
    assert matched(prediction([[0, 0, 1, 1]], [0], [0.9]), none, no_classes).tolist() == [0.0]
    assert matched(prediction([], [], []), none, no_classes).tolist() == []
    assert matched(prediction([], [], [], of=0), np.ones((1, 4), np.float32), np.array([0])).tolist() == []


def test_the_detections_of_all_images_stand_in_one_row() -> None:
    left = LabeledBox("dog", (0.25, 0.5, 0.5, 1.0))
    detected = prediction([[0, 0, 50, 100], [50, 0, 100, 100]], [1, 0], [0.9, 0.4])
    all_of_them = detections(
        [(detected, (left,)), (prediction([], [], []), (left,)), (detected, ())], ("cat", "dog"), "detect"
    )
    assert all_of_them.confidence.tolist() == pytest.approx([0.9, 0.4, 0.9, 0.4])
    assert all_of_them.classes.tolist() == [1, 0, 1, 0]
    assert all_of_them.overlap.tolist() == [1, 0, 0, 0]
    quality = match_quality(all_of_them.confidence, all_of_them.classes, all_of_them.overlap, 3)
    assert quality.tolist() == pytest.approx([np.nan, 0.9**0.6, np.nan], nan_ok=True)


@pytest.mark.parametrize("task", ["detect", "semantic"])
def test_no_images(task: YoloTask) -> None:
    assert len(detections([], ("cat",), task).confidence) == 0


# Several labels of an image


def answered(*probs: float) -> Prediction:
    """Return a classifier's prediction for an image."""
    class_probs = np.array([probs], np.float32)
    return replace(prediction([[0, 0, 100, 100]], [0], [max(probs)], of=len(probs)), class_probs=class_probs)


def chosen(*labels: str) -> list[LabeledBox]:
    return [LabeledBox(label, WHOLE) for label in labels]


def test_each_label_of_an_image_is_judged() -> None:
    images = [(answered(0.9, 0.4), chosen("dog", "cat")), (answered(0.2, 0.7), chosen("cat", "horse"))]
    answers = detections(images, ("cat", "dog"), "classify", multiple=True)
    assert answers.confidence.tolist() == pytest.approx([0.9, 0.4, 0.2, 0.7])
    assert answers.classes.tolist() == [0, 1, 0, 1]
    assert answers.overlap.tolist() == [1, 1, 1, 0]
    assert class_quality(answers, ("cat", "dog")) == pytest.approx({"cat": (0.9**0.6 + 0.2**0.6) / 2, "dog": 0.4**0.6})
    alone = detections(images, ("cat", "dog"), "classify")
    assert (alone.classes.tolist(), alone.overlap.tolist()) == ([0, 1], [1, 0])


def overconfident(images: int, temperature: float) -> list[tuple[Prediction, list[LabeledBox]]]:
    """Return images in which the first label is always present, and three others have too high probabilities."""
    rng = np.random.default_rng(0)
    honest = np.column_stack([np.full(images, 0.999), rng.uniform(0.05, 0.95, (images, 3))])
    labels = rng.random(honest.shape) < honest
    labels[:, 0] = True
    probs = scaled(honest, 1 / temperature)
    return [(answered(*p), chosen(*np.array(LABELS)[t])) for p, t in zip(probs.tolist(), labels, strict=True)]


def gap(p: FloatArray, right: BoolArray) -> float:
    """Return the mean gap between confidence and accuracy, by tenths of the confidence."""
    tenths = np.floor(p * 10)
    return sum(abs(float((p - right)[tenths == tenth].sum())) for tenth in range(11)) / len(p)


def test_the_second_and_the_third_label_are_calibrated_too() -> None:
    """The most likely label is always right and tells no temperature; the others give the planted one."""
    images = overconfident(500, temperature=3.0)
    every, first = (detections(images, LABELS, "classify", multiple=multiple) for multiple in (True, False))
    assert fit(first.confidence, first.overlap > 0).temperature == 1.0
    fitted = fit(every.confidence, every.overlap > 0).temperature
    assert fitted == pytest.approx(3.0, rel=0.1)
    others = every.classes > 0
    confidence, right = every.confidence[others], every.overlap[others] > 0
    print(f"gap of the others: {gap(confidence, right):.3f}, calibrated {gap(scaled(confidence, fitted), right):.3f}")
    assert gap(scaled(confidence, fitted), right) < 0.05 < 0.15 < gap(confidence, right)


def test_a_choice_is_calibrated_by_the_images_of_which_somebody_made_one() -> None:
    images = [(answered(0.6, 0.3, 0.1, 0.0), chosen(*labels)) for labels in ((LABELS[1],), (), ("gone",), (LABELS[0],))]
    answers = detections(images, LABELS, "classify")
    assert answers.choices is not None
    assert answers.choices.chosen.tolist() == [1, 0]
    assert answers.choices.probs.shape == (2, 4)
    assert len(answers.confidence) == 4
    assert answers.calibration().detections == 2
    assert detections(images, LABELS, "classify", multiple=True).choices is None
    nobody = detections([], LABELS, "classify")
    assert nobody.choices is not None
    assert nobody.choices.probs.shape == (0, 4)


def test_the_temperature_of_a_choice_is_that_of_its_softmax() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.full(4, 0.7), 600)
    true = (rng.random((600, 1)) > honest.cumsum(axis=1)).sum(axis=1).clip(max=3)
    images = [(answered(*row), chosen(LABELS[label])) for row, label in zip(softened(honest, 1 / 3), true, strict=True)]
    assert detections(images, LABELS, "classify").calibration().temperature == pytest.approx(3.0, rel=0.1)


# Classes of pixels


def ring(left: float, top: float, right: float, bottom: float) -> Ring:
    """Return a rectangle, as shares of the image."""
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def drawn(label: str, *rings: Ring) -> LabeledBox:
    points = np.array([point for ring in rings for point in ring])
    low, high = points.min(axis=0), points.max(axis=0)
    return LabeledBox(label, (*((low + high) / 2).tolist(), *(high - low).tolist()), outline=rings)


def painted(*objects: tuple[int, float, tuple[Ring, ...]]) -> Prediction:
    """Return a prediction for an image of 100 x 100 from the number, the confidence and the parts of each class."""
    outlines = tuple(tuple(np.array(ring, np.float32) * 100 for ring in rings) for _, _, rings in objects)
    points = [np.concatenate(outline) for outline in outlines]
    hulls = [[*object_points.min(axis=0).tolist(), *object_points.max(axis=0).tolist()] for object_points in points]
    whole = prediction(hulls, [kind for kind, _, _ in objects], [sure for _, sure, _ in objects])
    return replace(whole, outlines=outlines)


LEFT, RIGHT, MIDDLE = ring(0, 0, 0.2, 1), ring(0.8, 0, 1, 1), ring(0.2, 0, 0.8, 1)
ROAD, FRAME = painted((0, 0.9, (LEFT, RIGHT))), (ring(0, 0, 1, 1), ring(0.1, 0.1, 0.9, 0.9))


@pytest.mark.parametrize(
    ("predicted", "labels", "overlap", "of_boxes"),
    [
        # Right, and no box says so: two regions of one class, whose hull is the image.
        (ROAD, [drawn("cat", LEFT), drawn("cat", RIGHT)], [1.0], [0.0]),
        # Wrong, and the boxes agree: a frame and the whole image, .36 of the pixels.
        (painted((0, 0.9, FRAME)), [drawn("cat", ring(0, 0, 1, 1))], [0.0], [1.0]),
        (painted((0, 0.9, (LEFT,)), (1, 0.8, (RIGHT,))), [drawn("cat", LEFT), drawn("dog", LEFT)], [0.0, 0.0], [1, 0]),
        (painted((1, 0.9, (MIDDLE,))), [drawn("dog", ring(0.2, 0, 0.5, 1))], [0.5], [0.5]),
        (painted((1, 0.9, (MIDDLE,))), [drawn("dog", ring(0.2, 0, 0.49, 1))], [0.0], [0.0]),
        (ROAD, [], [0.0], [0.0]),
        (ROAD, [drawn("horse", LEFT, RIGHT)], [0.0], [0.0]),  # a class that the model does not know
        (painted(), [drawn("cat", LEFT)], [], []),
    ],
)
def test_classes_of_pixels_are_paired_by_their_pixels(
    predicted: Prediction, labels: list[LabeledBox], overlap: list[float], of_boxes: list[float]
) -> None:
    classes = ("cat", "dog")
    assert detections([(predicted, labels)], classes, "semantic").overlap == pytest.approx(overlap)
    assert detections([(predicted, labels)], classes, "detect").overlap == pytest.approx(of_boxes)


def test_the_smaller_label_lies_on_top() -> None:
    over = [drawn("dog", LEFT), drawn("cat", ring(0, 0, 1, 1)), drawn("horse", RIGHT)]
    assert class_map(over, ("cat", "dog"), 10, 2).tolist() == [[1, 1, 0, 0, 0, 0, 0, 0, -1, -1]] * 2
    assert class_map([], ("cat",), 2, 1).tolist() == [[-1, -1]]
