"""What a strategy may look at in a simulated project: the same as in production, of the same model, nothing else.

The quality it is told of is that on the held-out labeled images; the test split never comes here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import calibration, committee
from backend.acquisition import class_weights
from backend.acquisition.aggregation import pool_of
from backend.acquisition.learning_loss import image_loss
from backend.dataset import LabeledImage, Split
from backend.geometry import label_arrays
from backend.inference import Detector
from backend.types import Committee, FloatArray, IntArray, Metrics, Pool, Prediction

GATHERED = frozenset(
    {
        *("class_probs", "class_weights", "embeddings", "box_variance", "box_embeddings", "committee"),
        *("labeled_embeddings", "labeled_losses"),
    }
)


@dataclass(frozen=True, slots=True)
class Known:
    """What the simulated project knows of its labeled images."""

    split: Split
    validation: Metrics  # of the model, on split.val


def gather(
    detector: Detector, unlabeled: Sequence[LabeledImage], known: Known, needs: frozenset[str], batch: int
) -> Pool:
    """Return the pool of the unlabeled images (their boxes are not looked at) with what the strategy needs."""
    ids = np.array([image.task_id for image in unlabeled], dtype=np.int64)
    if not needs:  # chance looks at nothing
        return Pool(ids, np.zeros(len(ids) + 1, np.int64), np.zeros((0, 0), np.float32), batch=batch)
    paths = [image.path for image in unlabeled]
    with_boxes = "box_embeddings" in needs
    found = [_slim(prediction, with_boxes) for prediction in detector.predict(paths)]
    pool = pool_of(ids, found, _weights(detector, known.validation))
    pool = replace(
        pool,
        box_embeddings=_box_embeddings(found) if with_boxes else None,
        committee=_committee(detector, unlabeled) if "committee" in needs else None,
        batch=batch,
        map50=known.validation.map50 if math.isfinite(known.validation.map50) else None,
    )
    return _with_labeled(detector, pool, known.split)


def _slim(prediction: Prediction, with_boxes: bool) -> Prediction:
    """Return the prediction without what the pool will not hold: for a large pool it would not fit into memory."""
    embeddings = prediction.box_embeddings if with_boxes else None
    # Half precision, as the shards of a scored pool are stored.
    return replace(prediction, box_embeddings=None if embeddings is None else embeddings.astype(np.float16))


def _weights(detector: Detector, validation: Metrics) -> FloatArray:
    ap = [validation.class_ap50.get(name, 0.0) for name in detector.classes]
    return class_weights.long_tail(np.array(ap, dtype=np.float32))


def _box_embeddings(found: Sequence[Prediction]) -> FloatArray | None:
    """Return the embeddings of all boxes (m, E), None where there is no box."""
    parts = [one.box_embeddings for one in found if one.box_embeddings is not None and len(one.box_embeddings)]
    return np.concatenate(parts).astype(np.float32) if parts else None


def _committee(detector: Detector, images: Sequence[LabeledImage]) -> Committee:
    votes = committee.consult(committee.augmented(detector), [image.path for image in images])
    return committee.committee_of(list(votes))


def _with_labeled(detector: Detector, pool: Pool, split: Split) -> Pool:
    """Add what the labeled images tell: embeddings, losses where they are held out, and the temperature."""
    held = {image.task_id for image in split.val} if split.held_out else set()
    images = (*split.train, *(image for image in split.val if image.task_id in held))
    embeddings, losses = [], []
    validated = []
    for image, prediction in zip(images, detector.predict([image.path for image in images]), strict=True):
        embeddings.append(prediction.embedding)
        losses.append(_loss(prediction, image, detector.classes) if image.task_id in held else np.nan)
        if image.task_id in held:
            validated.append((prediction, image.boxes))
    temperature = calibration.fitted(validated, detector.classes).temperature
    pool = replace(pool, labeled_embeddings=np.stack(embeddings), labeled_losses=np.array(losses, dtype=np.float32))
    return calibration.calibrated(pool, temperature)


def _loss(prediction: Prediction, image: LabeledImage, classes: Sequence[str]) -> float:
    boxes, kinds = label_arrays(image.boxes, classes, prediction.width, prediction.height)
    return image_loss(prediction, boxes.astype(np.float32), kinds)


def ids_of(images: Sequence[LabeledImage]) -> IntArray:
    """Return the task ids of images (n,)."""
    return np.array([image.task_id for image in images], dtype=np.int64)
