"""Wrong choices among right ones: worked examples of confident learning, and a trained classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from backend.datasets.writer import Split
from backend.evaluation.choice_quality import choice_quality, choice_thresholds
from backend.evaluation.label_quality import SUSPECT, Floats
from backend.types import BoolArray
from backend.yolo.predictors import load_predictor
from tests.labelstudio.tags.test_choices import LABELS
from tests.yolo.test_classifier import IMGSZ, pictures, train

SURE_A, SURE_B, UNSURE = (0.9, 0.1), (0.2, 0.8), (0.55, 0.45)
A, B, BOTH, NONE = (1, 0), (0, 1), (1, 1), (0, 0)


def quality(probs: Sequence[tuple[float, ...]], chosen: Sequence[tuple[int, ...]], *, multiple: bool = False) -> Floats:
    """Return the quality of choices about images from which the model has not learned."""
    return measured(np.array(probs), np.array(chosen, dtype=bool), np.ones(len(probs), bool), multiple=multiple)


def measured(probs: Floats, chosen: BoolArray, is_fair: BoolArray, *, multiple: bool) -> Floats:
    """Return the quality of choices by thresholds that are measured on the same choices."""
    return choice_quality(probs, chosen, choice_thresholds(probs, chosen, is_fair), multiple=multiple)


@pytest.mark.parametrize("multiple", [False, True])
def test_without_images_no_choice_is_wrong(multiple: bool) -> None:
    nothing = np.zeros((0, 2))
    assert measured(nothing, nothing.astype(bool), np.zeros(0, bool), multiple=multiple).shape == (0, 2)


def test_a_choice_is_wrong_where_another_label_is_sure() -> None:
    """A is sure from .8, the mean of .9 and .7 where it was chosen."""
    probs = [SURE_A, (0.7, 0.3), SURE_B, SURE_B, SURE_B, (0.85, 0.15)]
    scores = quality(probs, [A, A, B, B, B, B])
    assert scores[5] == pytest.approx([1, 0.3])
    assert (scores[:5] == 1).all()
    assert (quality([*probs[:5], (0.75, 0.25)], [A, A, B, B, B, B]) == 1).all(), "under .8 it is not sure"


def test_an_unsure_model_contradicts_no_label() -> None:
    """The mean of A where it was chosen is .4; a contradicting label still needs a probability of .5."""
    three = [(0.4, 0.3, 0.3), (0.4, 0.3, 0.3), (0.45, 0.3, 0.25)]
    assert (quality(three, [(1, 0, 0), (1, 0, 0), (0, 1, 0)]) == 1).all()
    assert quality([*three[:2], (0.55, 0.3, 0.15)], [(1, 0, 0), (1, 0, 0), (0, 1, 0)])[2] == pytest.approx([1, 0.75, 1])


def test_a_model_too_sure_of_itself_contradicts_labels_from_95_hundredths() -> None:
    probs = [(0.9999, 0.0001), (0.0001, 0.9999), (0.96, 0.04)]
    assert quality(probs, [A, B, B])[2] == pytest.approx([1, 0.08])


def test_the_likelier_label_is_right() -> None:
    """The model is sure of B from .5, because its probabilities are low where B was chosen; A at .6 stays right."""
    assert (quality([(0.6, 0.4), SURE_A, (0.5, 0.5)], [A, A, B]) == 1).all()


def test_an_image_without_any_choice_lacks_the_sure_one() -> None:
    scores = quality([SURE_A, SURE_B, SURE_A, UNSURE], [A, B, NONE, NONE])
    assert scores[2] == pytest.approx([0.1, 1])
    assert (scores[3] == 1).all()


def test_learned_images_do_not_set_the_thresholds() -> None:
    """Learned images have .99; over new images, .8 is sure of A."""
    probs, chosen = np.array([(0.99, 0.01)] * 9 + [SURE_B, (0.8, 0.2), (0.85, 0.15)]), np.array([A] * 9 + [B, A, B]) > 0
    is_fair = np.array([False] * 9 + [True] * 3)
    assert measured(probs, chosen, is_fair, multiple=False)[-1] == pytest.approx([1, 0.3])
    assert (measured(probs, chosen, np.ones(12, bool), multiple=False) == 1).all()


@pytest.mark.parametrize(
    ("probs", "chosen", "expected"),
    [
        (SURE_A, A, (1, 1)),
        ((0.9, 0.8), BOTH, (1, 1)),
        ((0.1, 0.2), NONE, (1, 1)),
        (SURE_A, BOTH, (1, 0.2)),  # a choice too many
        ((0.9, 0.85), A, (1, 0.3)),  # one too few
        ((0.95, 0.1), B, (0.1, 0.2)),
        ((0.6, 0.4), B, (1, 1)),  # not sure enough of either
    ],
)
def test_each_label_of_a_multiple_choice_is_judged(
    probs: tuple[float, ...], chosen: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    """Presence is sure from about .9 of the first label and .8 of the second, absence of both from about .85."""
    others = [SURE_A, SURE_B, (0.91, 0.8), (0.1, 0.2)] * 20
    scores = quality([*others, probs], [*[A, B, BOTH, NONE] * 20, chosen], multiple=True)
    assert scores[-1] == pytest.approx(expected)
    assert (scores[:-1] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [False, True])
def test_a_real_classifier_finds_planted_wrong_choices(tmp_path: Path, multiple: bool) -> None:
    """It learns 60 pictures and reviews 24 others, four of them with wrong choices."""
    learned, reviewed = (pictures(tmp_path / "p", count, seed, multiple) for count, seed in ((60, 3), (24, 4)))
    weights, _, _ = train(Split(learned, reviewed, held_out=True), tmp_path, multiple, epochs=50)
    predictions = load_predictor(weights, IMGSZ, "cpu").predict([image.path for image in reviewed])
    probs = np.concatenate([prediction.class_probs for prediction in predictions]).astype(np.float64)
    chosen = np.array([[label in {box.label for box in image.boxes} for label in LABELS] for image in reviewed])
    planted = (1, 6, 11, 20)
    for row in planted:
        chosen[row] = ~chosen[row] if multiple else np.roll(chosen[row], 1)
    scores = measured(probs, chosen, np.ones(len(reviewed), bool), multiple=multiple).min(axis=1)
    worst = np.argsort(scores, kind="stable")[: len(planted)].tolist()
    print(f"worst {worst} of {np.flatnonzero(scores < SUSPECT).tolist()}")
    assert sorted(worst) == list(planted)
    assert (scores[worst] < SUSPECT).all()
