"""Training of classifiers with ultralytics, on data sets of our own layout.

A data set has the layout of the other tasks, and each line of a label file is the number of a class. So an image may
have several classes, and a name may hold any character. ultralytics' own layout, a folder for each class, allows
neither.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from backend.types import BoolArray
from backend.yolo.classifier import MULTIPLE

_LEAST_SHARE = 0.9  # of the image that a random crop keeps, as a smaller crop could remove one of its classes


def read_part(data_yaml: Path, part: str) -> tuple[list[Path], list[tuple[int, ...]]]:
    """Return the images of a split, "train" or "val", and the class numbers of each image."""
    data = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    folder = Path(data["path"]) / data[part]
    images = sorted(folder.iterdir())
    labels = folder.parent.parent / "labels" / folder.name
    return images, [tuple(map(int, (labels / f"{path.stem}.txt").read_text().split())) for path in images]


def multi_hot(labels: Sequence[Sequence[int]], classes: int) -> BoolArray:
    """Return the class numbers of n images as a mask (n, C)."""
    hot = np.zeros((len(labels), classes), dtype=np.bool_)
    for row, numbers in enumerate(labels):
        hot[row, list(numbers)] = True
    return hot


def _multiple_loss(preds: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the binary cross-entropy, summed over the classes of an image, because each class is decided by itself."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    logits = preds[1] if isinstance(preds, list | tuple) else preds
    loss = binary_cross_entropy_with_logits(logits, batch["cls"], reduction="none").sum(1).mean()
    return loss, {"loss": loss.detach()}


@functools.cache
def trainer_class() -> Any:
    """Return ultralytics' trainer of classifiers, changed to read data sets of our layout."""
    from ultralytics.models.yolo.classify import ClassificationTrainer

    class Trainer(ClassificationTrainer):  # type: ignore[misc]
        """A trainer that reads our data sets, and gives an image several classes if the data set allows it."""

        def get_dataset(self) -> dict[str, Any]:
            """Return the classes of the data set."""
            data = yaml.safe_load(Path(self.args.data).read_text(encoding="utf-8"))
            names = dict(enumerate(data["names"]))
            return {"train": "train", "val": "val", "names": names, "nc": len(names), "channels": 3} | {
                MULTIPLE: data.get(MULTIPLE, False)
            }

        def build_dataset(self, img_path: str, mode: str = "train", batch: Any = None) -> Any:  # noqa: ARG002
            """Return the data set of a split, "train" or "val"."""
            return _dataset_class()(Path(self.args.data), img_path, self.args, self.data)

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            """Return the model, which remembers whether an image may have several classes."""
            model = super().get_model(cfg, weights, verbose)
            model.yaml[MULTIPLE] = self.data[MULTIPLE]
            return model

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            """Return the batch on the device; if images may have several classes, set the loss for that."""
            if self.data[MULTIPLE]:
                self.model.criterion = _multiple_loss
            moved: dict[str, Any] = super().preprocess_batch(batch)
            return moved

    return Trainer


@functools.cache
def _dataset_class() -> Any:
    """Return a torch data set of augmented images and their targets (C,): 0 or 1, or shares that sum to 1.

    Where an image is meant to have one class but has several labels, each of them gets the same share.
    """
    import torch
    from PIL import Image
    from ultralytics.data.augment import classify_augmentations

    class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """The images of a split, augmented anew each time, and their targets."""

        def __init__(self, data_yaml: Path, part: str, args: Any, data: dict[str, Any]) -> None:
            paths, labels = read_part(data_yaml, part)
            hot = multi_hot(labels, data["nc"]).astype(np.float32)
            rows = np.arange(len(hot)) if data[MULTIPLE] else np.flatnonzero(hot.any(axis=1))
            self.samples = [paths[row] for row in rows.tolist()]
            self.targets = hot[rows] if data[MULTIPLE] else hot[rows] / hot[rows].sum(axis=1, keepdims=True)
            self.transform = classify_augmentations(
                size=args.imgsz,
                scale=(_LEAST_SHARE if data[MULTIPLE] else 1.0 - args.scale, 1.0),
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
