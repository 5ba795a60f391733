"""A COCO file (https://cocodataset.org/#format-data), also as Label Studio exports it -> images and labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ValidationError

from backend.datasets.reader import LabeledFile
from backend.errors import DataError
from backend.geometry.coordinates import clip_ring, ring_area, ring_hull
from backend.types import LabeledBox, Ring, YoloTask

TASKS: tuple[YoloTask, ...] = ("detect", "segment")


class _CategoryEntry(BaseModel):
    id: int
    name: str


class _ImageEntry(BaseModel):
    id: int
    file_name: str
    width: float
    height: float


class _ObjectEntry(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, object] = []


class _Document(BaseModel):
    categories: list[_CategoryEntry]
    images: list[_ImageEntry]
    annotations: list[_ObjectEntry]


@dataclass(frozen=True, slots=True)
class CocoData:
    """A data set without splits; `notes` says which images are left out and why."""

    classes: tuple[str, ...]
    files: tuple[LabeledFile, ...]
    notes: tuple[str, ...]


def read(path: Path, task: YoloTask) -> CocoData:
    """Read a COCO file. An image with an object that cannot be read is left out, because it would lack a label.

    Raises DataError naming the file and the cure where it is no COCO file, or holds no labels of such a model.
    """
    if task not in TASKS:
        raise DataError(f"a COCO file is read for boxes and outlines, not for a {task} model", where=str(path))
    try:
        document = _Document.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except (ValueError, ValidationError) as error:
        reason = str(error).partition("\n")[0]
        fix = "name the .json file with the keys images, annotations and categories"
        raise DataError(f"not a COCO file: {reason}", where=str(path), fix=fix) from None
    names = {category.id: category.name for category in document.categories}
    objects: dict[int, list[_ObjectEntry]] = {}
    for annotation in document.annotations:
        objects.setdefault(annotation.image_id, []).append(annotation)
    files, notes = [], list[str]()
    for image in document.images:
        try:
            file = _file(path.parent, image.file_name)
            boxes = tuple(_boxes(image, objects.get(image.id, []), names, task))
        except DataError as error:
            notes.append(str(error))
        else:
            files.append(LabeledFile(file, boxes))
    return CocoData(tuple(names.values()), tuple(files), tuple(notes))


def _file(folder: Path, name: str) -> Path:
    """Return the file of an image: beside the document, else in a folder `images`, by its whole or its last name."""
    plain = name.replace("\\", "/")
    last = PurePosixPath(plain).name
    for candidate in (folder / plain, folder / last, folder / "images" / plain, folder / "images" / last):
        if candidate.is_file() and candidate.resolve().is_relative_to(folder.resolve()):
            return candidate
    raise DataError("the image is missing, so it is left out", where=name, fix=f"put it into {folder / 'images'}")


def _boxes(
    image: _ImageEntry, annotations: list[_ObjectEntry], names: dict[int, str], task: YoloTask
) -> Iterator[LabeledBox]:
    """Yield the labels of an image. Raises DataError for an object that cannot be read."""
    if not (image.width > 0 and image.height > 0):
        raise DataError("its width or height is not above 0, so the image is left out", where=image.file_name)
    for annotation in annotations:
        label = names.get(annotation.category_id)
        if label is None:
            problem = f"an object has the category {annotation.category_id}, which the file lacks"
            raise DataError(f"{problem}; the image is left out", where=image.file_name)
        rings = [clip_ring(ring) for ring in _rings(image, annotation, task)]
        rings = [ring for ring in rings if ring_area(ring) > 0]
        if rings:  # an object without area inside the image shows nothing
            hull = ring_hull(tuple(point for ring in rings for point in ring))
            yield LabeledBox(label, hull, outline=tuple(rings) if task == "segment" else ())


def _rings(image: _ImageEntry, annotation: _ObjectEntry, task: YoloTask) -> Iterator[Ring]:
    """Yield the outlines of an object, or its box as a ring, as shares of the image."""
    if task == "segment" and annotation.segmentation:
        if isinstance(annotation.segmentation, dict):
            problem = "an object is a mask in run lengths, which is not read; the image is left out"
            raise DataError(problem, where=image.file_name, fix="export polygons instead")
        for numbers in annotation.segmentation:
            pairs = zip(numbers[::2], numbers[1::2], strict=False)
            yield tuple((x / image.width, y / image.height) for x, y in pairs)
        return
    x, y, width, height = annotation.bbox
    left, top, right, bottom = x / image.width, y / image.height, (x + width) / image.width, (y + height) / image.height
    yield ((left, top), (right, top), (right, bottom), (left, bottom))
