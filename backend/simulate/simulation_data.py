"""The data set of an experiment: a pool of images to label and a test split, checked before any training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from backend.datasets import data_yaml, image_folder, label_studio_export, reader
from backend.datasets.reader import LabeledFile, YoloData
from backend.datasets.writer import SMALLEST_SIDE_PX, LabeledImage
from backend.errors import DataError
from backend.labelstudio import class_names, tags
from backend.simulate import annotator
from backend.types import ControlTag, IntArray, YoloTask
from backend.yolo.tasks import RECIPES, details

_KINDS: Mapping[YoloTask, str] = {
    "detect": "rectanglelabels",
    "obb": "rectanglelabels",
    "segment": "polygonlabels",
    "pose": "keypointlabels",
    "classify": "choices",
}


@dataclass(frozen=True, slots=True)
class SimulationData:
    """The pool, which is the train split, and the images that the reported metrics are measured on."""

    tag: ControlTag  # the control tag that a project with these labels would have
    pool: tuple[LabeledFile, ...]
    test: tuple[LabeledFile, ...]  # the test split, or val where there is none
    root: Path  # images are named relative to it
    notes: tuple[str, ...]  # about labels that were left out
    details: Mapping[str, Any] = field(default_factory=dict)  # further fields of data.yaml for the task

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the labels by the number of their class."""
        return self.tag.labels

    def name(self, image: int) -> str:
        """Return the name of an image of the pool."""
        return Path(os.path.relpath(self.pool[image].path, self.root)).as_posix()

    def labeled(self, image: int, task_id: int, *, random: bool) -> LabeledImage:
        """Return an image of the pool with its true labels, in the precision that they have after Label Studio.

        Label Studio stores percent and, for rotated boxes, rectangles. It does not store unlabeled points.
        """
        file = self.pool[image]
        boxes = tags.decode(self.tag, annotator.annotated(self.tag, file))
        return LabeledImage(task_id, file.path, boxes, random)

    def sha256(self) -> str:
        """Return the sha256 of the classes, the names and sizes of the images, the labels and the further fields."""
        parts = hashlib.sha256(repr(self.classes).encode())
        parts.update("".join(repr(entry) for entry in sorted(self.details.items())).encode())
        for split in (self.pool, self.test):
            for file in split:
                name = Path(os.path.relpath(file.path, self.root)).as_posix()
                parts.update(repr((name, file.path.stat().st_size, file.boxes)).encode())
        return parts.hexdigest()


def read(place: Path, task: YoloTask = "detect") -> SimulationData:
    """Read a data.yaml (or a folder with one), an export of Label Studio, or a folder of classes, for a task.

    Raises DataError naming the file, the line and the cure for whatever cannot be used.
    """
    place = _with_yaml(place.resolve())
    if not place.is_dir():
        data = reader.read(place, task)
    elif label_studio_export.is_export(place):
        data = label_studio_export.read(place, task)
    else:
        data = image_folder.read(place)
    tag = _tag(data, task)
    root = place if place.is_dir() else place.parent
    further = {"flip_idx": list(data.mirrored)} if data.mirrored else {}
    return SimulationData(tag, data.train, data.test or data.val, root, data.notes, {**details(tag), **further})


def task_by_data(place: Path) -> YoloTask | None:
    """Return the only task that fits a data set, None if the base weights must decide.

    Raises DataError for a file that is no data.yaml.
    """
    place = _with_yaml(place)
    if place.is_dir():
        return None if label_studio_export.is_export(place) else "classify"
    return "pose" if data_yaml.has_points(place) else None


def _with_yaml(place: Path) -> Path:
    """Return the data.yaml of a folder that has one."""
    return place / "data.yaml" if (place / "data.yaml").is_file() else place


def check(data: SimulationData, budget: int) -> None:
    """Raise DataError for a pool with fewer than `budget` images, a split without labels, or an unusable image."""
    where = str(data.root)
    if len(data.pool) < budget:
        raise DataError(
            f"the train split has {len(data.pool)} images, and the experiment labels {budget}",
            where=where,
            fix="lower --initial, --batch or --rounds",
        )
    for name, files in (("train", data.pool), ("test (or val)", data.test)):
        if not any(file.boxes for file in files):
            noun = RECIPES[data.tag.task].labels
            raise DataError(f"the {name} split has no {noun}", where=where, fix=f"add label files with {noun}")
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
    """Return the task ids (n,) of the images in the simulated project: 1 … n, in a random order of the seed.

    The live loop draws the initial images, the explored tasks and the validation set by hashes of task ids.
    """
    return np.random.default_rng((seed, len(data.pool))).permutation(len(data.pool)) + 1


def _tag(data: YoloData, task: YoloTask) -> ControlTag:
    classes = class_names.match([[(name, name) for name in data.classes]])
    return ControlTag(
        kind=_KINDS[task],
        from_name="label",
        to_name="image",
        data_key="image",
        labels=data.classes,
        class_to_label=classes.folded,
        exact_class_to_label=classes.exact,
        task=task,
        points=tuple(map(str, range(data.points))),
        parent="box" if task == "pose" else "",
        multiple=data.multiple and task == "classify",
    )


def _unreadable(files: Sequence[LabeledFile]) -> Iterator[DataError]:
    for file in files:
        where = str(file.path)
        try:
            with Image.open(file.path) as image:
                image.verify()
                small = min(image.size) < SMALLEST_SIDE_PX
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:  # pillow raises the last for PNG
            yield DataError(f"not an image that can be read: {error}", where=where, fix="replace the file")
        else:
            if small:
                yield DataError(
                    f"the image is smaller than {SMALLEST_SIDE_PX} pixels", where=where, fix="replace the file"
                )
