"""Which choices about images are probably wrong: confident learning (Northcutt et al., 2021), from its formulas."""

from __future__ import annotations

import numpy as np

from backend.evaluation.label_quality import LIKELY, SURE, Floats, Thresholds
from backend.types import BoolArray


def choice_thresholds(probs: Floats, given: BoolArray, fair: BoolArray) -> Thresholds:
    """Return from where a model is sure that a label is present, or absent.

    `probs` (n, C) is what it says of n images, `given` (n, C) what annotators chose, and `fair` (n,) tells the images
    that it had not learned from.
    """
    present, absent = _sure(probs, given, fair), _sure(1 - probs, ~given, fair)
    return Thresholds(tuple(present.tolist()), tuple(absent.tolist()), images=len(probs))


def choice_quality(probs: Floats, given: BoolArray, thresholds: Thresholds, *, multiple: bool) -> Floats:
    """Return how right it seems that each label was chosen, or was not (n, C): 1 where nothing speaks against it.

    `probs` and `given` as in `choice_thresholds`. Where several labels may be chosen each is a question of its own: a
    choice is wrong where its absence is sure, an omission where its presence is. Else a choice is wrong where another
    label is sure, and an image without any choice lacks the one that is sure. What is wrong has 1 less the
    margin by which the opposite is likelier: a label that a model can hardly tell is sure at little over one half.

    >>> given = np.array([[True, False], [False, True], [False, True]])
    >>> probs = np.array([[0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    >>> measured = choice_thresholds(probs, given, np.ones(3, bool))
    >>> choice_quality(probs, given, measured, multiple=False).round(9).tolist()
    [[1.0, 1.0], [1.0, 0.2], [1.0, 1.0]]
    """
    present = np.array(thresholds.sure)
    if multiple:
        absent = 1 - probs
        wrong, lacking = given & (absent >= np.array(thresholds.absent)), ~given & (probs >= present)
        return 1 - np.where(wrong, absent - probs, np.where(lacking, probs - absent, 0.0))
    rival = np.where(~given & (probs >= present), probs, 0.0).max(axis=1, initial=0.0, keepdims=True)
    wrong, lacking = given & (rival > 0), ~given.any(axis=1, keepdims=True) & (probs >= present)
    return 1 - np.where(wrong, rival - probs, np.where(lacking, probs, 0.0))


def _sure(probs: Floats, given: BoolArray, fair: BoolArray) -> Floats:
    """Return the probability from which each label is sure (C,): its mean over the images that were given it.

    Over the fair ones where there are some, and between LIKELY and SURE; SURE for a label that nobody gave.
    """
    fairly = given & fair[:, None]
    counted = np.where(fairly.any(axis=0), fairly, given)
    mean = (probs * counted).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return np.where(counted.any(axis=0), mean.clip(LIKELY, SURE), SURE)
