"""Semantic segmentation with ultralytics' models: prediction, and quality on a validation set.

An image has one mask per class, for all objects of the class. The training is ultralytics' own, on label files with
outlines; pixels outside all outlines get a class of their own, the last one, called "background".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.datasets import reader
from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.matching import class_map
from backend.evaluation.samples import Pixels, places, summed, tasks_of
from backend.geometry import masks
from backend.model_versions import Metrics
from backend.types import BoolArray, FloatArray, IntArray, Outline, Prediction, YoloTask
from backend.yolo.detector import BATCH
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.runtime import check_finite, select_device
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

BACKGROUND = "background"  # ultralytics' name of the class of pixels outside all outlines
_LEAST = 1e-12  # lower bound of probabilities before the logarithm


class Segmenter:
    """A semantic segmentation model in memory, safe to share between threads."""

    task: YoloTask = "semantic"

    def __init__(self, model: Any, imgsz: int, device: str = "") -> None:
        """Take an ultralytics SemanticSegmentationModel, and the longest side in pixels to which images are scaled."""
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils.checks import check_imgsz

        names = tuple(model.names[index] for index in range(len(model.names)))
        self.classes: tuple[str, ...] = names[:-1] if len(names) > 1 and names[-1] == BACKGROUND else names
        self._device = select_device(device)
        self._model = model.to(self._device).eval()
        stride = int(max(model.stride))
        self._letterbox = LetterBox(check_imgsz(imgsz, stride=stride, min_dim=2), auto=True, stride=stride)
        self._lock = threading.Lock()

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Yield one Prediction per path, in order: one object per class that is the most likely one of some pixel.

        The outline of an object has all parts and holes. Its class probabilities are the mean over its pixels, and its
        shape confidence is 1 minus the mean entropy of the pixels in its box, as a share of the highest possible
        entropy. Raises MediaError naming a file that is not an image, and ModelError if the model's output is not
        finite.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            for start in range(0, len(paths), BATCH):
                for image in readers.map(self.read, paths[start : start + BATCH]):
                    pixels = self.stacked(image)
                    prediction = _prediction(image, *self.forward(pixels), len(self.classes))
                    yield replace(prediction, thumbnail=thumbnails(pixels)[0])

    def read(self, path: Path) -> Letterboxed:
        """Return an image file letterboxed to the model's size; raises MediaError for a file that is no image."""
        pixels = read_pixels(path)
        return Letterboxed(self._letterbox(image=pixels), *pixels.shape[:2])

    def stacked(self, image: Letterboxed) -> torch.Tensor:
        """Return one image as a batch (1, 3, h, w), RGB in [0, 1]."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(image.pixels[:, :, ::-1])).to(self._device)
        return pixels.permute(2, 0, 1)[None].float().div_(255)

    def forward(self, batch: torch.Tensor) -> tuple[FloatArray, FloatArray]:
        """Return the class probabilities (K, h, w) of the pixels of one image, and the features (F, rows, columns)."""
        import torch
        from torch.nn.functional import interpolate

        feature_maps: list[torch.Tensor] = []
        with self._lock, torch.inference_mode():
            hook = self._model.model[-1].register_forward_pre_hook(lambda _, inputs: feature_maps.append(inputs[0][0]))
            try:
                logits = self._model(batch)
            finally:
                hook.remove()
            logits = interpolate(logits, batch.shape[2:], mode="bilinear", align_corners=False)[0]
            probs = _probabilities(logits).cpu().numpy()
            features = feature_maps[0][0].float().cpu().numpy()
        return check_finite(probs), check_finite(features)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return logits (K, h, w) as probabilities; the single logit of a model of one class gives (2, h, w)."""
    import torch

    if len(logits) > 1:
        return logits.float().softmax(0)
    foreground = logits.float().sigmoid()
    return torch.cat([foreground, 1 - foreground])


