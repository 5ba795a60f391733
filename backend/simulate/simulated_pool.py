"""The input of a strategy in a simulated project: the same as in the live loop, and nothing else.

The quality that a strategy may read is measured on the held-out labeled images. The test split is not used here. There
are no experiments with semantic segmentation (`simulation_task` refuses them), so matched boxes give the losses.
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
from backend.yolo.ensemble import MemberModel
from backend.yolo.predictors import Predictor, load_predictor


@dataclass(frozen=True, slots=True)
class PastLosses:
    """The tasks from which a published version learned, and its losses on other tasks."""

    learned: frozenset[int]
    losses: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything that a simulated project knows when its newest version ranks the pool."""

    versions: tuple[Path, ...]  # weights of the last published versions, newest first
    unlabeled: tuple[LabeledImage, ...]
    split: Split  # of the labeled images, as in the training of the newest version
    learned: frozenset[int]  # the tasks that the newest version's weights have ever learned from
    past: tuple[PastLosses, ...]  # of earlier versions whose pools the live loop would keep, newest first
    validation: Metrics | None  # of the newest version; None: base weights
    threads: int


@dataclass(frozen=True, slots=True)
class Scored:
    """The pool, and the losses on its images, which the project will know once they are labeled."""

    pool: Pool
    losses: Mapping[int, float]  # task id -> loss, empty if the strategy does not learn from losses


def gather(knowledge: Knowledge, strategy: str, settings: Settings) -> Scored:
    """Return the unlabeled images as a pool with the strategy's needs. Raises ModelError if a need cannot be met."""
    needs = acquisition.get(strategy).needs
    ids = np.array([image.task_id for image in knowledge.unlabeled], dtype=np.int64)
    batch = settings.retrain_every
    if not needs:  # random selection reads no predictions
        empty = Pool(ids, np.zeros(len(ids) + 1, np.int64), np.zeros((0, 0), np.float32), batch=batch)
        return Scored(empty, {})
    detector = load_predictor(knowledge.versions[0], settings.imgsz, settings.device, knowledge.threads)
    predictions, losses = _predict(detector, knowledge.unlabeled, needs)
    images = sorted((*knowledge.split.train, *_held_out(knowledge)), key=lambda image: image.task_id)
    labeled, labeled_losses = _predict(detector, images, needs)
    columns = of_predictions(labeled)
    detections = predicted_alone(detector, _held_out(knowledge)) if knowledge.split.held_out else None
    quality = class_quality_of(detections, detector.classes)
    weights = strategy_pool.weights_of(settings, detector.classes, knowledge.validation, quality)
    pool = strategy_pool.pool_for(
        strategy,
        settings,
        pool_of(ids, predictions, weights, needs),
        LabeledImages(columns.get("embeddings"), columns.get("thumbnails")),
        metrics=knowledge.validation,
        temperature=calibration_of(detections).temperature,
        outcomes=_outcomes(detector),
        losses=lambda: _fair_losses(knowledge, images, labeled_losses),
        committee=lambda: _committee(knowledge, settings),
    )
    return Scored(pool, losses)


def _held_out(knowledge: Knowledge) -> tuple[LabeledImage, ...]:
    return knowledge.split.val if knowledge.split.held_out else ()


def _member_model(knowledge: Knowledge, version: int, settings: Settings) -> MemberModel:
    return ensemble.member_model(
        load_predictor(knowledge.versions[version], settings.imgsz, settings.device, knowledge.threads)
    )


def _predict(
    detector: Predictor, images: Sequence[LabeledImage], needs: frozenset[str]
) -> tuple[list[Prediction], dict[int, float]]:
    """Return the predictions, without columns that the pool will not hold, and the losses if they are needed."""
    predictions, losses = [], {}
    for image, prediction in zip(images, detector.predict([image.path for image in images]), strict=True):
        if "labeled_losses" in needs:
            losses[image.task_id] = prediction_loss(prediction, image.boxes, detector.classes)
        predictions.append(without_others(prediction, needs))
    return predictions, losses


def _committee(knowledge: Knowledge, settings: Settings) -> Committee:
    """Return the votes of COMMITTEE on the unlabeled images. Raises ModelError for fewer than two versions."""
    count = min(committee_versions(settings), len(knowledge.versions))
    detectors = [_member_model(knowledge, version, settings) for version in range(count)]
    members = ensemble.committee_members(settings.committee, settings.committee_size, detectors)
    return ensemble.committee_of(list(ensemble.consult(members, [image.path for image in knowledge.unlabeled])))


def _fair_losses(knowledge: Knowledge, images: Sequence[LabeledImage], by_newest: Mapping[int, float]) -> FloatArray:
    """Return the loss on each labeled image of a version that has not learned from it, NaN without one (l,).

    `by_newest` maps all these images to the losses of the newest version.
    """

    def losses_of(version: PastLosses, task_ids: frozenset[int]) -> list[tuple[int, float]]:
        """Return a version's losses on some tasks."""
        return [(task_id, loss) for task_id, loss in version.losses.items() if task_id in task_ids]

    ids = [image.task_id for image in images]
    versions = (PastLosses(knowledge.learned, by_newest), *knowledge.past)
    losses = {
        task_id: loss for task_id, _, loss in fair_answers(versions, ids, lambda version: version.learned, losses_of)
    }
    return np.array([losses.get(task_id, math.nan) for task_id in ids], dtype=np.float32)


def predicted_alone(detector: Predictor, held: Sequence[LabeledImage]) -> Detections:
    """Predict the held-out images alone, as after a training, because the last bits depend on the batch."""
    predictions = detector.predict([image.path for image in held])
    pairs = zip(predictions, (image.boxes for image in held), strict=True)
    multiple = _outcomes(detector) == "several"
    return detections(pairs, detector.classes, detector.task, multiple=multiple)


def _outcomes(detector: Predictor) -> Outcomes:
    """Return what the class scores of a model are of."""
    if not isinstance(detector, Classifier):
        return "objects"
    return "several" if detector.multiple else "one"
