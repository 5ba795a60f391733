"""The quality of choices about images: confident learning (Northcutt et al., 2021), written from its formulas."""

from __future__ import annotations

import numpy as np

from backend.evaluation.label_quality import LIKELY, SURE, Floats, Thresholds
from backend.types import BoolArray


def choice_thresholds(probs: Floats, chosen: BoolArray, is_fair: BoolArray) -> Thresholds:
    """Return the probabilities from which a model is sure that a label is present, or absent.

    `probs` (n, C) are the predictions for n images, `chosen` (n, C) the annotators' choices, and `is_fair` (n,) tells
    which images the model has not learned from.
    """
    present, absent = _sure(probs, chosen, is_fair), _sure(1 - probs, ~chosen, is_fair)
    return Thresholds(tuple(present.tolist()), tuple(absent.tolist()), images=len(probs))


def choice_quality(probs: Floats, chosen: BoolArray, thresholds: Thresholds, *, multiple: bool) -> Floats:
    """Return the quality of each choice and of each label that was not chosen (n, C); 1: no prediction contradicts it.

    `probs` and `chosen` are as in `choice_thresholds`. With `multiple`, each label is judged on its own: a choice is
    wrong if the model is sure that the label is absent, and an omission if it is sure that the label is present.
    Otherwise a choice is wrong if the model is sure of another label, and an image without a choice lacks the label
    that is sure. The quality of a wrong label is 1 minus the margin between the opposite and the label, because a label
    that the model tells apart badly is already sure at a little over one half.

    >>> chosen = np.array([[True, False], [False, True], [False, True]])
    >>> probs = np.array([[0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    >>> measured = choice_thresholds(probs, chosen, np.ones(3, bool))
    >>> choice_quality(probs, chosen, measured, multiple=False).round(9).tolist()
    [[1.0, 1.0], [1.0, 0.2], [1.0, 1.0]]
    """
    present = np.array(thresholds.sure)
    if multiple:
        absent = 1 - probs
        wrong, lacking = chosen & (absent >= np.array(thresholds.absent)), ~chosen & (probs >= present)
        return 1 - np.where(wrong, absent - probs, np.where(lacking, probs - absent, 0.0))
    rival = np.where(~chosen & (probs >= present), probs, 0.0).max(axis=1, initial=0.0, keepdims=True)
    wrong, lacking = chosen & (rival > 0), ~chosen.any(axis=1, keepdims=True) & (probs >= present)
    return 1 - np.where(wrong, rival - probs, np.where(lacking, probs, 0.0))


def _sure(probs: Floats, chosen: BoolArray, is_fair: BoolArray) -> Floats:
    """Return the probability from which each label is sure (C,): its mean over the images where it was chosen.

    If there are fair images among these, only they count. The result is clipped to LIKELY … SURE; it is SURE for a
    label that nobody chose.
    """
    fairly_chosen = chosen & is_fair[:, None]
    counted = np.where(fairly_chosen.any(axis=0), fairly_chosen, chosen)
    mean = (probs * counted).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return np.where(counted.any(axis=0), mean.clip(LIKELY, SURE), SURE)
