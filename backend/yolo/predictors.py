"""The models that are held in memory: a version that serves, its successor while that is scored, or a committee."""

from __future__ import annotations

import functools
from pathlib import Path

from backend.yolo.classification import Predictor, load_predictor

MOST = 8


class Predictors:
    """Loads models and keeps those that were asked for last, MOST of them; safe to share between threads."""

    def __init__(self) -> None:
        self._load = functools.lru_cache(maxsize=MOST)(load_predictor)

    def get(self, weights: Path, imgsz: int, device: str) -> Predictor:
        """Return what predicts with a weights file; raises as `load_predictor`."""
        return self._load(weights, imgsz, device)

    def __len__(self) -> int:
        return self._load.cache_info().currsize

    def close(self) -> None:
        """Forget all models."""
        self._load.cache_clear()
