"""The inputs of a strategy: the scored pool, the labeled images and the model's metrics, as far as it needs them."""

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
    """What a model says of the labeled images; l is their number."""

    embeddings: FloatArray | None  # (l, D)
    thumbnails: ByteArray | None  # (l, 192)


def weights_of(
    settings: Settings, classes: Sequence[str], metrics: Metrics | None, class_quality: Mapping[str, float]
) -> FloatArray | None:
    """Return the weight of each class of a model (C,), as CLASS_WEIGHTS says; None: all classes count the same.

    `metrics` and `class_quality` were measured on the model's validation images.
    """
    return class_weights.by_setting(
        settings.class_weights, classes, metrics.class_ap50 if metrics else {}, class_quality
    )


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
    """Return a scored pool with the inputs that `strategy` needs.

    `metrics` and `temperature` were measured on the model's validation images. `outcomes` says what the class scores
    are scores of. `losses` (one per labeled image) and `committee` (the votes on the pool's images) are called only if
    the strategy needs them.
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
