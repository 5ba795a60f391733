"""Acquisition functions: which image should be labeled next. Pure numpy, `f(pool, rng) -> (n,)`, higher = sooner.

A new strategy is one decorated function in a sibling module; a new module is one more name in the import below.
"""

from __future__ import annotations

from backend.acquisition import (
    auto,
    committee,
    density,
    diversity,
    learning_loss,
    localization,
    mask_uncertainty,
    ppal,
    random,
    uncertainty,
    video_uncertainty,
)
from backend.acquisition.registry import Acquisition, acquisition, get, names

__all__ = [
    "Acquisition",
    "acquisition",
    "auto",
    "committee",
    "density",
    "diversity",
    "get",
    "learning_loss",
    "localization",
    "mask_uncertainty",
    "names",
    "ppal",
    "random",
    "uncertainty",
    "video_uncertainty",
]
