"""Segment Anything: the mask of whatever an annotator points at, with weights that the admin put into MODEL_DIR.

The weights are MobileSAM or SAM 2 as ultralytics names them. Their files hold numbers only, and nothing else is read.
"""

from __future__ import annotations

import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import ModelError
from backend.geometry.pointing import Pointing
from backend.types import Prediction
from backend.yolo.candidates import LastImages
from backend.yolo.decoding import outline_of, smallest_rectangle
from backend.yolo.letterbox import read_pixels
from backend.yolo.runtime import check_finite, quiet_ultralytics, select_device

NAMES = re.compile(r"mobile_sam\.pt|sam2(\.1)?_[tsbl]\.pt")
IMGSZ = 1024  # pixels of a side, for which these models were trained
MOST = 4  # images whose embeddings stay in memory, up to 17 MB each


class Sam:
    """A SAM model in memory, safe to share between threads."""

    def __init__(self, weights: Path, device: str = "", imgsz: int = IMGSZ) -> None:
        """Load weights; raises ModelError for a missing or damaged file, and for one that holds more than numbers."""
        quiet_ultralytics()
        from ultralytics.models.sam.predict import Predictor, SAM2Predictor

        kind = SAM2Predictor if weights.name.startswith("sam2") else Predictor
        chosen = {"imgsz": imgsz, "device": str(select_device(device)), "save": False, "verbose": False}
        self._predictor = kind(overrides={**chosen, "model": weights.name})
        self._predictor.setup_model(model=_built(weights), verbose=False)
        self._embeddings: LastImages[tuple[Any, tuple[int, int]]] = LastImages(MOST)
        self._lock = threading.Lock()  # the predictor holds the image that it sees

    def object_at(self, image: Path, pointing: Pointing) -> Prediction:
        """Return the one object at which an annotator points, with its mask; no box where the mask is empty.

        The image's embedding stays in memory. Raises MediaError for a file that is no image.
        """
        import torch

        state = image.stat()
        with self._lock, torch.inference_mode():
            features, size = self._embeddings.get((image, state.st_ino, state.st_size), partial(self._embed, image))
            masks, rows = self._predictor.inference_features(features, size, **_prompts(pointing, size))
        best = int(rows[:, 4].argmax())
        score = check_finite(rows[best, 4].cpu().numpy())
        return _prediction(masks[best].cpu().numpy().astype(np.uint8), float(score))

    def _embed(self, image: Path) -> tuple[Any, tuple[int, int]]:
        """Return what the model sees in an image, and the image's height and width."""
        pixels = read_pixels(image)
        self._predictor.set_image(pixels)
        return self._predictor.features, (pixels.shape[0], pixels.shape[1])


def _built(weights: Path) -> Any:
    """Return the model in a weights file."""
    import torch
    from ultralytics.models.sam import build

    build.torch_load = partial(torch.load, map_location="cpu", weights_only=True)  # ultralytics' own runs any code
    if not NAMES.fullmatch(weights.name) or not weights.is_file():  # ultralytics would try to download it
        raise ModelError("no such SAM weights", where=str(weights), fix="put mobile_sam.pt or sam2.1_t.pt there")
    try:
        return build.build_sam(str(weights))
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"cannot read the SAM weights: {reason}", where=str(weights), fix="replace the file"
        ) from error


def _prompts(pointing: Pointing, size: tuple[int, int]) -> dict[str, Any]:
    """Return clicks or a rectangle as ultralytics' SAM takes them, in pixels; `size` is the image's height and width.

    A single click may mean a part or the whole, so that the model proposes several masks for it.
    """
    height, width = size
    if pointing.rectangle is not None:
        return {"bboxes": np.array([pointing.rectangle]) * (width, height, width, height)}
    points = [[(click.x * width, click.y * height) for click in pointing.clicks]]
    labels = [[int(click.on_object) for click in pointing.clicks]]
    return {"points": np.array(points), "labels": np.array(labels), "multimask_output": len(pointing.clicks) == 1}


def _prediction(mask: np.ndarray[Any, np.dtype[np.uint8]], score: float) -> Prediction:
    """Return a mask (h, w) as the only object of an image."""
    height, width = mask.shape
    outline = outline_of(mask)
    count = int(bool(outline))
    points = np.concatenate([np.zeros((0, 2), np.float32), *outline])
    box = [*points.min(axis=0), *points.max(axis=0)] if count else []
    confidence = np.full(count, min(max(score, 0.0), 1.0), dtype=np.float32)
    return Prediction(
        width=width,
        height=height,
        boxes=np.array(box, dtype=np.float32).reshape(-1, 4),
        class_probs=confidence[:, None],
        confidence=confidence,
        rotated=smallest_rectangle(points)[None] if count else np.zeros((0, 5), np.float32),
        outlines=(outline,) if count else (),
    )
