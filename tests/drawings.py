"""Generated pictures with shapes of known outline, and the training of a model on them from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.geometry.coordinates import corners_of, ring_hull
from backend.labelstudio import tags
from backend.model_versions import Metrics
from backend.types import ControlTag, HyperParameters, Keypoint, LabeledBox, Prediction, YoloTask
from backend.yolo import evaluate, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.detector import load_detector
from backend.yolo.tasks import RECIPES, details

SIZE = (96, 64)  # width, height; not square, so that a mix-up of percent of the two fails
IMGSZ = 96
COLOURS = {"red": (220, 40, 40), "blue": (50, 60, 230)}
CLASSES = tuple(COLOURS)

Draw = Callable[[ImageDraw.ImageDraw, float, float, str, np.random.Generator], LabeledBox]


def control_tag(kind: str, task: YoloTask, **more: Any) -> ControlTag:
    """Return a control tag whose labels are the colours; `more` are further fields."""
    names = {name: name for name in CLASSES}
    values = {"from_name": "label", "to_name": "image", "data_key": "image", "labels": CLASSES, "class_to_label": names}
    return ControlTag(kind=kind, task=task, **values | more)


def prediction(n: int, width: int, height: int, **shapes: Any) -> Prediction:
    """Return n objects of both colours in turn, each as large as the image."""
    return Prediction(
        width=width,
        height=height,
        boxes=np.tile(np.array([0, 0, width, height], np.float32), (n, 1)),
        class_probs=np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)[np.arange(n) % 2],
        confidence=np.full(n, 0.9, np.float32),
        embedding=np.zeros(2, np.float32),
        **shapes,
    )


def learn(
    folder: Path, draw: Draw, tag: ControlTag, epochs: int
) -> tuple[Metrics, list[tuple[LabeledImage, tuple[LabeledBox, ...]]]]:
    """Train from scratch; return the metrics, and each validation picture with the labels decoded from its regions."""
    drawn = split(folder / "pictures", draw)
    data_yaml = writer.write(drawn, CLASSES, folder / "data", tag.task, details(tag))
    base = BaseWeights(f"yolo11n{RECIPES[tag.task].suffix}.yaml", pretrained=False, note="", task=tag.task)
    hyper = HyperParameters(epochs=epochs, batch=8, imgsz=IMGSZ, seed=0, device="cpu")
    trained = training.train(data_yaml, base, hyper, folder / "run", lambda _: None)
    metrics = evaluate.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    print(f"{tag.task} mAP50 {metrics.map50:.3f}, {trained.seconds:.0f} s")
    detector = load_detector(trained.weights, IMGSZ, "cpu")
    decoded = []
    for image, prediction in zip(drawn.val, detector.predict([image.path for image in drawn.val]), strict=True):
        sent = tags.encode(tag, prediction, detector.classes, 0.3, "k")
        decoded.append((image, tags.decode(tag, [region.as_json() for region in sent])))
    return metrics, decoded


def split(folder: Path, draw: Draw, train: int = 32, val: int = 8, seed: int = 0) -> Split:
    """Draw training and validation pictures with a shape in the left and one in the right half."""
    return Split(pictures(folder, draw, train, seed), pictures(folder, draw, val, seed + 1000), held_out=True)


def pictures(folder: Path, draw: Draw, count: int, seed: int) -> tuple[LabeledImage, ...]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    return tuple(_picture(folder / f"{seed + index}.png", draw, seed + index, rng) for index in range(count))


def _picture(path: Path, draw: Draw, task_id: int, rng: np.random.Generator) -> LabeledImage:
    width, height = SIZE
    noise = rng.normal(120, 10, (height, width, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise)
    pen = ImageDraw.Draw(picture)
    labels = []
    for x, colour in zip((width / 4, 3 * width / 4), rng.permutation(CLASSES), strict=True):
        dx, dy = rng.uniform(-3, 3), rng.uniform(-8, 8)
        labels.append(draw(pen, x + dx, height / 2 + dy, str(colour), rng))
    picture.save(path)
    return LabeledImage(task_id, path, tuple(labels), random=True)


def bar(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str, rng: np.random.Generator) -> LabeledBox:
    """Draw a rectangle at any angle; its outline has the four corners."""
    rotated = [x, y, rng.uniform(26, 36), rng.uniform(10, 14), rng.uniform(0, math.pi)]
    corners = [(float(a), float(b)) for a, b in corners_of(rotated)[0]]
    pen.polygon(corners, fill=COLOURS[colour])
    ring = tuple((a / SIZE[0], b / SIZE[1]) for a, b in corners)
    return LabeledBox(colour, ring_hull(ring), outline=(ring,))


def donut(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str, rng: np.random.Generator) -> LabeledBox:
    """Draw an ellipse with a hole; its outline has two rings."""
    radii = rng.uniform(12, 17, 2)
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    outer, inner = circle * radii + (x, y), circle * 5 + (x, y)
    pen.polygon([(float(a), float(b)) for a, b in outer], fill=COLOURS[colour])
    pen.polygon([(float(a), float(b)) for a, b in inner], fill=(120, 120, 120))
    rings = tuple(tuple((float(a), float(b)) for a, b in ring / SIZE) for ring in (outer, inner))
    return LabeledBox(colour, ring_hull(rings[0]), outline=rings)


def arrow(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str, rng: np.random.Generator) -> LabeledBox:
    """Draw a bar with a bright head and a dark tail, which are its keypoints."""
    box = bar(pen, x, y, colour, rng)
    corners = np.array(box.outline[0]) * SIZE
    ends = [corners[[0, 3]].mean(axis=0), corners[[1, 2]].mean(axis=0)]
    for (across, down), shade in zip(ends, ((255, 255, 255), (0, 0, 0)), strict=True):
        pen.ellipse((across - 4, down - 4, across + 4, down + 4), fill=shade)
    points: list[Keypoint] = [(float(a) / SIZE[0], float(b) / SIZE[1], 2) for a, b in ends]
    return LabeledBox(colour, box.xywh, keypoints=tuple(points))
