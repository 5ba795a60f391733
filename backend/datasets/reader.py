"""An ultralytics data set on disk -> paths and labels, for any task.

We accept what ultralytics accepts (its `check_det_dataset` and `verify_image_label`). A relative `path:` is looked up
where ultralytics does (see roots), and then beside data.yaml. A split is a folder, a .txt list, or several of these.
The path of a label file is that of its image with `images` replaced by `labels` and the suffix .txt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.datasets.data_yaml import class_count, class_names, keypoint_shape, load, mirrored_points, read_text
from backend.datasets.label_format import Lines, parse
from backend.datasets.roots import roots
from backend.errors import DataError
from backend.types import LabeledBox, YoloTask

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_BESIDE_IMAGES = frozenset({"", ".cache", ".csv", ".json", ".md", ".npy", ".txt", ".xml", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An image and its labels; without boxes it is a background image."""

    path: Path
    boxes: tuple[LabeledBox, ...]


@dataclass(frozen=True, slots=True)
class YoloData:
    """A data set; `test` is empty where there is none, and `notes` says what was left out and why."""

    classes: tuple[str, ...]
    train: tuple[LabeledFile, ...]
    val: tuple[LabeledFile, ...]
    test: tuple[LabeledFile, ...]
    notes: tuple[str, ...]
    points: int = 0  # pose: key points of an object
    mirrored: tuple[int, ...] = ()  # pose: the point that each becomes in a mirrored image; empty: not known
    multiple: bool = False  # classify: an image may have several classes at once


def read(data_yaml: Path, task: YoloTask = "detect") -> YoloData:
    """Read the data set. Raises DataError naming the file, the line and the cure for anything that cannot be used."""
    config = load(data_yaml)
    where = str(data_yaml)
    classes = class_names(config.get("names"), class_count(config.get("nc"), where), where)
    pose = task == "pose" or (task == "detect" and "kpt_shape" in config)  # a data set of poses has boxes too
    shape = keypoint_shape(config.get("kpt_shape"), where) if pose else (0, 0)
    lines, notes = Lines(task, classes, shape), list[str]()
    train, val, test = (tuple(_files(config, split, data_yaml, lines, notes)) for split in ("train", "val", "test"))
    multiple = config.get("multiple") is True
    if task == "classify" and not multiple:
        _check_single((*train, *val, *test))
    mirrored = mirrored_points(config.get("flip_idx"), shape[0], where) if task == "pose" else ()
    points = shape[0] if task == "pose" else 0
    return YoloData(classes, train, val, test, tuple(notes), points, mirrored, multiple)


def label_path(image: Path) -> Path:
    """Return the path at which ultralytics looks for the labels of an image.

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


def _files(
    config: Mapping[str, Any], split: str, data_yaml: Path, lines: Lines, notes: list[str]
) -> Iterator[LabeledFile]:
    if config.get(split):
        places = _places(config[split], _root(config, data_yaml))
        label_files = set[Path]()
        for path in _images(places, f"{data_yaml}, {split}", notes):
            label_files.add(label_path(path))
            yield LabeledFile(path, tuple(labels_of(path, lines, notes)))
        notes.extend(f"{path}: no image has this name, left out" for path in _lone_labels(places, label_files))
    elif split != "test":
        raise DataError(f"no {split} split", where=str(data_yaml), fix=f"add a line like {split}: images/{split}")


def _root(config: Mapping[str, Any], data_yaml: Path) -> Path:
    """Return the first folder that contains the splits. Raises DataError listing all folders where we looked."""
    folders = roots(data_yaml, config.get("path"))
    splits = [config[split] for split in ("train", "val") if config.get(split)]
    root = next(
        (folder for folder in folders if all(place.exists() for split in splits for place in _places(split, folder))),
        None,
    )
    if root is None and len(folders) > 1:
        problem = f"path: {config['path']} has not the splits {', '.join(str(split) for split in splits)}"
        fix = "correct path; looked in " + ", ".join(map(str, folders))
        raise DataError(problem, where=str(data_yaml), fix=fix)
    return root or folders[0]


def _places(split: Any, root: Path) -> list[Path]:
    """Return the folders and lists of a split; Roboflow writes one `../` too many at their start."""
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


def _lone_labels(places: Iterable[Path], label_files: Collection[Path]) -> Iterator[Path]:
    """Yield the label files beside a split's folders of images that belong to no image."""
    for place in places:
        labels = label_path(place / "any.jpg").parent
        if place.is_dir() and labels != place:
            lone = (path for path in sorted(labels.rglob("*.txt")) if path not in label_files)
            yield from (path for path in lone if path.name != "classes.txt")  # some tools write the names there


def images_in(folder: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders, by name; note files of a format that we do not read."""
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
    for number, line in enumerate(read_text(listing, fix="create it").splitlines(), start=1):
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
    """Yield the labels of an image; note labels that are left out, and an image without a label file."""
    labels = label_path(image)
    if not labels.exists():
        notes.append(f"{image}: no label file {labels}, taken as background")
        return
    rows = [
        (number, line)
        for number, line in enumerate(read_text(labels, fix="make it readable").splitlines(), start=1)
        if line.strip()
    ]
    as_boxes = lines.of_file([line for _, line in rows], str(labels))
    unique = set[LabeledBox]()
    for number, line in rows:
        place = f"{labels}, line {number}"
        label = parse(line, as_boxes, place)
        if label is None:
            notes.append(f"{place}: {lines.noun} without an area, left out")
        elif label in unique:
            notes.append(f"{place}: {lines.noun} that is there twice, left out")
        else:
            unique.add(label)
            yield replace(label, outline=(), keypoints=()) if lines.task == "detect" else label


def _check_single(files: Iterable[LabeledFile]) -> None:
    for file in files:
        if len(file.boxes) > 1:
            raise DataError(
                f"{len(file.boxes)} classes of one image",
                where=str(label_path(file.path)),
                fix="leave one line, or write multiple: true into data.yaml",
            )
