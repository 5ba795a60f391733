"""A classification data set in ultralytics' layout, both ways: a folder per split, and in it a folder per class."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from backend.datasets.reader import LabeledFile, YoloData, images_in
from backend.datasets.writer import Split
from backend.errors import DataError
from backend.types import WHOLE, LabeledBox

_VAL = ("val", "validation", "valid")  # names ultralytics takes, in this order
_ESCAPED = "%/\\"  # our own escape, and what parts a path
_LONGEST_BYTES = 200  # file systems take 255
_FIX = (
    "name a data.yaml, or the folder of a YOLO export of Label Studio (classes.txt, images/, labels/); "
    "classes of whole images are laid out as train/<class>/*.jpg and val/<class>/*.jpg, or test/<class>/*.jpg"
)


def read(folder: Path) -> YoloData:
    """Read the data set; the classes are the folders in `train`, by name. Raises DataError naming what is missing."""
    train, test = folder / "train", folder / "test"
    val = next((folder / name for name in _VAL if (folder / name).is_dir()), folder / "val")
    for split, exists in (("train", train.is_dir()), ("val or test", val.is_dir() or test.is_dir())):
        if not exists:
            raise DataError(f"no folder {split}", where=str(folder), fix=_FIX)
    classes = tuple(path.name for path in _class_folders(train))
    notes: list[str] = []
    files = [tuple(_files(split, classes, notes)) for split in (train, val, test)]
    return YoloData(classes, files[0], files[1], files[2], tuple(notes))


def folder_of(label: str) -> str:
    """Return the name of a class's folder: the label, with what a folder's name cannot hold as %XX; never twice.

    >>> folder_of("red car"), folder_of("a/b"), folder_of("..")
    ('red car', 'a%2Fb', '%2E.')
    """
    name = "".join(letter if letter.isprintable() and letter not in _ESCAPED else quote(letter, "") for letter in label)
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name.encode()) <= _LONGEST_BYTES:
        return name
    start = name.encode()[: _LONGEST_BYTES - 20].decode(errors="ignore")
    return f"{start}%{hashlib.sha256(label.encode()).hexdigest()[:16]}"


def write(split: Split, classes: Sequence[str], root: Path) -> dict[str, str]:
    """Copy images into train/<class> and val/<class> under `root`; return each image's path there by its name.

    Each part has a folder of every class, even without images, because ultralytics numbers the folders of each part
    by themselves. An image without a class has no folder and is left out; of several classes the first counts.
    """
    places: dict[str, str] = {}
    for part, images in split.parts.items():
        for label in classes:
            (root / part / folder_of(label)).mkdir(parents=True, exist_ok=True)
        for image in images:
            if not image.boxes:
                continue
            place = f"{part}/{folder_of(image.boxes[0].label)}/{image.name}{image.path.suffix}"
            shutil.copyfile(image.path, root / place)
            places[image.name] = place
    return places


def _class_folders(split: Path) -> list[Path]:
    return [path for path in sorted(split.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _files(split: Path, classes: tuple[str, ...], notes: list[str]) -> Iterator[LabeledFile]:
    """Yield the images of a split with their class, none where the split is missing; note images without a class."""
    if not split.is_dir():
        return
    count = 0
    for folder in _class_folders(split):
        if folder.name not in classes:
            fix = "add images of it there, or remove the folder"
            raise DataError(f"the class {folder.name!r} is not in the train split", where=str(folder), fix=fix)
        for path in images_in(folder, notes):
            count += 1
            yield LabeledFile(path, (LabeledBox(folder.name, WHOLE),))
    if not count:
        raise DataError("no images in folders of classes", where=str(split), fix=_FIX)
    stray = [path for path in images_in(split, []) if path.parent == split]
    notes.extend(f"{path}: in no folder of a class, left out" for path in stray)
