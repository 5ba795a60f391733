"""In which order a pool is labeled: the settings that make batches, and the chance that a version's ranking gets."""

from __future__ import annotations

import numpy as np

from backend.sampling import ranking
from backend.sampling.ranking import Protocol
from backend.settings import Settings


def protocol(settings: Settings) -> Protocol:
    """Return how batches are made of acquisition values."""
    return ranking.protocol(
        settings.protocol,
        batch=settings.retrain_every,
        uncertain_share=settings.uncertain_share,
        pool_limit=settings.pool_limit,
    )


def chance(settings: Settings, project_id: int, number: int) -> np.random.Generator:
    """Return the random numbers of the ranking by version `number`: the same each time it is made."""
    return np.random.default_rng((settings.seed, project_id, number))
