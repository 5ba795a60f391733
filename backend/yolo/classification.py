"""Whole images: predicted, learned and judged with ultralytics' classifiers.

A data set is laid out as for the other tasks, with one class number a line in the label files, so that an image may
have several classes and names may hold any character; ultralytics' own layout, a folder for each class, allows neither.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

from backend.evaluation.bootstrap import (
    Answers,
    Measured,
    Rankings,
    Sample,
    average_precision,
    measured,
    places,
    summed,
)
from backend.model_versions import Metrics
from backend.types import BoolArray, ByteArray, FloatArray, Prediction, YoloTask
from backend.yolo.detector import BATCH, Detector, load_detector
from backend.yolo.letterbox import read_pixels
from backend.yolo.runtime import check_finite, load_model, select_device, task_of
from backend.yolo.semantic_segmentation import Segmenter
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

_LEAST_SEEN = 0.9  # of the image in training, where cutting more would remove one of its classes
Predictor: TypeAlias = "Detector | Classifier | Segmenter"
TEMPORAL = "temporal"  # the attribute of a model that has an LSTM over its frames' embeddings beside it
MULTIPLE = "multiple"  # in a data.yaml and in a model's: an image may have several classes at once


def load_predictor(weights: Path, imgsz: int, device: str = "", threads: int = 0) -> Predictor:
    """Return what predicts with a weights file, whatever its task; `threads` and what it raises as `load_detector`.

    A Classifier and a Segmenter compute with as many threads as their process.
    """
    model = load_model(weights)
    match task_of(model):
        case "classify":
            return Classifier(model, imgsz, device)
        case "semantic":
            return Segmenter(model, imgsz, device)
    return load_detector(weights, imgsz, device, threads)


class Classifier:
    """A model of whole images in memory, safe to share between threads."""

    task: YoloTask = "classify"
    strides: tuple[int, ...] = (32,)  # sides that are multiples of it lose nothing at the model's borders

    def __init__(self, model: Any, imgsz: int, device: str = "") -> None:
        """Take an ultralytics ClassificationModel and the side, in pixels, of the square that images are scaled to."""
        from torchvision import transforms

        self.classes: tuple[str, ...] = tuple(model.names[index] for index in range(len(model.names)))
        self.multiple = bool(model.yaml.get(MULTIPLE, False))
        self.temporal = getattr(model, TEMPORAL, None)
        self._device = select_device(device)
        self._model = model.to(self._device).eval()
        # ultralytics cuts out the middle, but what decides may lie at the border.
        self._transform = transforms.Compose([transforms.Resize((imgsz, imgsz)), transforms.ToTensor()])
        self._lock = threading.Lock()

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Give one Prediction per path, in order: one box, the image, with the probabilities of all classes.

        Raises MediaError naming a file that is not an image, ModelError when the model's output is not finite.
        """
        for batch, sizes in self.batches(paths):
            yield from self._predictions(batch, sizes)

    def watch(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Prediction]:
        """Give one Prediction per frame of a video (h, w, 3) BGR, in order; BATCH of them are held at a time."""
        left = iter(frames)
        while seen := [self._scaled(pixels) for pixels in islice(left, BATCH)]:
            yield from self._predictions(*self._stacked(seen))

    def batches(self, paths: Sequence[Path]) -> Iterator[tuple[torch.Tensor, list[tuple[int, int]]]]:
        """Yield images as batches (B, 3, side, side), and the width and height of each; raises as `predict` does."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            for start in range(0, len(paths), BATCH):
                yield self._stacked(list(readers.map(self._read, paths[start : start + BATCH])))

    def _stacked(self, read: Sequence[tuple[Any, tuple[int, int]]]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        import torch

        return torch.stack([pixels for pixels, _ in read]).to(self._device), [size for _, size in read]

    def _predictions(self, batch: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        found = (values.float().cpu().numpy() for values in self.ask(batch))
        probs, embeddings = (check_finite(values) for values in found)
        for size, *each in zip(sizes, probs, embeddings, thumbnails(batch), strict=True):
            yield _prediction(size, *each)

    def _read(self, path: Path) -> tuple[Any, tuple[int, int]]:
        return self._scaled(read_pixels(path))

    def _scaled(self, pixels: npt.NDArray[np.uint8]) -> tuple[Any, tuple[int, int]]:
        from PIL import Image

        height, width = pixels.shape[:2]
        return self._transform(Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))), (width, height)

    def ask(
        self, batch: torch.Tensor, perturb: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities (B, C) and what the last layer sees (B, D); `perturb` changes what it gets."""
        import torch

        seen: list[torch.Tensor] = []

        def look(_: Any, inputs: Any) -> Any:
            seen.append(inputs[0])
            return inputs if perturb is None else (perturb(inputs[0]),)

        with self._lock, torch.inference_mode():
            hook = self._model.model[-1].linear.register_forward_pre_hook(look)
            try:
                probs, logits = self._model(batch)
            finally:
                hook.remove()
            return logits.sigmoid() if self.multiple else probs, seen[0]


