"""The reliability diagram: how often detections are right, by their confidence.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.evaluation.calibration import scaled, softened
from backend.evaluation.matching import Detections

BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The detections whose confidence lies in one of BINS equal intervals of [0, 1]; empty intervals have no bin."""

    confidence: float  # mean
    accuracy: float  # share of right detections
    count: int


def reliability_bins(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Return the bins with a detection, by rising confidence: (k,) in [0, 1], (k,) whether each is right.

    >>> reliability_bins([0.91, 0.95, 0.2], [True, False, False])
    (ReliabilityBin(confidence=0.2, accuracy=0.0, count=1), ReliabilityBin(confidence=0.93, accuracy=0.5, count=2))
    """
    p, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    places = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    counts, sums, hits = (np.bincount(places, weights, BINS) for weights in (None, p, right))
    return tuple(
        ReliabilityBin(round(float(sums[b] / counts[b]), 6), round(float(hits[b] / counts[b]), 6), int(counts[b]))
        for b in np.flatnonzero(counts)
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """Return the expected calibration error: the mean of |accuracy - confidence| over the detections; None for none.

    >>> calibration_error(reliability_bins([0.75, 0.75, 0.25, 0.25], [True, True, False, False]))
    0.25
    """
    total = sum(part.count for part in bins)
    if not total:
        return None
    return sum(part.count * abs(part.accuracy - part.confidence) for part in bins) / total


def reliability(detections: Detections, temperature: float) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a model's detections after division of their logits by a temperature; 1 leaves them as is.

    For a single choice the most likely class is the detection.
    """
    choices = detections.choices
    if choices is None:
        return reliability_bins(scaled(detections.confidence, temperature), detections.overlap > 0)
    if not len(choices.probs):
        return ()
    right = choices.probs.argmax(axis=1) == choices.chosen
    return reliability_bins(softened(choices.probs, temperature).max(axis=1), right)
