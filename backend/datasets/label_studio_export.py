"""A YOLO export of Label Studio: `classes.txt`, `images/` and `labels/`, without splits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from backend.datasets.label_format import Lines
from backend.datasets.reader import LabeledFile, YoloData, images_in, labels_of
from backend.errors import DataError
from backend.types import YoloTask

TEST_SHARE = 0.2  # of the images
_TASKS: tuple[YoloTask, ...] = ("detect", "obb", "segment")


def is_export(folder: Path) -> bool:
    """Return whether a folder is an export; a folder with a data.yaml is not, because that has the splits too."""
    return (folder / "classes.txt").is_file() and not (folder / "data.yaml").is_file()


def read(folder: Path, task: YoloTask = "detect") -> YoloData:
    """Read the export; a fifth of its images, chosen by a hash of their names, is the test split.

    Raises DataError naming the file and the cure for anything that cannot be used.
    """
    where, images = str(folder), folder / "images"
    if task not in _TASKS:
        fix = "write a data.yaml with kpt_shape" if task == "pose" else "use a model of boxes, or lay out class folders"
        raise DataError(
            f"a YOLO export of Label Studio does not tell the labels of a {task} model", where=where, fix=fix
        )
    names = [line.strip() for line in (folder / "classes.txt").read_text(encoding="utf-8-sig").splitlines()]
    classes = tuple(filter(None, names))
    if len(set(classes)) < len(classes) or not classes:
        raise DataError(
            "no class names, or the same name twice", where=str(folder / "classes.txt"), fix="write each name once"
        )
    notes: list[str] = []
    paths = list(images_in(images, notes)) if images.is_dir() else []
    if len(paths) < 2:
        fix = "choose 'YOLO with Images' when you export from Label Studio, or put the images there"
        raise DataError(f"{images} holds {len(paths)} images", where=where, fix=fix)
    lines = Lines(task, classes, clipped=True)
    files = [LabeledFile(path, tuple(labels_of(path, lines, notes))) for path in sorted(paths, key=_order)]
    test_size = max(1, round(TEST_SHARE * len(files)))
    notes.append(f"{folder}: an export has no splits, so {test_size} of its {len(files)} images are the test split")
    test, train = files[:test_size], files[test_size:]
    return YoloData(classes, _by_name(train), _by_name(test), _by_name(test), tuple(notes))


def _order(path: Path) -> str:
    return hashlib.sha256(path.name.encode()).hexdigest()


def _by_name(files: list[LabeledFile]) -> tuple[LabeledFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))