def _prediction(size: tuple[int, int], probs: FloatArray, embedding: FloatArray, thumbnail: ByteArray) -> Prediction:
    return Prediction(
        width=size[0],
        height=size[1],
        boxes=np.array([[0, 0, *size]], dtype=np.float32),
        class_probs=probs[None],
        confidence=probs.max(keepdims=True),
        embedding=embedding,
        box_embeddings=embedding[None],
        thumbnail=thumbnail,
    )


def read_part(data_yaml: Path, part: str) -> tuple[list[Path], list[tuple[int, ...]]]:
    """Return the images of a split, "train" or "val", and the class numbers of each."""
    data = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    folder = Path(data["path"]) / data[part]
    images = sorted(folder.iterdir())
    labels = folder.parent.parent / "labels" / folder.name
    return images, [tuple(map(int, (labels / f"{path.stem}.txt").read_text().split())) for path in images]


def measure(model: Any, data_yaml: Path, imgsz: int, device: str) -> Measured:
    """Return the quality of a classifier on the `val` split, classes matched by name; it tells what `quality` does."""
    data = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    images, labels = read_part(data_yaml, "val")
    classifier = Classifier(model, imgsz, device)
    found = list(classifier.predict(images))
    probs = by_name(np.concatenate([one.class_probs for one in found]), classifier.classes, data["names"])
    true = _multi_hot(labels, len(data["names"]))
    metrics = quality(probs, true, data["names"], multiple=classifier.multiple)
    return measured(metrics, sample(probs, true, [path.stem for path in images], multiple=classifier.multiple))


def sample(probs: FloatArray, true: BoolArray, names: Sequence[str], *, multiple: bool) -> Sample:
    """Return what `quality` is computed from, by image; `names` (n,) are those of a data set."""
    place, size = places(names)
    if multiple:
        return Rankings(place, probs, true, size)
    known = true.any(axis=1)
    sums = summed(np.stack([_right(probs, true) & known, known], axis=1), place, size).astype(np.int64)
    return Answers(right=sums[:, 0], known=sums[:, 1])


def _right(probs: FloatArray, true: BoolArray) -> BoolArray:
    """Return whether the most likely class of each image is one of its own (n,)."""
    right: BoolArray = true[np.arange(len(true)), probs.argmax(axis=1)] & (probs.max(axis=1) > 0)
    return right


def quality(probs: FloatArray, true: BoolArray, names: Sequence[str], *, multiple: bool) -> Metrics:
    """Return how well probabilities (n, C) tell the classes of n images (n, C).

    Of a model that gives one class the share of images whose most likely class is right, and for each class the share
    of its images; of one that gives several the average precision. It stands where other tasks have mAP50.
    """
    known = true.any(axis=1)
    if multiple:
        once = np.ones((1, len(true)), np.int64)
        each = {
            c: float(average_precision(probs[:, c], true[:, c], once)[0])
            for c in np.flatnonzero(true.any(axis=0)).tolist()
        }
        overall = float(np.mean(list(each.values()))) if each else 0.0
    else:
        right = _right(probs, true)
        each = {c: float(right[true[:, c]].mean()) for c in np.flatnonzero(true.any(axis=0)).tolist()}
        overall = float(right[known].mean()) if known.any() else 0.0
    return Metrics(
        map50=overall,
        map50_95=overall,
        class_ap50={names[c]: value for c, value in each.items()},
        images=len(true),
        boxes=int(true.sum()),
        detections=int((probs.max(axis=1) > 0).sum()),
    )


