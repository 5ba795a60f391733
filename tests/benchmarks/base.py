"""The base weights of the experiments, because none can be downloaded: a YOLO11n trained to detect letters.

`python -m tests.benchmarks.base FOLDER` writes FOLDER/letters.pt. Fine-tuning from it resembles what users do. The
letters have the style of the scenes, but no digit is among them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backend.datasets import synthetic
from backend.datasets.synthetic import Scene
from backend.datasets.writer import LabeledImage, split, write
from backend.types import FloatArray, HyperParameters, LabeledBox
from backend.yolo import training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.runtime import fix_threads

NAME = "letters.pt"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SCENES, SIZE, STEPS, BATCH = 800, 128, 1200, 16
_PRINTED, _SCAN = 32, 8  # pixels of a side: as printed, and as scikit-learn's digits are


def letter(character: str) -> FloatArray:
    """Return the scans (1, 8, 8) of a printed letter, ink in [0, 1]."""
    picture = Image.new("L", (_PRINTED, _PRINTED))
    ImageDraw.Draw(picture).text((_PRINTED / 2,) * 2, character, 255, ImageFont.load_default(_PRINTED), anchor="mm")
    small = picture.resize((_SCAN, _SCAN), Image.Resampling.BOX)
    ink = np.asarray(small, dtype=np.float32)
    scan: FloatArray = ink[None] / ink.max()
    return scan


def train(folder: Path, *, size: int = SIZE, steps: int = STEPS) -> Path:
    """Train on generated letters with one thread, and return the weights in `folder`."""
    fix_threads(1)
    rng = np.random.default_rng(0)
    scans = [letter(character) for character in LETTERS]
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        work = Path(name)
        images = []
        for index in range(SCENES):
            scene = synthetic.compose(scans, lambda: int(rng.integers(len(LETTERS))), size, rng)
            path = work / f"{index:05d}.jpg"
            Image.fromarray(scene.pixels).save(path, quality=90)
            images.append(LabeledImage(index + 1, path, _labels(scene, size), random=True))
        data = write(split(images, val_share=0.05, project_id=1), tuple(LETTERS), work / "data")
        hyper = HyperParameters(epochs=steps * BATCH // SCENES, batch=BATCH, imgsz=size, seed=0, device="")
        done = training.train(data, BaseWeights("yolo11n.yaml", pretrained=False, note=""), hyper, work / "run", print)
        return Path(shutil.move(done.weights, folder / NAME))


def _labels(scene: Scene, size: int) -> tuple[LabeledBox, ...]:
    return tuple(
        LabeledBox(LETTERS[label], ((x1 + x2) / 2 / size, (y1 + y2) / 2 / size, (x2 - x1) / size, (y2 - y1) / size))
        for label, (x1, y1, x2, y2) in zip(scene.classes, scene.boxes, strict=True)
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]))
