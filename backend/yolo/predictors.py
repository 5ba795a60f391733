"""Models of any task: loaded from weights files, and held in memory while they are used.

These are the version that serves, the next version while it scores the pool, and the members of a committee.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TypeAlias

from backend.errors import ModelError
from backend.yolo.candidates import Candidates, LastImages
from backend.yolo.classifier import Classifier
from backend.yolo.detector import Detector, load_detector
from backend.yolo.runtime import load_model, task_of
from backend.yolo.sam import Sam
from backend.yolo.semantic_segmentation import Segmenter

Predictor: TypeAlias = "Detector | Classifier | Segmenter"
MOST = 8


def load_predictor(weights: Path, imgsz: int, device: str = "", threads: int = 0) -> Predictor:
    """Return the model in a weights file, of any task; `threads` and errors as in `load_detector`.

    A Classifier and a Segmenter compute with as many threads as their process, whatever `threads` says.
    """
    model = load_model(weights)
    match task_of(model):
        case "classify":
            return Classifier(model, imgsz, device)
        case "semantic":
            return Segmenter(model, imgsz, device)
    return load_detector(weights, imgsz, device, threads)


class Predictors:
    """Loads models and keeps the MOST that were used last; safe to share between threads."""

    def __init__(self) -> None:
        self._load = functools.lru_cache(maxsize=MOST)(load_predictor)
        self._load_sam = functools.lru_cache(maxsize=1)(Sam)
        self._candidates: LastImages[Candidates] = LastImages()

    def get(self, weights: Path, imgsz: int, device: str) -> Predictor:
        """Return the model in a weights file; raises as `load_predictor`."""
        return self._load(weights, imgsz, device)

    def candidates(self, weights: Path, imgsz: int, device: str, image: Path) -> Candidates:
        """Return all boxes that a model sees in an image before NMS; they stay in memory for the next question.

        Raises ModelError for a model that sees no objects, and as `load_predictor` and `Detector.candidates`.
        """
        detector = self.get(weights, imgsz, device)
        if not isinstance(detector, Detector):
            raise ModelError(
                "the model says what an image shows, not where", where=str(weights), fix="use a detection model"
            )
        state = image.stat()  # without the time of the last change: the media cache notes there when a file was used
        key = (weights, imgsz, device, image, state.st_ino, state.st_size)
        return self._candidates.get(key, lambda: detector.candidates(image))

    def sam(self, weights: Path, device: str) -> Sam:
        """Return the SAM model in a weights file; raises as `Sam`."""
        return self._load_sam(weights, device)

    def __len__(self) -> int:
        return self._load.cache_info().currsize

    def close(self) -> None:
        """Forget all models."""
        self._load.cache_clear()
        self._load_sam.cache_clear()
        self._candidates.clear()
