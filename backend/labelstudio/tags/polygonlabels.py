"""PolygonLabels on an Image: outlines of objects.

Label Studio's polygons are one ring each. An object of several parts, or with holes, is sent as one ring that runs
from part to part and back on the same line; an annotator makes one by putting the other polygons under the first in the
region tree (parentID), where parts inside one another are holes. A polygon with another label is an object of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio import ellipses, regions
from backend.labelstudio.tags import Result, Tag
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region, Ring

KIND = "polygonlabels"


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's outlines as polygons, in its order; boxes where the model knows no outlines.

    What is left out says `regions.shown`; also objects without an outline.
    """
    return tuple(
        regions.build(tag, prediction, key, row, {"points": points, "closed": True, KIND: [label]})
        for row, label in regions.shown(tag, prediction, classes, threshold)
        if (points := _points(prediction, row))
    )


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield an object's outline for each label of it, or why a polygon, or a label on it, is not learned."""
    items = list(result)
    mine = [item for item in items if item.get("from_name") == tag.from_name and item.get("type") == KIND]
    known = {_id(item): item for item in mine if _id(item)}
    roots = _roots({name: _above(item, known) for name, item in known.items()})
    tops = [_top(item, known, roots) for item in mine]
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for item, top in zip(mine, tops, strict=True):
        if top != _id(item):
            parts.setdefault(top, []).append(item)
    wholes = [item for item, top in zip(mine, tops, strict=True) if top == _id(item)]
    yield from regions.read(tag, wholes, partial(_shape, parts))
    yield from ellipses.read(tag, items)


def _points(prediction: Prediction, row: int) -> list[list[float]]:
    """Return an object's outline as one ring in percent, empty where nothing is seen."""
    rings = [tuple((float(x), float(y)) for x, y in ring) for ring in regions.rings(prediction, row)]
    size = np.array([prediction.width, prediction.height])
    ring = np.array(coordinates.bridged(rings), dtype=np.float64).reshape(-1, 2)
    points: list[list[float]] = (100 * ring / size).tolist()
    return points


def _id(item: Mapping[str, Any]) -> str:
    """Return the id of a region; imports have numbers, or none."""
    return regions.id_of(item.get("id"))


def _above(item: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the id of the polygon that an item is a part of, the one above it with its label; empty for none."""
    above = known.get(regions.id_of(item.get("parentID")))
    if above is None:
        return ""
    labels = regions.labels_of(above, KIND)
    return _id(above) if all(label in labels for label in regions.labels_of(item, KIND)) else ""


def _roots(parents: Mapping[str, str]) -> dict[str, str]:
    """Return the polygon at the top of the tree above each, of a circle the first by name; each is passed once."""
    roots: dict[str, str] = {}
    for name in parents:
        path: dict[str, int] = {}  # where each polygon stands in it
        while name and name not in path and name not in roots:
            path[name] = len(path)
            name = parents[name]
        if name in path:
            roots |= dict.fromkeys(path, min(list(path)[path[name] :]))
        else:
            roots |= dict.fromkeys(path, roots[name] if name else next(reversed(path)))
    return roots


def _top(item: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], roots: Mapping[str, str]) -> str:
    """Return the id of the polygon that an item is a part of, its own where it is none."""
    above = _above(item, known)
    return roots[above] if above else _id(item)


def _shape(parts: Mapping[str, list[Mapping[str, Any]]], item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return what a polygon and those under it enclose, or what is wrong with one of them."""
    rings: list[Ring] = []
    for each in (item, *parts.get(_id(item), ())):
        found = _ring(each.get("value"))
        if isinstance(found, str):
            return found if each is item else f"cannot be used: its part {regions.name_of(each)} {found}"
        rings.append(found)
    inside = [coordinates.clip_ring(ring) for ring in rings]
    if not any(coordinates.ring_area(ring) > 0 for ring in inside):
        return EmptyRegion("has no area inside the image")
    hull = coordinates.ring_hull(tuple(point for ring in inside for point in ring))
    return LabeledBox("", hull, outline=tuple(rings))


def _ring(value: Any) -> Ring | str:
    points = value.get("points") if isinstance(value, Mapping) else None
    if not isinstance(points, list) or len(points) < 3:
        return "has fewer than 3 points"
    ring = [[regions.number(each) / 100 for each in point] for point in points if isinstance(point, list)]
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
