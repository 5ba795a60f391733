"""An ultralytics data set on disk -> paths and labels, for any task.

A relative `path:` is found where ultralytics finds it (yolo_roots), or else beside data.yaml. A split is a folder, a
.txt list, or several of these. A label file lies where ultralytics looks for it: `images` becomes `labels` in the
image's path, the suffix becomes .txt. What ultralytics takes is taken (`check_det_dataset`, `verify_image_label`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from backend.datasets.label_format import Lines, parse
from backend.datasets.roots import roots
from backend.errors import DataError
from backend.types import LabeledBox, YoloTask

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_BESIDE_IMAGES = frozenset({"", ".cache", ".csv", ".json", ".md", ".npy", ".txt", ".xml", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An image and its labels; no boxes: a background image."""

    path: Path
    boxes: tuple[LabeledBox, ...]


@dataclass(frozen=True, slots=True)
class YoloData:
    """A data set; `test` is empty where there is none, `notes` says what was left out and why."""

    classes: tuple[str, ...]
    train: tuple[LabeledFile, ...]
    val: tuple[LabeledFile, ...]
    test: tuple[LabeledFile, ...]
    notes: tuple[str, ...]
    points: int = 0  # pose: of an object
    mirrored: tuple[int, ...] = ()  # pose: which point each becomes in a mirror, none: not known
    multiple: bool = False  # classify: an image may have several classes at once


def read(data_yaml: Path, task: YoloTask = "detect") -> YoloData:
    """Read the data set. Raises DataError naming the file, the line and the cure for whatever cannot be used."""
    config = _load_yaml(data_yaml)
    where = str(data_yaml)
    classes = _classes(config.get("names"), _count(config.get("nc"), where), where)
    pose = task == "pose" or (task == "detect" and "kpt_shape" in config)  # boxes may be had from a data set of poses
    shape = _kpt_shape(config.get("kpt_shape"), where) if pose else (0, 0)
    lines, notes = Lines(task, classes, shape), list[str]()
    train, val, test = (tuple(_files(config, split, data_yaml, lines, notes)) for split in ("train", "val", "test"))
    multiple = config.get("multiple") is True
    if task == "classify" and not multiple:
        _check_single((*train, *val, *test))
    mirrored = _mirrored(config.get("flip_idx"), shape[0], where) if task == "pose" else ()
    points = shape[0] if task == "pose" else 0
    return YoloData(classes, train, val, test, tuple(notes), points, mirrored, multiple)


def has_points(data_yaml: Path) -> bool:
    """Tell whether the labels of a data set have key points; raises DataError for a file that is no data.yaml."""
    return "kpt_shape" in _load_yaml(data_yaml)


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
    if "val" not in config and "validation" in config:
        config["val"] = config["validation"]
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


def _count(count: Any, where: str) -> int | None:
    """Return `nc`, the number of classes, which may be written as text; None: it is not there."""
    if count is None:
        return None
    try:
        number = float(count)
        if number != int(number) or number < 1 or isinstance(count, bool):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"nc is {count!r}", where=where, fix="write the number of classes, or leave nc out") from None
    return int(number)


def _classes(names: Any, count: int | None, where: str) -> tuple[str, ...]:
    """Return the class names by id from `names`, a list or a map of ids 0, 1, ...; without names they are numbered."""
    if names is None and count is not None:
        return tuple(f"class_{index}" for index in range(count))
    if isinstance(names, dict):
        by_id = {int(key) if str(key).isdecimal() else key: name for key, name in names.items()}
        if set(by_id) != set(range(len(names))):
            raise DataError(f"names has the ids {list(names)}", where=where, fix="number the classes 0, 1, 2, ...")
        names = [by_id[index] for index in range(len(names))]
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


def _files(
    config: Mapping[str, Any], split: str, data_yaml: Path, lines: Lines, notes: list[str]
) -> Iterator[LabeledFile]:
    if config.get(split):
        places = _places(config[split], _root(config, data_yaml))
        known = set[Path]()
        for path in _images(places, f"{data_yaml}, {split}", notes):
            known.add(label_path(path))
            yield LabeledFile(path, tuple(labels_of(path, lines, notes)))
        notes.extend(f"{path}: no image has this name, left out" for path in _lone_labels(places, known))
    elif split != "test":
        raise DataError(f"no {split} split", where=str(data_yaml), fix=f"add a line like {split}: images/{split}")


def _root(config: Mapping[str, Any], data_yaml: Path) -> Path:
    """Return the folder that splits are relative to, the first with them. Raises DataError that names all places."""
    folders = roots(data_yaml, config.get("path"))
    splits = [config[split] for split in ("train", "val") if config.get(split)]
    root = next((root for root in folders if all(place.exists() for it in splits for place in _places(it, root))), None)
    if root is None and len(folders) > 1:
        what = f"path: {config['path']} has not the splits {', '.join(str(split) for split in splits)}"
        looked = "correct path; looked in " + ", ".join(map(str, folders))
        raise DataError(what, where=str(data_yaml), fix=looked)
    return root or folders[0]


