"""Label errors: each kind by an example worked out by hand, and cleanlab as an oracle."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from cleanlab.object_detection import rank as cleanlab

from backend.evaluation.label_quality import SURE, Reviewed, label_quality, softmin, thresholds

CLASSES = 3
HERE, AWAY = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def image(
    labels: list[list[float]],
    classes: list[int],
    predictions: list[list[float]],
    predicted_classes: list[int],
    sure: list[float],
) -> Reviewed:
    return Reviewed(
        np.array(labels, dtype=np.float64).reshape(-1, 4),
        np.array(classes, dtype=np.int64),
        np.array(predictions, dtype=np.float64).reshape(-1, 4),
        np.array(predicted_classes, dtype=np.int64),
        np.array(sure, dtype=np.float64),
    )


def test_a_label_that_the_model_agrees_with_is_clean() -> None:
    (quality,) = label_quality([image([HERE], [0], [HERE], [0], [0.99])])
    assert quality.score == pytest.approx(1.0)
    assert quality.suspicion == ""


def test_an_overlooked_object() -> None:
    (quality,) = label_quality([image([HERE], [0], [HERE, AWAY], [0, 0], [0.99, 0.96])])
    far = 0.1 * math.exp(-0.1 * math.hypot(50, 50))  # no overlap: the distance alone
    assert quality.overlooked == pytest.approx([np.nan, far], nan_ok=True)
    assert quality.score == pytest.approx(far ** (1 / 3))
    assert quality.suspicion == "overlooked"


def test_an_overlooked_object_of_a_class_without_labels() -> None:
    (quality,) = label_quality([image([HERE], [0], [HERE, AWAY], [0, 1], [0.99, 0.96])])
    floor = 0.1 * math.exp(-0.1 * math.hypot(50, 50))
    assert quality.overlooked[1] == pytest.approx(floor * 0.04)


def test_a_misplaced_label() -> None:
    (quality,) = label_quality([image([HERE], [0], [[5.0, 0.0, 15.0, 10.0]], [0], [0.6])])
    similar = 0.9 / 3 + 0.1 * math.exp(-0.5)
    assert quality.misplaced == pytest.approx([similar])
    assert quality.score == pytest.approx(similar ** (1 / 3))
    assert quality.suspicion == "misplaced"


def test_a_swapped_class() -> None:
    (quality,) = label_quality([image([HERE], [0], [[1.0, 0.0, 11.0, 10.0]], [1], [0.96])])
    similar = 0.9 * 90 / 110 + 0.1 * math.exp(-0.1)
    assert quality.swapped == pytest.approx([max(1 - similar, similar)])  # the set's least similarity is the floor
    far = image([HERE], [0], [AWAY], [0], [0.1])
    quality, _ = label_quality([image([HERE], [0], [[1.0, 0.0, 11.0, 10.0]], [1], [0.96]), far])
    assert quality.swapped == pytest.approx([1 - similar])
    assert quality.suspicion == "swapped"


@pytest.mark.parametrize(("kind", "sure"), [(0, 0.5), (1, 0.95)])
def test_unsure_predictions_contradict_no_label(kind: int, sure: float) -> None:
    (quality,) = label_quality([image([HERE], [0], [[5.0, 0.0, 15.0, 10.0]], [kind], [sure])])
    assert quality.score == pytest.approx(1.0)


def test_two_classes_on_one_box_are_suspect_without_any_prediction() -> None:
    far = image([HERE], [0], [AWAY], [0], [0.1])
    quality, _ = label_quality([image([HERE, HERE], [0, 1], [], [], []), far])
    assert quality.suspicion == "swapped"
    assert quality.score < 0.2


def test_the_worst_box_decides() -> None:
    crowd = [[10.0 * i, 0.0, 10.0 * i + 9, 9.0] for i in range(9)]
    (quality,) = label_quality(
        [image([*crowd, AWAY], [0] * 10, [*crowd, [54.0, 50.0, 64.0, 60.0]], [0] * 10, [0.9] * 10)]
    )
    assert softmin(quality.misplaced) < 0.6 < float(np.mean(quality.misplaced))


def test_nothing_at_all() -> None:
    assert label_quality([]) == ()
    (empty,) = label_quality([image([], [], [], [], [])])
    assert empty.score == pytest.approx(1.0)
    assert empty.suspicion == ""
    (background,) = label_quality([image([], [], [HERE], [0], [0.99])])
    assert background.score == pytest.approx(0.01 ** (1 / 3))


def noisy_set(images: int = 60, classes: int = CLASSES) -> list[Reviewed]:
    """Return images whose annotator overlooks, shifts and swaps about an eighth of the boxes."""
    rng = np.random.default_rng(0)
    reviewed = []
    for _ in range(images):
        n = int(rng.integers(1, 6))
        corners, sizes = rng.uniform(0, 70, (n, 2)), rng.uniform(8, 28, (n, 2))
        boxes, kinds = np.concatenate([corners, corners + sizes], axis=1), rng.integers(0, classes, n)
        is_labeled = rng.random(n) > 0.12
        k = int(is_labeled.sum())
        labels = boxes[is_labeled] + rng.normal(0, 1, (k, 4)) + (rng.random((k, 1)) < 0.12) * rng.uniform(-7, 7, (k, 4))
        labels[:, 2:] = np.maximum(labels[:, 2:], labels[:, :2] + 1)
        noisy_classes = np.where(rng.random(k) < 0.12, (kinds[is_labeled] + 1) % classes, kinds[is_labeled])
        predictions, confidence = boxes + rng.normal(0, 0.7, boxes.shape), rng.uniform(0.3, 1, n) ** 0.3
        reviewed.append(Reviewed(labels, noisy_classes, predictions, kinds, confidence))
    return reviewed


def by_class(reviewed: Reviewed, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the scores of predictions in cleanlab's order."""
    return scores[np.argsort(reviewed.predicted_classes, kind="stable")]


