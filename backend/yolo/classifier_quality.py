"""How good a classifier is: its top-1 accuracy, or its average precision where images may have several classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.samples import Answers, Rankings, Sample, average_precision, places, summed, tasks_of
from backend.model_versions import Metrics
from backend.types import BoolArray, FloatArray
from backend.yolo.classifier import Classifier
from backend.yolo.classifier_training import multi_hot, read_part


def measure(model: Any, data_yaml: Path, imgsz: int, device: str) -> Measured:
    """Return the quality of a classifier on the `val` split, as `quality` does; classes are matched by name."""
    data = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    images, labels = read_part(data_yaml, "val")
    classifier = Classifier(model, imgsz, device)
    predictions = list(classifier.predict(images))
    probs = by_name(
        np.concatenate([prediction.class_probs for prediction in predictions]), classifier.classes, data["names"]
    )
    true = multi_hot(labels, len(data["names"]))
    metrics = quality(probs, true, data["names"], multiple=classifier.multiple)
    names = [path.stem for path in images]
    return measured(metrics, sample(probs, true, names, multiple=classifier.multiple), tasks=tasks_of(names))


def sample(probs: FloatArray, true: BoolArray, names: Sequence[str], *, multiple: bool) -> Sample:
    """Return the values per image from which a bootstrap computes `quality`.

    `probs` (n, C), `true` (n, C), and `names` (n,), the names of the images in a data set.
    """
    place, size = places(names)
    if multiple:
        return Rankings(place, probs, true, size)
    chosen = true & (true.cumsum(axis=1) == 1)  # an image of one class counts once
    right, labeled = (summed(rows, place, size) for rows in (chosen & _right(probs, true)[:, None], chosen))
    return Answers(right=right.astype(np.int64), labeled=labeled.astype(np.int64))


def _right(probs: FloatArray, true: BoolArray) -> BoolArray:
    """Return for each image (n,) whether its most likely class is one of its labels."""
    right: BoolArray = true[np.arange(len(true)), probs.argmax(axis=1)] & (probs.max(axis=1) > 0)
    return right


def quality(probs: FloatArray, true: BoolArray, names: Sequence[str], *, multiple: bool) -> Metrics:
    """Return how well the probabilities (n, C) of n images agree with their labels (n, C).

    If images have one class, this is the top-1 accuracy, and the accuracy over the images of each class. If they may
    have several classes (`multiple`), it is the average precision. The metrics hold it where other tasks have mAP50.
    """
    labeled = true.any(axis=1)
    if multiple:
        once = np.ones((1, len(true)), np.int64)
        by_class = {
            c: float(average_precision(probs[:, c], true[:, c], once)[0])
            for c in np.flatnonzero(true.any(axis=0)).tolist()
        }
        overall = float(np.mean(list(by_class.values()))) if by_class else 0.0
    else:
        right = _right(probs, true)
        by_class = {c: float(right[true[:, c]].mean()) for c in np.flatnonzero(true.any(axis=0)).tolist()}
        overall = float(right[labeled].mean()) if labeled.any() else 0.0
    return Metrics(
        map50=overall,
        map50_95=overall,
        class_ap50={names[c]: value for c, value in by_class.items()},
        images=len(true),
        boxes=int(true.sum()),
        detections=int((probs.max(axis=1) > 0).sum()),
    )


def by_name(probs: FloatArray, classes: Sequence[str], names: Sequence[str]) -> FloatArray:
    """Return probabilities (n, C) of `classes` in the order of `names`, 0 for a name that the model does not have."""
    column = {name: index for index, name in enumerate(classes)}
    ordered = np.zeros((len(probs), len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        if name in column:
            ordered[:, index] = probs[:, column[name]]
    return ordered
