"""The order in which a pool is labeled: how batches are made, and the random generator of a version's ranking."""

from __future__ import annotations

import numpy as np

from backend.sampling import ranking
from backend.sampling.ranking import Protocol
from backend.settings import Settings


def protocol(settings: Settings) -> Protocol:
    """Return the protocol that makes batches from acquisition values, as the settings say."""
    return ranking.protocol(
        settings.protocol,
        batch=settings.retrain_every,
        uncertain_share=settings.uncertain_share,
        pool_limit=settings.pool_limit,
    )


def chance(settings: Settings, project_id: int, number: int) -> np.random.Generator:
    """Return the random generator for the ranking by version `number`; a repeated ranking gets the same numbers."""
    return np.random.default_rng((settings.seed, project_id, number))
