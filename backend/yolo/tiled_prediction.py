"""Detection in tiles: a large image is predicted part by part, so that small objects are not scaled away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from backend.geometry import tiles
from backend.types import IntArray, Prediction
from backend.yolo.detector import KEEP_CONFIDENCE, Detector
from backend.yolo.letterbox import read_pixels
from backend.yolo.predictors import Predictor

MOST = 10_000  # boxes of an image that are merged, the most confident ones


def predict(
    predictor: Predictor, paths: Sequence[Path], side: int, lowest: float = KEEP_CONFIDENCE
) -> Iterator[Prediction]:
    """Yield one Prediction per path, in order; a detector sees images larger than `side` pixels in tiles.

    0 means no tiles. One large image is in memory at a time, with three bytes per pixel. `lowest` is the lowest
    confidence of a detector's boxes. Raises as `Detector.predict`.
    """
    if not (side and isinstance(predictor, Detector) and predictor.task == "detect"):
        yield from predictor.predict(paths)
        return
    for is_large, group in groupby(paths, key=lambda path: _is_larger(path, side)):
        if is_large:
            yield from (_in_tiles(predictor, path, side, lowest) for path in group)
        elif lowest == KEEP_CONFIDENCE:
            yield from predictor.predict(list(group))
        else:
            yield from predictor.predict_frames(map(read_pixels, group), lowest=lowest)


def _is_larger(path: Path, side: int) -> bool:
    """Return whether an image is larger than a tile, by its header; False for a file that is no image."""
    try:
        with Image.open(path) as image:
            return max(image.size) > side
    except OSError:
        return False


def _in_tiles(detector: Detector, path: Path, side: int, lowest: float) -> Prediction:
    """Return the prediction of one image: the objects of all tiles, merged.

    Tiles may cut objects that are larger than what two of them have in common. The whole image, scaled down, shows
    those, and gives the embedding and the thumbnail.
    """
    pixels = read_pixels(path)
    height, width = pixels.shape[:2]
    places = tiles.grid(width, height, side)
    (whole,) = detector.predict_frames([pixels], lowest=lowest)
    views = (pixels[top:bottom, left:right] for left, top, right, bottom in places.tolist())
    parts = [
        replace(part, boxes=part.boxes + np.tile(place[:2], 2).astype(np.float32))
        for place, part in zip(places, detector.predict_frames(views, lowest=lowest), strict=True)
    ]
    large = np.flatnonzero((whole.boxes[:, 2:] - whole.boxes[:, :2]).max(axis=1, initial=0) > tiles.common(side))
    cut = [tiles.are_cut(part.boxes, place, width, height) for place, part in zip(places, parts, strict=True)]
    objects = joined([_rows(whole, large, large), *parts])
    numbers = np.repeat(np.arange(-1, len(parts)), [len(large), *(len(part.boxes) for part in parts)])
    is_cut = np.concatenate([np.zeros(len(large), dtype=np.bool_), *cut])
    top = np.argsort(-objects.confidence, kind="stable")[:MOST]
    classes = objects.class_probs.argmax(axis=1) if len(top) else top
    columns = objects.boxes, objects.confidence, classes, numbers, is_cut
    rows, best = tiles.merged(*(column[top] for column in columns))
    merged = _rows(objects, top[rows], top[best])
    return replace(merged, width=width, height=height, embedding=whole.embedding, thumbnail=whole.thumbnail)


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """Return the boxes of all predictions of one model, whose coordinates are of one image, as one Prediction."""
    variances = [part.box_variance for part in predictions if part.box_variance is not None]
    embeddings = [part.box_embeddings for part in predictions if part.box_embeddings is not None]
    return replace(
        predictions[0],
        boxes=np.concatenate([part.boxes for part in predictions]),
        class_probs=np.concatenate([part.class_probs for part in predictions]),
        confidence=np.concatenate([part.confidence for part in predictions]),
        box_variance=np.concatenate(variances) if len(variances) == len(predictions) else None,
        box_embeddings=np.concatenate(embeddings) if len(embeddings) == len(predictions) else None,
    )


def _rows(prediction: Prediction, boxes: IntArray, scores: IntArray) -> Prediction:
    """Return the boxes in rows `boxes` (k,), each with the class scores in rows `scores` (k,)."""
    variance, embeddings = prediction.box_variance, prediction.box_embeddings
    return replace(
        prediction,
        boxes=prediction.boxes[boxes],
        class_probs=prediction.class_probs[scores],
        confidence=prediction.confidence[scores],
        box_variance=None if variance is None else variance[boxes],
        box_embeddings=None if embeddings is None else embeddings[boxes],
    )
