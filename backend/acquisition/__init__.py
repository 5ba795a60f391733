"""Acquisition functions: which image should be labeled next. Pure numpy, `f(pool, rng) -> (n,)`, higher = sooner.

A new strategy is one decorated function in a sibling module; a new module is one more name in the import below.
"""

from __future__ import annotations

from backend.acquisition import (
    auto,
    baseline,
    committee,
    density,
    diversity,
    learning_loss,
    localization,
    ppal,
    shape,
    uncertainty,
    video,
)
from backend.acquisition.registry import Acquisition, acquisition, get, names

__all__ = [
    "Acquisition",
    "acquisition",
    "auto",
    "baseline",
    "committee",
    "density",
    "diversity",
    "get",
    "learning_loss",
    "localization",
    "names",
    "ppal",
    "shape",
    "uncertainty",
    "video",
]
