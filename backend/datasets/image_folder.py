"""A classification data set in ultralytics' layout: a folder per split, and in it a folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend.datasets.reader import LabeledFile, YoloData, images_in
from backend.errors import DataError
from backend.types import WHOLE, LabeledBox

_VAL = ("val", "validation", "valid")  # names ultralytics takes, in this order
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
