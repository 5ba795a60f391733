"""Labeled images -> a YOLO data set on disk. An image never moves from one part of the split to the other."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.datasets.label_format import written
from backend.datasets.reader import LabeledFile
from backend.errors import TrainingError
from backend.types import LabeledBox, YoloTask

MIN_IMAGES = 2
SMALLEST_SIDE_PX = 10  # ultralytics leaves smaller images out of a training without a message
_ROUNDING = 1e-4  # share of the image's side by which float rounding may push an edge out of the image


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image with its labels; without boxes it is a background image. `random`: no strategy picked it."""

    task_id: int
    path: Path
    boxes: tuple[LabeledBox, ...]
    random: bool
    frame: int = 0  # of the task's video, as Label Studio counts them; 0: the task is the image
    tile: int = 0  # of the image, from 1; 0: the whole image

    @property
    def name(self) -> str:
        """Return the name of its files in a data set."""
        name = f"{self.task_id}-{self.frame}" if self.frame else str(self.task_id)
        return f"{name}-tile{self.tile}" if self.tile else name


@dataclass(frozen=True, slots=True)
class Split:
    """The images to train on and the held-out set to judge by."""

    train: tuple[LabeledImage, ...]
    val: tuple[LabeledImage, ...]
    held_out: bool  # False: val is the train set, because too few random images are labeled

    @property
    def parts(self) -> Mapping[str, tuple[LabeledImage, ...]]:
        """The images of each part by the part's name; without a held-out part there is only "train"."""
        return {"train": self.train, "val": self.val} if self.held_out else {"train": self.train}

    def whole(self) -> Split:
        """Return all labeled images as one set without a held-out part."""
        images = self.train if not self.held_out else (*self.train, *self.val)
        return Split(images, images, held_out=False)

    @property
    def learned_tasks(self) -> frozenset[int]:
        """The tasks that a training learns from."""
        return frozenset(image.task_id for image in self.train)

    @property
    def held_out_tasks(self) -> frozenset[int]:
        """The tasks that a training is judged by and does not learn from."""
        return frozenset(image.task_id for image in self.val) if self.held_out else frozenset()


def split(images: Sequence[LabeledImage], *, val_share: float, project_id: int) -> Split:
    """Hold out about `val_share` of the random images; without a usable held-out part, val is train.

    The part of an image depends only on its project id and task id, so more labels move no image.
    Raises TrainingError for fewer than 2 images or no boxes at all.
    """
    where = f"project {project_id}"
    if len(images) < MIN_IMAGES:
        raise TrainingError(
            f"{len(images)} labeled image{'s' * (len(images) != 1)}, a training needs {MIN_IMAGES}",
            where=where,
            fix="label more images",
        )
    if not _has_boxes(images):
        raise TrainingError(
            f"none of the {len(images)} labeled images has a box", where=where, fix="draw at least one box"
        )
    val = tuple(image for image in images if image.random and _draw(project_id, image.task_id) < val_share)
    held_out = {image.task_id for image in val}
    train = tuple(image for image in images if image.task_id not in held_out)
    if _has_boxes(train) and _has_boxes(val):
        return Split(train, val, held_out=True)
    return Split(tuple(images), tuple(images), held_out=False)


def unseen_classes(images: Sequence[LabeledImage], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes without a box: a model trained on these images cannot predict them."""
    labels = {box.label for image in images for box in image.boxes}
    return tuple(name for name in classes if name not in labels)


def write_test_set(
    files: Sequence[LabeledFile],
    classes: Sequence[str],
    root: Path,
    task: YoloTask = "detect",
    details: Mapping[str, Any] | None = None,
) -> Path:
    """Write files with known labels as the `val` split of a data set under `root`; return its data.yaml.

    We write it anew because ultralytics looks up a relative `path` of somebody's data.yaml in a folder of its own.
    """
    images = tuple(LabeledImage(place, file.path, file.boxes, random=True) for place, file in enumerate(files))
    return write(Split(train=images, val=images, held_out=False), classes, root, task, details)


def write(
    split: Split,
    classes: Sequence[str],
    root: Path,
    task: YoloTask = "detect",
    details: Mapping[str, Any] | None = None,
    *,
    portable: bool = False,
) -> Path:
    """Write images/ and labels/ (YOLO text) under `root`, replacing what is there; return data.yaml.

    Images are hard links. Those of a `portable` data set are copies, and its data.yaml names no folder of this machine.
    `details` are further keys of data.yaml. Raises TrainingError for a label that is not in `classes`, or a box that
    leaves its image.
    """
    root = root.absolute()
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for part, images in split.parts.items():
        _write_part(images, classes, root, part, task, shutil.copyfile if portable else _link)
    data = {
        **({} if portable else {"path": str(root)}),
        "train": "images/train",
        "val": "images/val" if split.held_out else "images/train",
        "names": list(classes),
        **(details or {}),
    }
    data_yaml = root / "data.yaml"
    data_yaml.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")  # every JSON is YAML
    return data_yaml


def _write_part(
    images: Sequence[LabeledImage],
    classes: Sequence[str],
    root: Path,
    part: str,
    task: YoloTask,
    place: Callable[[Path, Path], object],
) -> None:
    number = {name: index for index, name in enumerate(classes)}
    for folder in ("images", "labels"):
        (root / folder / part).mkdir(parents=True)
    for image in images:
        lines = [label_line(box, number, image.task_id, task) for box in image.boxes]
        (root / "labels" / part / f"{image.name}.txt").write_text("".join(lines), encoding="ascii")
        place(image.path, root / image_path(image, part))


def image_path(image: LabeledImage, part: str) -> str:
    """Return the path of an image in a data set, relative to its root."""
    return f"images/{part}/{image.name}{image.path.suffix}"


def label_line(box: LabeledBox, number: dict[str, int], task_id: int, task: YoloTask) -> str:
    """Return one line of a YOLO label file: the class number, then the task's numbers as shares in [0, 1].

    Raises TrainingError for a label that is not in `number`, and for a box without area or outside the image.
    """
    if box.label not in number:
        raise TrainingError(
            f"label {box.label!r} is not in the label config",
            where=f"task {task_id}",
            fix="correct the annotation, or put the label back into the config",
        )
    x, y, width, height = box.xywh
    reach = max(abs(2 * x - 1) + width, abs(2 * y - 1) + height)  # 1 where an edge touches the image's border
    if not (width > 0 and height > 0 and reach <= 1 + 2 * _ROUNDING):  # also refuses NaN
        raise TrainingError(
            f"box {box.xywh} of {box.label!r} is empty or leaves the image",
            where=f"task {task_id}",
            fix="draw the box inside the image",
        )
    return " ".join([str(number[box.label]), *(f"{value:.6f}" for value in written(box, task))]) + "\n"


def _link(source: Path, target: Path) -> None:
    source = source.resolve()  # a hard link to a relative symbolic link would point elsewhere
    try:
        target.hardlink_to(source)
    except OSError:  # it is another file system, or has no hard links
        shutil.copyfile(source, target)


def _has_boxes(images: Sequence[LabeledImage]) -> bool:
    return any(image.boxes for image in images)


def _draw(project_id: int, task_id: int) -> float:
    """Return a number in [0, 1) that is always the same for a task; Python's hash() differs between processes."""
    digest = hashlib.sha256(f"{project_id}:{task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
