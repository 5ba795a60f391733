"""A data set as an experiment sees it: a pool to label from and a test split, all of it checked before any training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from backend import geometry, yolo_data
from backend.dataset import LabeledImage
from backend.errors import DataError
from backend.types import IntArray, LabeledBox
from backend.yolo_data import LabeledFile

_SMALLEST_PX = 10  # ultralytics leaves smaller images out of trainings without a word


@dataclass(frozen=True, slots=True)
class SimulationData:
    """The pool, which is the train split, and the images that the reported metrics are measured on."""

    classes: tuple[str, ...]
    pool: tuple[LabeledFile, ...]
    test: tuple[LabeledFile, ...]  # the test split, or val where there is none
    root: Path  # images are named relative to it
    notes: tuple[str, ...]  # what was left out

    def name(self, image: int) -> str:
        """Return the name of an image of the pool."""
        return Path(os.path.relpath(self.pool[image].path, self.root)).as_posix()

    def labeled(self, image: int, task_id: int, *, random: bool) -> LabeledImage:
        """Return an image of the pool with its true boxes, as an annotator would have drawn them."""
        file = self.pool[image]
        return LabeledImage(task_id, file.path, tuple(map(_drawn, file.boxes)), random)

    def sha256(self) -> str:
        """Return a sum over classes, images by name and size, and boxes."""
        parts = hashlib.sha256(repr(self.classes).encode())
        for split in (self.pool, self.test):
            for file in split:
                name = Path(os.path.relpath(file.path, self.root)).as_posix()
                parts.update(repr((name, file.path.stat().st_size, file.boxes)).encode())
        return parts.hexdigest()


def read(data_yaml: Path) -> SimulationData:
    """Read the data set. Raises DataError naming the file, the line and the cure for whatever cannot be used."""
    data_yaml = data_yaml.resolve()
    data = yolo_data.read(data_yaml)
    return SimulationData(data.classes, data.train, data.test or data.val, data_yaml.parent, data.notes)


def check(data: SimulationData, budget: int) -> None:
    """Raise DataError if the pool is smaller than `budget` images, a split has no boxes, or an image cannot be used."""
    where = str(data.root)
    if len(data.pool) < budget:
        raise DataError(
            f"the train split has {len(data.pool)} images, and the experiment labels {budget}",
            where=where,
            fix="lower --initial, --batch or --rounds",
        )
    for name, files in (("train", data.pool), ("test (or val)", data.test)):
        if not any(file.boxes for file in files):
            raise DataError(f"the {name} split has no box", where=where, fix="add label files with boxes")
    measured = {file.path.resolve() for file in data.test}
    for file in data.pool:
        if file.path.resolve() in measured:
            raise DataError(
                "an image is in the train and in the test split",
                where=str(file.path),
                fix="measure on other images than those that are labeled: correct test (or val) in data.yaml",
            )
    for problem in _unreadable((*data.pool, *data.test)):
        raise problem


def task_ids(data: SimulationData, seed: int) -> IntArray:
    """Return the ids (n,) that the images have as tasks of the simulated project: 1 … n in an order of the seed's own.

    Production draws the initial images, the explored ones and the validation set by hashes of ids.
    """
    return np.random.default_rng((seed, len(data.pool))).permutation(len(data.pool)) + 1


def _drawn(box: LabeledBox) -> LabeledBox:
    """Return a box as it comes back from Label Studio, which keeps percent: label files round its last bits."""
    percent = geometry.clip_percent(geometry.normalised_to_percent(box.xywh))
    return replace(box, xywh=geometry.percent_to_normalised(percent))


def _unreadable(files: Sequence[LabeledFile]) -> Iterator[DataError]:
    for file in files:
        where = str(file.path)
        try:
            with Image.open(file.path) as image:
                image.verify()
                small = min(image.size) < _SMALLEST_PX
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:  # pillow raises the last for PNG
            yield DataError(f"not an image that can be read: {error}", where=where, fix="replace the file")
        else:
            if small:
                yield DataError(f"the image is smaller than {_SMALLEST_PX} pixels", where=where, fix="replace the file")
