"""Pictures of a red and a blue square, and a model trained on them, for tests of training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.types import HyperParameters, LabeledBox
from backend.yolo import training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.training import EpochReport, Trained
from tests.support import small_architecture

IMGSZ = 64
CLASSES = ("red", "blue")
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SCRATCH = BaseWeights(str(small_architecture()), pretrained=False, note="")


@dataclass(frozen=True)
class Learned:
    """A training from scratch, with its data and its reports."""

    split: Split
    data_yaml: Path
    trained: Trained
    reports: tuple[EpochReport, ...]


def learn(folder: Path) -> Learned:
    pictures = folder / "pictures"
    pictures.mkdir()
    split = Split(squares(pictures, 12, seed=1), squares(pictures, 6, seed=2), held_out=True)
    data_yaml = writer.write(split, CLASSES, folder / "data")
    reports: list[EpochReport] = []
    trained = training.train(data_yaml, SCRATCH, hyper(epochs=40), folder / "run", reports.append)
    return Learned(split, data_yaml, trained, tuple(reports))


def hyper(epochs: int = 1, batch: int = 4, seed: int = 0) -> HyperParameters:
    return HyperParameters(epochs=epochs, batch=batch, imgsz=IMGSZ, seed=seed, device="cpu")


def squares(folder: Path, count: int, seed: int) -> tuple[LabeledImage, ...]:
    """Draw one red and one blue square on grey noise; which of them is on the left alternates."""
    rng = np.random.default_rng(seed)
    images = []
    for task_id in range(seed * 100, seed * 100 + count):
        pixels = rng.normal(120, 10, (IMGSZ, IMGSZ, 3))
        boxes = []
        for x, label in zip((2, 34), rng.permutation(CLASSES), strict=True):
            side, top = int(rng.integers(16, 28)), int(rng.integers(2, 34))
            pixels[top : top + side, x : x + side] = COLOURS[label]
            xywh = ((x + side / 2) / IMGSZ, (top + side / 2) / IMGSZ, side / IMGSZ, side / IMGSZ)
            boxes.append(LabeledBox(str(label), xywh))
        path = folder / f"{task_id}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        images.append(LabeledImage(task_id, path, tuple(boxes), random=True))
    return tuple(images)
