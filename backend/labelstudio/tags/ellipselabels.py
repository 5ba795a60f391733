"""EllipseLabels on an Image: ellipses, which a model of boxes learns and answers as the boxes around them.

An ellipse also counts for another tag of the same image that has its label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio import regions
from backend.labelstudio.regions import Item
from backend.labelstudio.tags import Result, Tag, rectanglelabels
from backend.types import ControlTag, EmptyRegion, LabeledBox, Point, Prediction, Region, Ring

KIND = "ellipselabels"
BOXED = "ellipses learned as the boxes around them"
_POINTS = 64  # of an outline: it misses the ellipse by at most 0.12% of its radius


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return the ellipse in each box that `rectanglelabels.encode` answers, in its order."""
    boxes = rectanglelabels.encode(tag, prediction, classes, threshold, key)
    return tuple(replace(box, value=_inscribed(tag.kind, box)) for box in boxes)


def _inscribed(kind: str, box: Region) -> Mapping[str, Any]:
    """Return the region value of the ellipse in a box; a centre beyond the image, which is refused, moves to it."""
    value, size = box.value, np.array([box.original_width, box.original_height], dtype=np.float64)
    radii = np.array([value["width"], value["height"]]) / 2
    angle = math.radians(value["rotation"])
    across, down = radii * size
    offset = np.array(
        [across * math.cos(angle) - down * math.sin(angle), across * math.sin(angle) + down * math.cos(angle)]
    )
    x, y = np.minimum([value["x"], value["y"]] + offset / size, 100).tolist()
    return {
        **{"x": x, "y": y, "radiusX": float(radii[0]), "radiusY": float(radii[1]), "rotation": value["rotation"]},
        kind: value[rectanglelabels.KIND],
    }


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training label for each label of each ellipse of this tag, or why an ellipse gives none."""
    return regions.read(tag, result, partial(_shape, tag))


def lend(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training label for each label that an ellipse of another tag shares with `tag`."""
    return regions.read(tag, _shared(tag, result), partial(_shape, tag))


def _shared(tag: ControlTag, result: Result) -> Iterator[Item]:
    """Yield the ellipses that have labels of the tag, as if they were its own regions."""
    for item in result:
        others = item.get("type") == KIND and item.get("from_name") != tag.from_name
        if (
            others
            and item.get("to_name") == tag.to_name
            and (labels := [label for label in regions.labels_of(item, KIND) if label in tag.labels])
        ):
            yield {**item, "from_name": tag.from_name, "type": tag.kind, "value": item["value"] | {tag.kind: labels}}


def _shape(tag: ControlTag, item: Item) -> LabeledBox | EmptyRegion | str:
    """Return what an ellipse encloses; for a tag of rotated boxes, the rotated box around it."""
    value, size = item["value"], regions.image_size(item)
    names = ("x", "y", "radiusX", "radiusY", "rotation")
    x, y, *radii, rotation = (regions.number(value.get(name, 0 if name == "rotation" else None)) for name in names)
    if not all(map(math.isfinite, (x, y, *radii, rotation))):
        return "has no usable x, y, radiusX, radiusY or rotation"
    if size is None:
        return "does not carry original_width and original_height"
    ring = _ring((x, y), (radii[0], radii[1]), rotation, size, corners=tag.task == "obb")
    inside = coordinates.clip_ring(ring)
    if not (min(radii) > 0 and coordinates.ring_area(inside) > 0):
        return EmptyRegion("has no area inside the image")
    boxed = tag.task in ("detect", "obb")
    outline = () if tag.task == "detect" else (ring,)
    return LabeledBox("", coordinates.ring_hull(inside), outline=outline, note=BOXED if boxed else "")


def _ring(centre: Point, radii: Point, rotation: float, size: tuple[float, float], *, corners: bool) -> Ring:
    """Return the outline of an ellipse, or with `corners` the four corners around it, as shares of the image.

    `centre` and `radii` are in percent of the image, `rotation` in degrees, `size` in pixels. Label Studio turns an
    ellipse clockwise about its centre, in pixels.
    """
    around = np.linspace(0, 2 * math.pi, _POINTS, endpoint=False)
    unit = np.stack([np.cos(around), np.sin(around)], axis=1)
    if corners:
        unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    turned = (unit * radii * size) @ np.array([[cos, sin], [-sin, cos]]) / size
    return tuple((float(x), float(y)) for x, y in (turned + centre) / 100)


TAG = Tag(
    name="EllipseLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=rectanglelabels.task_of,
    lend=lend,
    elliptic=True,
    attributes=rectanglelabels.TAG.attributes,
)
