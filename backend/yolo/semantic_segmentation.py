"""Masks of classes, one for all of a class in an image: predicted and judged with ultralytics' semantic models.

The training is ultralytics' own, on the label files of outlines: what none of them covers is a class of its own, the
last one, called "background".
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
from backend.evaluation.samples import Pixels, places, summed
from backend.geometry import masks
from backend.model_versions import Metrics
from backend.types import BoolArray, FloatArray, IntArray, Outline, Prediction, YoloTask
from backend.yolo.detector import BATCH
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.runtime import check_finite, select_device
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

BACKGROUND = "background"  # as ultralytics calls what no outline covers
_LEAST = 1e-12  # of a probability whose logarithm is taken


class Segmenter:
    """A model of the classes of pixels in memory, safe to share between threads."""

    task: YoloTask = "semantic"

    def __init__(self, model: Any, imgsz: int, device: str = "") -> None:
        """Take an ultralytics SemanticSegmentationModel and the longest side, in pixels, images are scaled to."""
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
        """Give one Prediction per path, in order: one object for each class that some pixel most likely has.

        Its outline has all parts and holes. Its class probabilities are the mean over its pixels, and its shape
        confidence is 1 minus the mean entropy of the pixels in its box, as a share of the highest there is.
        Raises MediaError naming a file that is not an image, ModelError when the model's output is not finite.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            for start in range(0, len(paths), BATCH):
                for image in readers.map(self._read, paths[start : start + BATCH]):
                    pixels = self._stacked(image)
                    found = _prediction(image, *self._forward(pixels), len(self.classes))
                    yield replace(found, thumbnail=thumbnails(pixels)[0])

    def _read(self, path: Path) -> Letterboxed:
        pixels = read_pixels(path)
        return Letterboxed(self._letterbox(image=pixels), *pixels.shape[:2])

    def _stacked(self, image: Letterboxed) -> torch.Tensor:
        """Return one image as a batch (1, 3, h, w), RGB in [0, 1]."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(image.pixels[:, :, ::-1])).to(self._device)
        return pixels.permute(2, 0, 1)[None].float().div_(255)

    def _forward(self, batch: torch.Tensor) -> tuple[FloatArray, FloatArray]:
        """Return the probabilities of each pixel of the one image (K, h, w), and the features (F, h, w)."""
        import torch
        from torch.nn.functional import interpolate

        seen: list[torch.Tensor] = []
        with self._lock, torch.inference_mode():
            hook = self._model.model[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
            try:
                logits = self._model(batch)
            finally:
                hook.remove()
            logits = interpolate(logits, batch.shape[2:], mode="bilinear", align_corners=False)[0]
            probs = _probabilities(logits).cpu().numpy()
            features = seen[0][0].float().cpu().numpy()
        return check_finite(probs), check_finite(features)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return logits (K, h, w) as probabilities; a model of one class has one logit, of that class against nothing."""
    import torch

    if len(logits) > 1:
        return logits.float().softmax(0)
    one = logits.float().sigmoid()
    return torch.cat([one, 1 - one])


def _prediction(image: Letterboxed, probs: FloatArray, features: FloatArray, classes: int) -> Prediction:
    """Return what the pixels of a letterboxed image are, as objects; probabilities behind the classes' are of nothing.

    What lies in the padding is moved to the image's border, where an outline closes.
    """
    top = probs.argmax(axis=0)
    unsure = -(probs * np.log(np.maximum(probs, _LEAST))).sum(axis=0) / np.log(len(probs))
    found = [kind for kind in range(classes) if (top == kind).any()]
    regions = [top == kind for kind in found]
    outlines = tuple(_outline(image, region) for region in regions)
    boxes = np.array([_box(region) for region in regions], dtype=np.float32).reshape(-1, 4)
    means = np.array([probs[:classes, region].mean(axis=1) for region in regions], dtype=np.float32)
    means = means.reshape(-1, classes)
    sure = [1 - unsure[top_:bottom, left:right].mean() for left, top_, right, bottom in boxes.astype(int).tolist()]
    return Prediction(
        width=image.width,
        height=image.height,
        boxes=image.upright(boxes),
        class_probs=means,
        confidence=means[np.arange(len(found)), found],
        embedding=features.mean(axis=(1, 2)),
        box_embeddings=_embeddings(features, regions),
        outlines=outlines,
        shape_confidence=np.array(sure, dtype=np.float32),
    )


def _outline(image: Letterboxed, region: BoolArray) -> Outline:
    return tuple(image.upright_points(ring.astype(np.float32)) for ring in masks.trace(region))


def _box(region: BoolArray) -> tuple[int, int, int, int]:
    """Return the box xyxy around the pixels that are true, one at least."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _embeddings(features: FloatArray, regions: Sequence[BoolArray]) -> FloatArray:
    """Return the mean features (n, F) of the cells in which each region has pixels."""
    rows, columns = features.shape[1:]
    found = [np.zeros((0, len(features)), dtype=np.float32)]
    for region in regions:
        height, width = region.shape[0] // rows, region.shape[1] // columns
        share = region.reshape(rows, height, columns, width).mean(axis=(1, 3))
        found.append((features * share).sum(axis=(1, 2))[None] / share.sum())
    return np.concatenate(found).astype(np.float32)


def measure(model: Any, data_yaml: Path, imgsz: int, device: str) -> Measured:
    """Return the mean IoU over the classes that have a label on the `val` split, classes matched by name.

    Intersection and union are counted over all pixels of all images, in their own size; background is no class. It
    stands where other tasks have mAP50.
    """
    data = reader.read(data_yaml, "semantic")
    segmenter = Segmenter(model, imgsz, device)
    shape = len(data.val), len(data.classes)
    overlap, union, detections = np.zeros(shape), np.zeros(shape), 0
    for row, (file, found) in enumerate(
        zip(data.val, segmenter.predict([file.path for file in data.val]), strict=True)
    ):
        true = class_map(file.boxes, data.classes, found.width, found.height)
        seen = _seen_map(found, segmenter.classes, data.classes)
        detections += len(found.boxes)
        for kind in range(len(data.classes)):
            overlap[row, kind] = ((true == kind) & (seen == kind)).sum()
            union[row, kind] = ((true == kind) | (seen == kind)).sum()
    both, either = overlap.sum(axis=0), union.sum(axis=0)
    labels = {box.label for file in data.val for box in file.boxes}
    quality = {name: float(both[c] / either[c]) for c, name in enumerate(data.classes) if name in labels and either[c]}
    overall = float(np.mean(list(quality.values()))) if quality else 0.0
    boxes = sum(len(file.boxes) for file in data.val)
    metrics = Metrics(overall, overall, quality, images=len(data.val), boxes=boxes, detections=detections)
    counts = [[sum(box.label == name for box in file.boxes) for name in data.classes] for file in data.val]
    place, size = places([file.path.stem for file in data.val])
    sums = (summed(each, place, size) for each in (overlap, union, counts))
    return measured(metrics, Pixels(*sums))


def _seen_map(found: Prediction, theirs: Sequence[str], classes: Sequence[str]) -> IntArray:
    """Return the class of each pixel that a model sees (h, w), -1 for none and for classes that the data lacks."""
    seen = np.full((found.height, found.width), -1, dtype=np.int64)
    for row, outline in enumerate(found.outlines or ()):
        name = theirs[int(found.class_probs[row].argmax())]
        if name in classes:
            seen[masks.fill(outline, found.width, found.height)] = classes.index(name)
    return seen
