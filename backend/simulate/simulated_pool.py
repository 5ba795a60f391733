"""What a strategy may look at in a simulated project: the same as in production, of the same model, nothing else.

The quality it is told of is that on the held-out labeled images; the test split never comes here. There are no
experiments with classes of pixels (`simulation_task` refuses them), so boxes tell which labels were found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend import acquisition
from backend.acquisition import class_weights
from backend.acquisition.aggregation import pool_of
from backend.acquisition.learning_loss import image_loss
from backend.acquisition.pool import Committee, Pool, thumbnail_table
from backend.datasets.writer import LabeledImage, Split
from backend.evaluation.calibration import calibrated
from backend.evaluation.matching import Detections, class_quality, detections
from backend.geometry.coordinates import label_arrays
from backend.model_versions import Metrics
from backend.settings import Settings
from backend.types import FloatArray, Outcomes, Prediction
from backend.yolo import ensemble
from backend.yolo.classification import Classifier, Predictor, load_predictor
from backend.yolo.ensemble import Voter


@dataclass(frozen=True, slots=True)
class Known:
    """What a simulated project knows when its newest version is to rank."""

    versions: tuple[Path, ...]  # weights of the last published versions, newest first
    unlabeled: tuple[LabeledImage, ...]
    split: Split  # of the labeled images, as the newest version was trained on it
    losses: Mapping[int, float]  # of labeled tasks, by the version that scored them while they had no labels
    validation: Metrics  # of the newest version
    threads: int


@dataclass(frozen=True, slots=True)
class Scored:
    """The pool, and what will be known of its images once they are labeled."""

    pool: Pool
    losses: Mapping[int, float]  # task id -> loss, empty where the strategy does not learn from losses


def gather(known: Known, strategy: str, settings: Settings) -> Scored:
    """Return the unlabeled images as a pool with what the strategy needs; raises ModelError for what cannot be had."""
    needs = acquisition.get(strategy).needs
    ids = np.array([image.task_id for image in known.unlabeled], dtype=np.int64)
    batch = settings.retrain_every
    if not needs:  # chance looks at nothing
        empty = Pool(ids, np.zeros(len(ids) + 1, np.int64), np.zeros((0, 0), np.float32), batch=batch)
        return Scored(empty, {})
    detector = load_predictor(known.versions[0], settings.imgsz, settings.device, known.threads)
    found, losses = _predict(detector, known.unlabeled, needs)
    pool = replace(
        pool_of(ids, found, None),
        box_embeddings=_box_embeddings(found) if "box_embeddings" in needs else None,
        committee=_committee(known, settings) if "committee" in needs else None,
        empty=settings.empty,
        batch=batch,
        map50=known.validation.map50 if math.isfinite(known.validation.map50) else None,
    )
    return Scored(_with_labeled(detector, pool, known, needs, settings.class_weights), losses)


def _voter(known: Known, version: int, settings: Settings) -> Voter:
    return ensemble.voter(load_predictor(known.versions[version], settings.imgsz, settings.device, known.threads))


def _predict(
    detector: Predictor, images: Sequence[LabeledImage], needs: frozenset[str]
) -> tuple[list[Prediction], dict[int, float]]:
    """Return the predictions without what the pool will not hold, and the losses where they are needed."""
    found, losses = [], {}
    for image, prediction in zip(images, detector.predict([image.path for image in images]), strict=True):
        if "labeled_losses" in needs:
            losses[image.task_id] = _loss(prediction, image, detector.classes)
        embeddings = prediction.box_embeddings if "box_embeddings" in needs else None
        # Rounded as the shards of a scored pool are.
        rounded = None if embeddings is None else embeddings.astype(np.float16).astype(np.float32)
        found.append(replace(prediction, boxes=prediction.boxes[:0], outlines=None, box_embeddings=rounded))
    return found, losses


def _box_embeddings(found: Sequence[Prediction]) -> FloatArray | None:
    """Return the embeddings of all boxes (m, E), None where there is no box."""
    parts = [one.box_embeddings for one in found if one.box_embeddings is not None and len(one.box_embeddings)]
    return np.concatenate(parts) if parts else None


def _committee(known: Known, settings: Settings) -> Committee:
    """Return the votes of COMMITTEE on the unlabeled images; raises ModelError where there are no two versions."""
    detector = _voter(known, 0, settings)
    size = settings.committee_size
    if settings.committee == "snapshots":
        older = [_voter(known, version, settings) for version in range(1, min(size, len(known.versions)))]
        members = ensemble.snapshots([detector, *older])
    elif settings.committee == "perturbed":
        members = ensemble.perturbed(detector, size)
    else:
        members = ensemble.augmented(detector)[:size]
    return ensemble.committee_of(list(ensemble.consult(members, [image.path for image in known.unlabeled])))


def _with_labeled(detector: Predictor, pool: Pool, known: Known, needs: frozenset[str], weights: str) -> Pool:
    """Add what the labeled images tell: embeddings, losses of images not learned from, weights, the temperature."""
    held = known.split.val if known.split.held_out else ()
    held_ids = {image.task_id for image in held}
    images = sorted((*known.split.train, *held), key=lambda image: image.task_id)
    embeddings, looks, losses = [], [], []
    for image, prediction in zip(images, detector.predict([image.path for image in images]), strict=True):
        embeddings.append(prediction.embedding)
        looks.append(prediction.thumbnail[None])
        if image.task_id in held_ids:
            losses.append(_loss(prediction, image, detector.classes))
        else:
            losses.append(known.losses.get(image.task_id, math.nan))
    found = _validated(detector, held)
    quality = class_quality(found, detector.classes)
    pool = replace(
        pool,
        class_weights=class_weights.chosen(weights, detector.classes, known.validation.class_ap50, quality),
        labeled_embeddings=np.stack(embeddings),
        labeled_thumbnails=thumbnail_table(looks),
        labeled_losses=np.array(losses, dtype=np.float32) if "labeled_losses" in needs else None,
    )
    return calibrated(pool, found.calibration().temperature, _outcomes(detector))


def _validated(detector: Predictor, held: Sequence[LabeledImage]) -> Detections:
    """Predict the held-out images by themselves, as after a training: last bits depend on what is in a batch."""
    predictions = detector.predict([image.path for image in held])
    pairs = zip(predictions, (image.boxes for image in held), strict=True)
    multiple = _outcomes(detector) == "several"
    return detections(pairs, detector.classes, detector.task, multiple=multiple)


def _outcomes(detector: Predictor) -> Outcomes:
    """Return what the class scores of a model are of."""
    if not isinstance(detector, Classifier):
        return "objects"
    return "several" if detector.multiple else "one"


def _loss(prediction: Prediction, image: LabeledImage, classes: Sequence[str]) -> float:
    boxes, kinds = label_arrays(image.boxes, classes, prediction.width, prediction.height)
    return image_loss(prediction, boxes.astype(np.float32), kinds)
