"""Classes of the boxes in an image: a classifier sees a crop around each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.geometry import crops
from backend.types import FloatArray, Prediction
from backend.yolo.classifier import Classifier
from backend.yolo.letterbox import read_pixels


def predict(classifier: Classifier, path: Path, boxes: FloatArray) -> Prediction:
    """Return the given boxes (n, 4) xyxy in pixels, with the classifier's probabilities of all classes.

    There is no embedding, because the crops say nothing about the whole image. Raises MediaError for a damaged file.
    """
    pixels = read_pixels(path)
    height, width = pixels.shape[:2]
    predictions = classifier.predict_frames(
        pixels[top:bottom, left:right] for left, top, right, bottom in crops.around(boxes, width, height).tolist()
    )
    probs = [prediction.class_probs[0] for prediction in predictions]
    table = np.stack(probs) if probs else np.zeros((0, len(classifier.classes)), np.float32)
    return Prediction(
        width=width,
        height=height,
        boxes=boxes.astype(np.float32),
        class_probs=table,
        confidence=table.max(axis=1, initial=0.0),
    )
