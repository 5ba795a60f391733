"""What a strategy may look at in a simulated project: the same as in production, of the same model, nothing else.

The quality it is told of is that on the held-out labeled images; the test split never comes here. There are no
experiments with classes of pixels (`simulation_task` refuses them), so boxes tell which labels were found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend import acquisition
from backend.acquisition.aggregation import pool_of
from backend.acquisition.columns import of_predictions, without_others
from backend.acquisition.pool import Committee, Pool
from backend.datasets.writer import LabeledImage, Split
from backend.evaluation.matching import Detections, detections
from backend.model_versions import Metrics
from backend.policy import strategy_pool
from backend.policy.fair_losses import fair_answers, prediction_loss
from backend.policy.judgement import calibration_of, class_quality_of
from backend.policy.strategy_pool import LabeledImages
from backend.policy.voters import committee_versions
from backend.settings import Settings
from backend.types import FloatArray, Outcomes, Prediction
from backend.yolo import ensemble
from backend.yolo.classifier import Classifier
from backend.yolo.ensemble import Voter
from backend.yolo.predictors import Predictor, load_predictor


@dataclass(frozen=True, slots=True)
class PastLosses:
    """What a published version had learned from, and how badly it predicted tasks that it had not learned from."""

    learned: frozenset[int]
    losses: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Known:
    """What a simulated project knows when its newest version is to rank."""

    versions: tuple[Path, ...]  # weights of the last published versions, newest first
    unlabeled: tuple[LabeledImage, ...]
    split: Split  # of the labeled images, as the newest version was trained on it
    learned: frozenset[int]  # the tasks that the newest version's weights have ever learned from
    past: tuple[PastLosses, ...]  # of the versions before whose pools production keeps, newest first
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
    images = sorted((*known.split.train, *_held_out(known)), key=lambda image: image.task_id)
    labeled, labeled_losses = _predict(detector, images, needs)
    columns = of_predictions(labeled)
    detections = predicted_alone(detector, _held_out(known)) if known.split.held_out else None
    quality = class_quality_of(detections, detector.classes)
    weights = strategy_pool.weights_of(settings, detector.classes, known.validation, quality)
    pool = strategy_pool.pool_for(
        strategy,
        settings,
        pool_of(ids, found, weights, needs),
        LabeledImages(columns.get("embeddings"), columns.get("thumbnails")),
        metrics=known.validation,
        temperature=calibration_of(detections).temperature,
        outcomes=_outcomes(detector),
        losses=lambda: _fair_losses(known, images, labeled_losses),
        committee=lambda: _committee(known, settings),
    )
    return Scored(pool, losses)


def _held_out(known: Known) -> tuple[LabeledImage, ...]:
    return known.split.val if known.split.held_out else ()


def _voter(known: Known, version: int, settings: Settings) -> Voter:
    return ensemble.voter(load_predictor(known.versions[version], settings.imgsz, settings.device, known.threads))


def _predict(
    detector: Predictor, images: Sequence[LabeledImage], needs: frozenset[str]
) -> tuple[list[Prediction], dict[int, float]]:
    """Return the predictions without what the pool will not hold, and the losses where they are needed."""
    found, losses = [], {}
    for image, prediction in zip(images, detector.predict([image.path for image in images]), strict=True):
        if "labeled_losses" in needs:
            losses[image.task_id] = prediction_loss(prediction, image.boxes, detector.classes)
        found.append(without_others(prediction, needs))
    return found, losses


def _committee(known: Known, settings: Settings) -> Committee:
    """Return the votes of COMMITTEE on the unlabeled images; raises ModelError where there are no two versions."""
    count = min(committee_versions(settings), len(known.versions))
    detectors = [_voter(known, version, settings) for version in range(count)]
    members = ensemble.committee_members(settings.committee, settings.committee_size, detectors)
    return ensemble.committee_of(list(ensemble.consult(members, [image.path for image in known.unlabeled])))


def _fair_losses(known: Known, images: Sequence[LabeledImage], by_newest: Mapping[int, float]) -> FloatArray:
    """Return how badly each labeled image was predicted by a version that had not learned from it, else NaN (l,).

    `by_newest` are the losses of all of them by the newest version.
    """

    def answers(version: PastLosses, task_ids: frozenset[int]) -> list[tuple[int, float]]:
        return [(task_id, loss) for task_id, loss in version.losses.items() if task_id in task_ids]

    ids = [image.task_id for image in images]
    versions = (PastLosses(known.learned, by_newest), *known.past)
    losses = {
        task_id: loss for task_id, _, loss in fair_answers(versions, ids, lambda version: version.learned, answers)
    }
    return np.array([losses.get(task_id, math.nan) for task_id in ids], dtype=np.float32)


def predicted_alone(detector: Predictor, held: Sequence[LabeledImage]) -> Detections:
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
