"""The scripted annotator, which labels tasks with the true labels of a data set."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from backend.datasets.reader import LabeledFile
from backend.errors import NotFoundError
from backend.geometry import coordinates
from backend.labelstudio import task_fields
from backend.types import ControlTag, Json, Keypoint, LabeledBox, Task
from backend.yolo.decoding import smallest_rectangle

Size = tuple[int, int]
_EXCHANGED = 5  # lowest EXIF orientation that exchanges width and height


class Oracle:
    """True labels by image file name."""

    def __init__(self, files: Iterable[LabeledFile]) -> None:
        self._files = {file.path.name: file for file in files}

    def answer(self, tag: ControlTag, task: Task) -> list[Json]:
        """Return the annotation result with the true labels of `task`."""
        return annotated(tag, self._file(tag, task))

    def boxes(self, tag: ControlTag, task: Task) -> tuple[LabeledBox, ...]:
        """Return the true labels of a task."""
        return self._file(tag, task).boxes

    def _file(self, tag: ControlTag, task: Task) -> LabeledFile:
        """Return the file of a task; Label Studio puts "<8 hex digits>-" before an uploaded file's name."""
        uploaded = PurePosixPath(str(task_fields.shown(task, tag.data_key))).name
        name = uploaded if uploaded in self._files else uploaded.partition("-")[2]
        if name not in self._files:
            raise NotFoundError(f"no true labels are known for {uploaded}", where=f"task {task.id}")
        return self._files[name]


def annotated(tag: ControlTag, file: LabeledFile) -> list[Json]:
    """Return the annotation result with the true labels of an image; for rotated boxes the image is opened."""
    return as_result(tag, file.boxes, upright_size(file.path) if tag.task == "obb" else None)


def as_result(tag: ControlTag, boxes: Iterable[LabeledBox], size: Size | None = None) -> list[Json]:
    """Return labels as regions in the format of Label Studio's editor, with coordinates in percent.

    Rotated boxes need `size`, width and height of the image, because Label Studio rotates in pixels.
    """
    if tag.task == "classify":
        chosen = [box.label for box in boxes]
        return [_region(tag, {tag.kind: chosen})] if chosen else []
    if tag.task == "pose":
        return [region for box in boxes for region in _with_points(tag, box)]
    size_fields = {} if size is None else {"original_width": size[0], "original_height": size[1]}
    return [_region(tag, _value(tag, box, size) | {tag.kind: [box.label]}) | size_fields for box in boxes]


def _value(tag: ControlTag, box: LabeledBox, size: Size | None) -> dict[str, Any]:
    if tag.task == "obb" and size:
        return _turned(box, size)
    if tag.task == "segment":
        return {"points": [[100 * x, 100 * y] for x, y in coordinates.bridged(box.outline)], "closed": True}
    return _upright(box)


def _upright(box: LabeledBox) -> dict[str, Any]:
    x, y, width, height = coordinates.normalised_to_percent(box.xywh)
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0}


def _turned(box: LabeledBox, size: Size) -> dict[str, Any]:
    """Return the smallest rectangle around the corners, because Label Studio has no other quadrilaterals."""
    rotated = smallest_rectangle(np.array(box.outline[0]) * size).astype(np.float64)
    x, y = 100 * coordinates.corners_of(rotated)[0, 0] / size
    width, height = 100 * rotated[2:4] / size
    return {"x": x, "y": y, "width": width, "height": height, "rotation": math.degrees(rotated[4])}


def _with_points(tag: ControlTag, box: LabeledBox) -> list[Json]:
    """Return the region of an object's box, and those of its labeled points as its children."""
    parent = _region(tag, _upright(box) | {"rectanglelabels": [box.label]})
    parent |= {"type": "rectanglelabels", "from_name": tag.parent}
    points = zip(tag.points, box.keypoints, strict=True)
    return [parent, *(_point(tag, parent["id"], *named_point) for named_point in points if named_point[1][2])]


def _point(tag: ControlTag, parent: str, name: str, point: Keypoint) -> Json:
    x, y, visibility = point
    region = _region(tag, {"x": 100 * x, "y": 100 * y, "width": 1, tag.kind: [name]})
    return region | {"parentID": parent, "hidden": visibility == 1}


def _region(tag: ControlTag, value: Mapping[str, Any]) -> Json:
    return {
        "id": uuid.uuid4().hex[:10],
        "type": tag.kind,
        "from_name": tag.from_name,
        "to_name": tag.to_name,
        "value": dict(value),
        "origin": "manual",
    }


def upright_size(path: Path) -> Size:
    """Return width and height of an image in its EXIF orientation."""
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= _EXCHANGED
    return (height, width) if turned else (width, height)