def by_name(probs: FloatArray, classes: Sequence[str], names: Sequence[str]) -> FloatArray:
    """Return the columns of `classes` in the order of `names`, 0 for one that the model does not know."""
    column = {name: index for index, name in enumerate(classes)}
    ordered = np.zeros((len(probs), len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        if name in column:
            ordered[:, index] = probs[:, column[name]]
    return ordered


def _multi_hot(labels: Sequence[Sequence[int]], classes: int) -> npt.NDArray[np.bool_]:
    hot = np.zeros((len(labels), classes), dtype=np.bool_)
    for row, numbers in enumerate(labels):
        hot[row, list(numbers)] = True
    return hot


def _multiple_loss(preds: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return binary cross-entropy, summed over the classes of an image: each class is a question of its own."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    logits = preds[1] if isinstance(preds, list | tuple) else preds
    loss = binary_cross_entropy_with_logits(logits, batch["cls"], reduction="none").sum(1).mean()
    return loss, {"loss": loss.detach()}


@functools.cache
def trainer_class() -> Any:
    """Return ultralytics' trainer of classifiers, on a data set of ours."""
    from ultralytics.models.yolo.classify import ClassificationTrainer

    class Trainer(ClassificationTrainer):  # type: ignore[misc]
        def get_dataset(self) -> dict[str, Any]:
            data = yaml.safe_load(Path(self.args.data).read_text(encoding="utf-8"))
            names = dict(enumerate(data["names"]))
            return {"train": "train", "val": "val", "names": names, "nc": len(names), "channels": 3} | {
                MULTIPLE: data.get(MULTIPLE, False)
            }

        def build_dataset(self, img_path: str, mode: str = "train", batch: Any = None) -> Any:  # noqa: ARG002
            return _dataset_class()(Path(self.args.data), img_path, self.args, self.data)

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            model = super().get_model(cfg, weights, verbose)
            model.yaml[MULTIPLE] = self.data[MULTIPLE]
            return model

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            if self.data[MULTIPLE]:
                self.model.criterion = _multiple_loss
            moved: dict[str, Any] = super().preprocess_batch(batch)
            return moved

    return Trainer


@functools.cache
def _dataset_class() -> Any:
    """Return a data set of augmented images and their classes, as shares of one where an image has one class only."""
    import torch
    from PIL import Image
    from ultralytics.data.augment import classify_augmentations

    class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, data_yaml: Path, part: str, args: Any, data: dict[str, Any]) -> None:
            paths, labels = read_part(data_yaml, part)
            hot = _multi_hot(labels, data["nc"]).astype(np.float32)
            rows = np.arange(len(hot)) if data[MULTIPLE] else np.flatnonzero(hot.any(axis=1))
            self.samples = [paths[row] for row in rows.tolist()]
            self.targets = hot[rows] if data[MULTIPLE] else hot[rows] / hot[rows].sum(axis=1, keepdims=True)
            self.transform = classify_augmentations(
                size=args.imgsz,
                scale=(_LEAST_SEEN if data[MULTIPLE] else 1.0 - args.scale, 1.0),
                hflip=args.fliplr,
                vflip=args.flipud,
                erasing=0.0 if data[MULTIPLE] else args.erasing,
                auto_augment=args.auto_augment,
                hsv_h=args.hsv_h,
                hsv_s=args.hsv_s,
                hsv_v=args.hsv_v,
            )

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, index: int) -> dict[str, Any]:
            with Image.open(self.samples[index]) as image:
                return {"img": self.transform(image.convert("RGB")), "cls": torch.from_numpy(self.targets[index])}

    return Images
