"""The quality of a detector by its judged images, for predictions that ultralytics' own validation cannot make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.judged_images import JudgedImage, sample_of
from backend.evaluation.matching import predicted_classes
from backend.evaluation.samples import Matches, Mean, tasks_of
from backend.model_versions import Metrics
from backend.types import BoolArray, Prediction

_OVERLAPS = np.arange(0.5, 1.0, 0.05)  # IoU thresholds of mAP50-95


def measured_of(judged: Sequence[JudgedImage], labels: Sequence[str], least: float) -> Measured:
    """Return the quality of objects on judged images, and the values per image for a bootstrap.

    A detection keeps the label that it matches at IoU 0.5 for all thresholds of mAP50-95. The number of detections is
    of those with the confidence `least` or more.
    """
    base = sample_of(judged, len(labels))
    assert isinstance(base, Matches), "only objects are judged so"
    overlap = np.concatenate([np.zeros(0, np.float32), *(image.detections.overlap for image in judged)])
    by_overlap = tuple(replace(base, right=overlap >= least) for least in _OVERLAPS)
    strict, once = Mean(by_overlap), np.ones((1, base.size), np.int64)
    by_class = base.by_class(once)[:, 0]
    metrics = Metrics(
        map50=float(np.nan_to_num(base.quality(once)[0])),
        map50_95=float(np.nan_to_num(strict.quality(once)[0])),
        class_ap50={name: float(ap) for name, ap in zip(labels, by_class, strict=True) if np.isfinite(ap)},
        images=len(judged),
        boxes=int(base.labels.sum()),
        detections=sum(int((image.detections.confidence >= least).sum()) for image in judged),
    )
    return measured(metrics, base, strict, tasks=tasks_of([image.name for image in judged]))


def confident(prediction: Prediction, least: float) -> Prediction:
    """Return a detector's boxes with the confidence `least` or more."""
    return _of_rows(prediction, prediction.confidence >= least)


def _of_rows(prediction: Prediction, kept: BoolArray) -> Prediction:
    """Return some of a detector's boxes, with what a judgement needs."""
    return replace(
        prediction,
        boxes=prediction.boxes[kept],
        class_probs=prediction.class_probs[kept],
        confidence=prediction.confidence[kept],
    )


def with_classes(prediction: Prediction, classes: Sequence[str], labels: Sequence[str]) -> Prediction:
    """Return a detector's boxes with class scores in the order of `labels`; boxes of other classes are left out.

    `classes` are those of the model. A label that the model lacks has the score 0.
    """
    column = {name: index for index, name in enumerate(classes)}
    in_labels = np.isin(predicted_classes(prediction), [column[name] for name in labels if name in column])
    kept = _of_rows(prediction, in_labels)
    scores = np.zeros((len(kept.boxes), len(labels)), dtype=np.float32)
    for index, name in enumerate(labels):
        if name in column:
            scores[:, index] = kept.class_probs[:, column[name]]
    return replace(kept, class_probs=scores)
