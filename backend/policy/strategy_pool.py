"""What a strategy is told of a scored pool, the labeled images and the model: nothing that it does not ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend import acquisition
from backend.acquisition import class_weights
from backend.acquisition.pool import Committee, Pool
from backend.evaluation.calibration import calibrated
from backend.model_versions import Metrics
from backend.settings import Settings
from backend.types import ByteArray, FloatArray, Outcomes


@dataclass(frozen=True, slots=True)
class LabeledImages:
    """What a model says of the l images that have labels."""

    embeddings: FloatArray | None  # (l, D)
    thumbnails: ByteArray | None  # (l, 192)


def weights_of(
    settings: Settings, classes: Sequence[str], metrics: Metrics | None, class_quality: Mapping[str, float]
) -> FloatArray | None:
    """Return how much each class of a model counts (C,), as CLASS_WEIGHTS says; None: all the same.

    `metrics` and `class_quality` are those of the model on the images that it is judged by.
    """
    return class_weights.chosen(settings.class_weights, classes, metrics.class_ap50 if metrics else {}, class_quality)


def pool_for(
    strategy: str,
    settings: Settings,
    pool: Pool,
    labeled: LabeledImages,
    *,
    metrics: Metrics | None,
    temperature: float,
    outcomes: Outcomes,
    losses: Callable[[], FloatArray],
    committee: Callable[[], Committee],
) -> Pool:
    """Return a scored pool with all that `strategy` may look at.

    `metrics` and `temperature` come from the images that the model is judged by; `outcomes` is what its class scores
    are of. `losses` (one per labeled image) and `committee` (on the images of the pool) are only called if the strategy
    needs them.
    """
    needs = acquisition.get(strategy).needs
    map50 = metrics.map50 if metrics else math.nan
    return replace(
        calibrated(pool, temperature, outcomes),
        empty=settings.empty,
        batch=settings.retrain_every,
        map50=map50 if math.isfinite(map50) else None,
        labeled_embeddings=labeled.embeddings,
        labeled_thumbnails=labeled.thumbnails,
        labeled_losses=losses() if "labeled_losses" in needs else None,
        committee=committee() if "committee" in needs else None,
    )
