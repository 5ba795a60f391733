"""RectangleLabels on an Image: upright boxes with a label, or rotated ones where the tag says model_obb="true"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio import regions
from backend.labelstudio.label_xml import FALSE, TRUE, is_true
from backend.labelstudio.tags import Result, Tag
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region, YoloTask

KIND = "rectanglelabels"
TURNED = 'turned boxes learned as the upright boxes around them; model_obb="true" would learn their angle'


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's boxes as regions, in its order; upright ones are clipped to the image.

    It leaves out what `regions.shown_rows` leaves out, and rotated boxes without area inside the image.
    """
    rows = regions.shown_rows(tag, prediction, classes, threshold)
    if tag.task == "obb" and prediction.rotated is not None:
        turned = [(row, _rotated_value(prediction, row, label)) for row, label in rows]
        return tuple(regions.build(tag, prediction, key, row, value) for row, value in turned if value)
    percent = coordinates.percent_boxes(prediction)
    return tuple(
        regions.build(tag, prediction, key, row, _value(percent[row].tolist(), 0, label)) for row, label in rows
    )


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training box for each label of each region of this tag, or why a region gives none.

    Boxes are clipped to the image. A rotated region becomes the upright box around it, with its corners as the outline
    where the tag learns more than upright boxes.
    """
    yield from regions.read(tag, result, partial(_shape, tag.task != "detect"))


def upright(item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return the upright box around a region inside the image, or what is wrong with the region."""
    return _shape(False, item)


def _value(percent: Sequence[float], rotation: float, label: str) -> dict[str, Any]:
    x, y, width, height = percent
    return {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, KIND: [label]}


def _rotated_value(prediction: Prediction, row: int, label: str) -> dict[str, Any]:
    """Return the region value of a rotated box; empty where nothing of it is inside the image.

    Label Studio stores x and y of the top-left corner after the rotation, and width and height before it. It refuses
    predictions with x, y, width or height above 100. We may call any of the four corners the top-left one. A box for
    which no corner fits is cut to what is inside the image.
    """
    assert prediction.rotated is not None
    rotated = prediction.rotated[row].astype(np.float64)
    size = np.array([prediction.width, prediction.height], dtype=np.float64)
    ring = coordinates.clip_ring(tuple((float(x), float(y)) for x, y in coordinates.corners_of(rotated)[0] / size))
    if not coordinates.ring_area(ring) > 0:
        return {}
    for box in (rotated, _cut(rotated, np.array(ring) * size, size)):
        for x, y, width, height, angle in _turns(box):
            corner = 100 * coordinates.corners_of([x, y, width, height, angle])[0, 0] / size
            percent = [*corner.tolist(), *(100 * np.array([width, height]) / size).tolist()]
            if max(percent) <= 100:
                return _value(percent, math.degrees(angle) % 360, label)
    return _value(coordinates.normalised_to_percent(coordinates.ring_hull(ring)), 0, label)


def _turns(rotated: coordinates.Boxes) -> Iterator[tuple[float, float, float, float, float]]:
    """Yield a rotated box (5,) four times, each time with another corner as its top-left one."""
    x, y, width, height, angle = rotated.tolist()
    for turn in range(4):
        yield x, y, *((height, width) if turn % 2 else (width, height)), angle + turn * math.pi / 2


def _cut(rotated: coordinates.Boxes, inside: coordinates.Boxes, size: coordinates.Boxes) -> coordinates.Boxes:
    """Return the box (5,) at the same angle around the points `inside` (k, 2); no side is longer than the image's."""
    angle = float(rotated[4])
    axes = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    low, high = (inside @ axes.T).min(axis=0), (inside @ axes.T).max(axis=0)
    sides = max((np.minimum(high - low, limit) for limit in (size, size[::-1])), key=np.prod)
    return np.array([*((low + high) / 2 @ axes), *sides, angle])


def _shape(keep_corners: bool, item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return what a region encloses inside the image, or what is wrong with it."""
    box_and_rotation = regions.percent_box(item["value"])
    if box_and_rotation is None:
        return "has no usable x, y, width, height or rotation"
    box, rotation = box_and_rotation
    size = regions.image_size(item)
    if rotation % 360 and size is None:
        return "is rotated but does not carry original_width and original_height"
    if keep_corners:
        return _rotated(box, rotation, size or (1.0, 1.0))
    if rotation % 360 and size is not None:
        box = coordinates.rotated_hull(box, rotation, *size)
    box = coordinates.clip_percent(box)
    if not (box[2] > 0 and box[3] > 0):
        return EmptyRegion("has no area inside the image")
    return LabeledBox("", coordinates.percent_to_normalised(box), note=TURNED if rotation % 90 else "")


def _rotated(box: coordinates.Box, rotation: float, size: tuple[float, float]) -> LabeledBox | EmptyRegion:
    corners = coordinates.rotated_corners(box, rotation, *size)
    inside = coordinates.clip_ring(corners)
    if not (box[2] > 0 and box[3] > 0 and coordinates.ring_area(inside) > 0):
        return EmptyRegion("has no area inside the image")
    return LabeledBox("", coordinates.ring_hull(inside), outline=(corners,))


def task_of(attributes: Mapping[str, str]) -> YoloTask:
    """Return the task of a tag's models: "obb" for one that learns angles."""
    return "obb" if is_true(attributes, "model_obb", default=False) else "detect"


TAG = Tag(
    name="RectangleLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=task_of,
    attributes={"model_obb": (*FALSE, *TRUE)},
)