def test_scores_are_those_of_cleanlab() -> None:
    """The scores of whole images, and of each box for each kind of error."""
    images = noisy_set()
    labels = [{"bboxes": reviewed.labels, "labels": reviewed.label_classes} for reviewed in images]
    detections = [np.column_stack([reviewed.predictions, reviewed.confidence]) for reviewed in images]
    predictions = [
        np.array([rows[reviewed.predicted_classes == number] for number in range(CLASSES)], dtype=object)
        for reviewed, rows in zip(images, detections, strict=True)
    ]
    qualities = label_quality(images)
    scores = [quality.score for quality in qualities]
    assert scores == pytest.approx(cleanlab.get_label_quality_scores(labels, predictions, verbose=False), abs=1e-9)
    overlooked = cleanlab.compute_overlooked_box_scores(labels=labels, predictions=predictions)
    misplaced = cleanlab.compute_badloc_box_scores(labels=labels, predictions=predictions)
    swapped = cleanlab.compute_swap_box_scores(labels=labels, predictions=predictions)
    for number, (reviewed, quality) in enumerate(zip(images, qualities, strict=True)):
        assert by_class(reviewed, quality.overlooked) == pytest.approx(overlooked[number], nan_ok=True, abs=1e-9)
        assert quality.misplaced == pytest.approx(misplaced[number], abs=1e-9)
        assert quality.swapped == pytest.approx(swapped[number], abs=1e-9)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], SURE),
        ([image([], [], [HERE], [0], [0.3])], SURE),
        ([image([HERE], [1], [HERE], [0], [0.3])], SURE),
        ([image([HERE], [0], [HERE], [0], [0.99])], SURE),
        ([image([HERE], [0], [HERE, AWAY], [0, 0], [0.7, 0.1]), image([AWAY], [1], [AWAY], [1], [0.5])], 0.6),
    ],
)
def test_a_model_contradicts_labels_once_it_is_as_sure_as_where_labels_agree(
    images: list[Reviewed], expected: float
) -> None:
    (sure,) = thresholds(images).sure
    assert sure == pytest.approx(expected)


def test_a_model_that_is_never_sure_contradicts_labels_by_its_own_measure() -> None:
    images = [image([HERE], [0], [HERE], [0], [0.5]), image([], [], [HERE], [0], [0.6])]
    assert label_quality(images)[1].score == 1
    assert label_quality(images, *thresholds(images).sure)[1].suspicion == "overlooked"
