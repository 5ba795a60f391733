"""PolygonLabels on an Image: outlines of objects.

A polygon of Label Studio is one ring. We send an object of several parts, or with holes, as one ring that runs from
part to part and back on the same line. An annotator makes such an object by putting the other polygons under the first
one in the region tree (parentID); a part inside another part is a hole. A polygon with another label is an object of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio import region_tree, regions
from backend.labelstudio.tags import Result, Tag
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region, Ring

KIND = "polygonlabels"


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's outlines as polygons, in its order; boxes where the model predicts no outlines.

    It leaves out what `regions.shown_rows` leaves out, and objects without an outline.
    """
    return tuple(
        regions.build(tag, prediction, key, row, {"points": points, "closed": True, KIND: [label]})
        for row, label in regions.shown_rows(tag, prediction, classes, threshold)
        if (points := points_of(prediction, row))
    )


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield an object's outline for each of its labels, or why a polygon or one of its labels is not learned."""
    items = list(result)
    polygons = [item for item in items if item.get("from_name") == tag.from_name and item.get("type") == KIND]
    by_id = {_id(item): item for item in polygons if _id(item)}
    roots = region_tree.roots({name: _above(item, by_id) for name, item in by_id.items()})
    tops = [_top(item, by_id, roots) for item in polygons]
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for item, top in zip(polygons, tops, strict=True):
        if top != _id(item):
            parts.setdefault(top, []).append(item)
    wholes = [item for item, top in zip(polygons, tops, strict=True) if top == _id(item)]
    yield from regions.read(tag, wholes, partial(_shape, parts))


def points_of(prediction: Prediction, row: int) -> list[list[float]]:
    """Return an object's outline as one ring in percent of the image, empty where it has no outline."""
    rings = [tuple((float(x), float(y)) for x, y in ring) for ring in regions.rings(prediction, row)]
    size = np.array([prediction.width, prediction.height])
    ring = np.array(coordinates.bridged(rings), dtype=np.float64).reshape(-1, 2)
    points: list[list[float]] = (100 * ring / size).tolist()
    return points


def _id(item: Mapping[str, Any]) -> str:
    """Return the id of a region; imports have numbers, or none."""
    return regions.id_of(item.get("id"))


def _above(item: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the id of the polygon above an item in the region tree, if it has the item's labels; else empty."""
    above = by_id.get(regions.id_of(item.get("parentID")))
    if above is None:
        return ""
    labels = regions.labels_of(above, KIND)
    return _id(above) if all(label in labels for label in regions.labels_of(item, KIND)) else ""


def _top(item: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]], roots: Mapping[str, str]) -> str:
    """Return the id of the polygon that an item is a part of, or its own id where it is a whole object."""
    above = _above(item, by_id)
    return roots[above] if above else _id(item)


def _shape(parts: Mapping[str, list[Mapping[str, Any]]], item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return what a polygon and the polygons under it enclose, or what is wrong with one of them."""
    rings: list[Ring] = []
    for part in (item, *parts.get(_id(item), ())):
        ring_or_reason = _ring(part.get("value"))
        if isinstance(ring_or_reason, str):
            return (
                ring_or_reason if part is item else f"cannot be used: its part {regions.name_of(part)} {ring_or_reason}"
            )
        rings.append(ring_or_reason)
    inside = [coordinates.clip_ring(ring) for ring in rings]
    if not any(coordinates.ring_area(ring) > 0 for ring in inside):
        return EmptyRegion("has no area inside the image")
    hull = coordinates.ring_hull(tuple(point for ring in inside for point in ring))
    return LabeledBox("", hull, outline=tuple(rings))


def _ring(value: Any) -> Ring | str:
    points = value.get("points") if isinstance(value, Mapping) else None
    if not isinstance(points, list) or len(points) < 3:
        return "has fewer than 3 points"
    ring = [[regions.number(number) / 100 for number in point] for point in points if isinstance(point, list)]
    if len(ring) < len(points) or not all(len(point) == 2 and all(map(math.isfinite, point)) for point in ring):
        return "has points that are not two numbers"
    return tuple((x, y) for x, y in ring)


TAG = Tag(
    name="PolygonLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=lambda _: "segment",
)