def _prediction(image: Letterboxed, probs: FloatArray, features: FloatArray, classes: int) -> Prediction:
    """Return one object per class of the pixels of a letterboxed image.

    `probs` (K, h, w): the first `classes` of the K are the model's classes, the others are background. Points in the
    padding are moved to the border of the image, where outlines close.
    """
    classes_by_pixel = probs.argmax(axis=0)
    entropy = -(probs * np.log(np.maximum(probs, _LEAST))).sum(axis=0) / np.log(len(probs))
    present = [kind for kind in range(classes) if (classes_by_pixel == kind).any()]
    regions = [classes_by_pixel == kind for kind in present]
    outlines = tuple(_outline(image, region) for region in regions)
    boxes = np.array([_box(region) for region in regions], dtype=np.float32).reshape(-1, 4)
    means = np.array([probs[:classes, region].mean(axis=1) for region in regions], dtype=np.float32)
    means = means.reshape(-1, classes)
    sure = [1 - entropy[top:bottom, left:right].mean() for left, top, right, bottom in boxes.astype(int).tolist()]
    return Prediction(
        width=image.width,
        height=image.height,
        boxes=image.upright(boxes),
        class_probs=means,
        confidence=means[np.arange(len(present)), present],
        embedding=features.mean(axis=(1, 2)),
        box_embeddings=_embeddings(features, regions),
        outlines=outlines,
        shape_confidence=np.array(sure, dtype=np.float32),
    )


def _outline(image: Letterboxed, region: BoolArray) -> Outline:
    return tuple(image.upright_points(ring.astype(np.float32)) for ring in masks.trace(region))


def _box(region: BoolArray) -> tuple[int, int, int, int]:
    """Return the box xyxy around the pixels that are true; there must be at least one."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _embeddings(features: FloatArray, regions: Sequence[BoolArray]) -> FloatArray:
    """Return the mean features (n, F) of each region, weighted by its share of each cell."""
    rows, columns = features.shape[1:]
    embeddings = [np.zeros((0, len(features)), dtype=np.float32)]
    for region in regions:
        height, width = region.shape[0] // rows, region.shape[1] // columns
        share = region.reshape(rows, height, columns, width).mean(axis=(1, 3))
        embeddings.append((features * share).sum(axis=(1, 2))[None] / share.sum())
    return np.concatenate(embeddings).astype(np.float32)


def measure(model: Any, data_yaml: Path, imgsz: int, device: str) -> Measured:
    """Return the mean IoU on the `val` split, over the classes with a label there; classes are matched by name.

    Intersection and union are counted over the pixels of all images, in their original size; background is no class.
    The metrics hold the mean IoU where other tasks have mAP50.
    """
    data = reader.read(data_yaml, "semantic")
    segmenter = Segmenter(model, imgsz, device)
    shape = len(data.val), len(data.classes)
    overlap, union, detections = np.zeros(shape), np.zeros(shape), 0
    for row, (file, prediction) in enumerate(
        zip(data.val, segmenter.predict([file.path for file in data.val]), strict=True)
    ):
        true = class_map(file.boxes, data.classes, prediction.width, prediction.height)
        predicted = _predicted_map(prediction, segmenter.classes, data.classes)
        detections += len(prediction.boxes)
        for kind in range(len(data.classes)):
            overlap[row, kind] = ((true == kind) & (predicted == kind)).sum()
            union[row, kind] = ((true == kind) | (predicted == kind)).sum()
    both, either = overlap.sum(axis=0), union.sum(axis=0)
    labels = {box.label for file in data.val for box in file.boxes}
    quality = {name: float(both[c] / either[c]) for c, name in enumerate(data.classes) if name in labels and either[c]}
    overall = float(np.mean(list(quality.values()))) if quality else 0.0
    boxes = sum(len(file.boxes) for file in data.val)
    metrics = Metrics(overall, overall, quality, images=len(data.val), boxes=boxes, detections=detections)
    counts = [[sum(box.label == name for box in file.boxes) for name in data.classes] for file in data.val]
    names = [file.path.stem for file in data.val]
    place, size = places(names)
    sums = (summed(counts_by_image, place, size) for counts_by_image in (overlap, union, counts))
    return measured(metrics, Pixels(*sums), tasks=tasks_of(names))


def _predicted_map(prediction: Prediction, model_classes: Sequence[str], classes: Sequence[str]) -> IntArray:
    """Return the predicted class of each pixel (h, w), -1 for none and for classes that the data lack."""
    predicted = np.full((prediction.height, prediction.width), -1, dtype=np.int64)
    for row, outline in enumerate(prediction.outlines or ()):
        name = model_classes[int(prediction.class_probs[row].argmax())]
        if name in classes:
            predicted[masks.fill(outline, prediction.width, prediction.height)] = classes.index(name)
    return predicted
