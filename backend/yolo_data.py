"""An ultralytics detection data set on disk -> paths and labeled boxes.

`path:` is relative to the folder of data.yaml, a split is a folder, a .txt list, or several of these, and a label file
lies where ultralytics looks for it: `images` becomes `labels` in the image's path, the suffix becomes .txt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from backend.errors import DataError
from backend.types import LabeledBox

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_TOLERANCE = 0.01  # of the image; ultralytics allows as much


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An image and its boxes; no boxes: a background image."""

    path: Path
    boxes: tuple[LabeledBox, ...]


@dataclass(frozen=True, slots=True)
class YoloData:
    """A detection data set; `test` is empty where there is none, `notes` says what was left out and why."""

    classes: tuple[str, ...]
    train: tuple[LabeledFile, ...]
    val: tuple[LabeledFile, ...]
    test: tuple[LabeledFile, ...]
    notes: tuple[str, ...]


def read(data_yaml: Path) -> YoloData:
    """Read the data set. Raises DataError naming the file, the line and the cure for whatever cannot be used."""
    config = _load_yaml(data_yaml)
    where = str(data_yaml)
    classes = _classes(config.get("names"), config.get("nc"), where)
    root = data_yaml.parent / str(config.get("path") or "")
    notes: list[str] = []
    splits = {}
    for name in ("train", "val", "test"):
        if config.get(name):
            images = list(_images(config[name], root, f"{where}, {name}"))
            splits[name] = tuple(LabeledFile(path, tuple(_boxes(path, classes, notes))) for path in images)
        elif name == "test":
            splits[name] = ()
        else:
            raise DataError(f"no {name} split", where=where, fix=f"add a line like {name}: images/{name}")
    return YoloData(classes, splits["train"], splits["val"], splits["test"], tuple(notes))


def label_path(image: Path) -> Path:
    """Return where ultralytics looks for the labels of an image.

    >>> label_path(Path("data/images/train/7.jpg")).as_posix()
    'data/labels/train/7.txt'
    >>> label_path(Path("data/7.jpg")).as_posix()
    'data/7.txt'
    """
    parts = list(image.parts[:-1])
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts, f"{image.stem}.txt")


def _load_yaml(data_yaml: Path) -> dict[str, Any]:
    text = _read_text(data_yaml, fix="give the path of an ultralytics data.yaml")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise DataError(f"not YAML: {problem}", where=f"{data_yaml}{line}", fix="correct that line") from None
    if not isinstance(config, dict):
        raise DataError("not a data set", where=str(data_yaml), fix="write the keys train, val and names")
    return config


def _read_text(path: Path, *, fix: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), fix=fix) from None
    except UnicodeDecodeError:
        raise DataError("not a text file in UTF-8", where=str(path), fix="save it as UTF-8 text") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None


def _classes(names: Any, count: Any, where: str) -> tuple[str, ...]:
    """Return the class names by id from `names`, a list or a map of ids 0, 1, ..."""
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"names has the ids {list(names)}", where=where, fix="number the classes 0, 1, 2, ...")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError("no class names", where=where, fix="add a line like names: [cat, dog]")
    for name in names:
        # YAML reads an unquoted `no` as False and an empty item as null; neither is the label that was meant.
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise DataError(f"{name!r} is not a class name", where=where, fix='put the name in quotes, e.g. "no"')
    classes = tuple(str(name) for name in names)
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"the class name {twice!r} is there twice", where=where, fix="give each class its own name")
    if count is not None and count != len(classes):
        raise DataError(f"nc is {count} but names has {len(classes)}", where=where, fix="leave nc out, or correct it")
    return classes


def _images(split: Any, root: Path, where: str) -> Iterator[Path]:
    """Yield the images of a split in a stable order: lists as written, folders by name."""
    sources = split if isinstance(split, list) else [split]
    found = False
    for source in sources:
        place = root / str(source)
        images = _in_folder(place) if place.is_dir() else _in_list(place, where)
        for image in images:
            found = True
            yield image
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{split} holds no images", where=where, fix=f"put images there: {kinds}")


def _in_folder(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _in_list(listing: Path, where: str) -> Iterator[Path]:
    """Yield the images a .txt file lists; their paths are relative to its folder."""
    if listing.suffix != ".txt" or not listing.is_file():
        raise DataError(f"{listing} is no folder and no .txt list", where=where, fix="correct the path of this split")
    for number, line in enumerate(_read_text(listing, fix="create it").splitlines(), start=1):
        if not line.strip():
            continue
        image = listing.parent / line.strip()
        if not image.is_file():
            raise DataError(
                f"no image {image}",
                where=f"{listing}, line {number}",
                fix="add the image, or remove the line; paths are relative to the list's folder",
            )
        yield image


def _boxes(image: Path, classes: tuple[str, ...], notes: list[str]) -> Iterator[LabeledBox]:
    labels = label_path(image)
    if not labels.exists():
        notes.append(f"{image}: no label file {labels}, taken as background")
        return
    for number, line in enumerate(_read_text(labels, fix="make it readable").splitlines(), start=1):
        if not line.strip():
            continue
        box = _box(line, classes, f"{labels}, line {number}")
        if min(box.xywh[2:]) <= 0:
            notes.append(f"{labels}, line {number}: a box without an area, left out")
        else:
            yield box


def _box(line: str, classes: tuple[str, ...], where: str) -> LabeledBox:
    """Parse "class x y width height"; a box that leaves the image by no more than _TOLERANCE is clipped."""
    try:
        kind, x, y, width, height = (float(field) for field in line.split())
    except ValueError:
        raise DataError(
            f"not a box: {line.strip()[:80]!r}", where=where, fix='write "class x y width height", all numbers'
        ) from None
    if kind not in range(len(classes)):
        raise DataError(f"no class {kind:g}", where=where, fix=f"use 0 to {len(classes) - 1}, as in names")
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if (
        not all(math.isfinite(edge) and -_TOLERANCE <= edge <= 1 + _TOLERANCE for edge in edges)
        or min(width, height) < 0
    ):
        raise DataError(
            f"the box {line.strip()[:80]!r} leaves the image",
            where=where,
            fix="give centre, width and height as shares of the image, between 0 and 1",
        )
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
    return LabeledBox(classes[int(kind)], ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top))