def _places(split: Any, root: Path) -> list[Path]:
    """Return the folders and lists of a split; of `../` at its start too many are written by Roboflow."""
    names = [str(name) for name in (split if isinstance(split, list) else [split])]
    places = []
    for name in names:
        place = root / name
        places.append(root / name[3:] if name.startswith("../") and not place.exists() else place)
    return places


def _images(places: Sequence[Path], where: str, notes: list[str]) -> Iterator[Path]:
    """Yield the images of a split in a stable order: lists as written, folders by name."""
    empty = True
    for place in places:
        for image in images_in(place, notes) if place.is_dir() else _in_list(place, where, notes):
            empty = False
            yield image
    if empty:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        held = ", ".join(map(str, places))
        raise DataError(f"{held} holds no images", where=where, fix=f"put images there: {kinds}")


def _lone_labels(places: Iterable[Path], known: Collection[Path]) -> Iterator[Path]:
    """Yield the label files beside a split's folders of images that are not those of an image."""
    for place in places:
        labels = label_path(place / "any.jpg").parent
        if place.is_dir() and labels != place:
            lone = (path for path in sorted(labels.rglob("*.txt")) if path not in known)
            yield from (path for path in lone if path.name != "classes.txt")  # some tools write the names there


def images_in(folder: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the images in a folder and the folders in it, by name; note the files of a format that is not read."""
    unread = Counter[str]()
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES and path.is_file():
            yield path
        elif suffix not in _BESIDE_IMAGES and path.is_file() and not path.name.startswith("."):
            unread[suffix] += 1
    notes.extend(_unread(folder, suffix, count) for suffix, count in sorted(unread.items()))


def _unread(place: Path, suffix: str, count: int) -> str:
    files = f"{count} file{'s' * (count > 1)} {suffix}"
    return f"{place}: {files} left out: this format is not read; convert images to .jpg or .png"


def _in_list(listing: Path, where: str, notes: list[str]) -> Iterator[Path]:
    """Yield the images a .txt file lists; their paths are relative to its folder, or to the working directory."""
    if listing.suffix != ".txt" or not listing.is_file():
        raise DataError(
            f"{listing} is neither a folder nor a .txt list", where=where, fix="correct the path of this split"
        )
    unread = Counter[str]()
    for number, line in enumerate(_read_text(listing, fix="create it").splitlines(), start=1):
        if not line.strip():
            continue
        image = listing.parent / line.strip()
        if not image.is_file() and Path(line.strip()).is_file():
            image = Path(line.strip())
        if not image.is_file():
            raise DataError(
                f"no image {image}",
                where=f"{listing}, line {number}",
                fix="add the image, or remove the line; paths are relative to the list's folder",
            )
        if image.suffix.lower() in IMAGE_SUFFIXES:
            yield image
        else:
            unread[image.suffix.lower()] += 1
    notes.extend(_unread(listing, suffix, count) for suffix, count in sorted(unread.items()))


def labels_of(image: Path, lines: Lines, notes: list[str]) -> Iterator[LabeledBox]:
    """Yield the labels of an image; note what is left out, and an image without a label file."""
    labels = label_path(image)
    if not labels.exists():
        notes.append(f"{image}: no label file {labels}, taken as background")
        return
    rows = [
        (number, line)
        for number, line in enumerate(_read_text(labels, fix="make it readable").splitlines(), start=1)
        if line.strip()
    ]
    as_boxes = lines.of_file([line for _, line in rows], str(labels))
    kept = set[LabeledBox]()
    for number, line in rows:
        place = f"{labels}, line {number}"
        label = parse(line, as_boxes, place)
        if label is None:
            notes.append(f"{place}: {lines.noun} without an area, left out")
        elif label in kept:
            notes.append(f"{place}: {lines.noun} that is there twice, left out")
        else:
            kept.add(label)
            yield replace(label, outline=(), keypoints=()) if lines.task == "detect" else label


def _check_single(files: Iterable[LabeledFile]) -> None:
    for file in files:
        if len(file.boxes) > 1:
            raise DataError(
                f"{len(file.boxes)} classes of one image",
                where=str(label_path(file.path)),
                fix="leave one line, or write multiple: true into data.yaml",
            )


def _kpt_shape(shape: Any, where: str) -> tuple[int, int]:
    """Return how many points an object has, and how many numbers a point."""
    match shape:
        case [int(points), 2 | 3 as size] if points > 0:
            return points, size
    raise DataError(f"kpt_shape is {shape!r}", where=where, fix="write points and numbers of a point: [17, 3]")


def _mirrored(order: Any, points: int, where: str) -> tuple[int, ...]:
    if order is None:
        return ()
    numbers = isinstance(order, list) and all(isinstance(each, int) for each in order)
    if not numbers or sorted(order) != list(range(points)):
        fix = f"name each of the points 0 to {points - 1} once, or leave it out"
        raise DataError(f"flip_idx is {order!r}", where=where, fix=fix)
    return tuple(order)
