"""VectorLabels on an Image: outlines as PolygonLabels draws them, also with curves. Only closed lines are learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.geometry import coordinates, vector_paths
from backend.geometry.vector_paths import Vertex
from backend.labelstudio import regions
from backend.labelstudio.regions import Item
from backend.labelstudio.tags import Result, Tag, polygonlabels
from backend.types import ControlTag, EmptyRegion, LabeledBox, Point, Prediction, Region, Ring

KIND = "vectorlabels"
_CONTROLS = ("controlPoint1", "controlPoint2")  # of the line before the point, and of the line after it


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's outlines as closed lines; it leaves out what `polygonlabels.encode` leaves out."""
    return tuple(
        regions.build(tag, prediction, key, row, {"vertices": _vertices(points), "closed": True, KIND: [label]})
        for row, label in regions.shown_rows(tag, prediction, classes, threshold)
        if (points := polygonlabels.points_of(prediction, row))
    )


def _vertices(points: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Return the points of a closed line, each with the id of the one before it."""
    return [
        {"id": f"p{place}", "prevPointId": f"p{(place or len(points)) - 1}", "x": x, "y": y, "isBezier": False}
        for place, (x, y) in enumerate(points)
    ]


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield the outline for each label of a closed line, or why a line or one of its labels is not learned."""
    yield from regions.read(tag, result, _shape)


def _shape(item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return what a closed line encloses, or what is wrong with it."""
    ring = ring_of(item["value"])
    if isinstance(ring, str):
        return ring
    inside = coordinates.clip_ring(ring)
    if not coordinates.ring_area(inside) > 0:
        return EmptyRegion("has no area inside the image")
    return LabeledBox("", coordinates.ring_hull(inside), outline=(ring,))


def ring_of(value: Item) -> Ring | str:
    """Return a closed line as shares of the image, its curves as straight lines, or what is wrong with it."""
    if value.get("closed") is not True:
        return "is a line that is not closed, and only closed lines are learned: click its first point to close it"
    vertices = _path(value.get("vertices"))
    return vertices if isinstance(vertices, str) else vector_paths.ring(vertices)


def _path(written: Any) -> list[Vertex] | str:
    """Return the points of a closed line in its order, or what is wrong with them."""
    items = written if isinstance(written, list) else []
    if len(items) < 2:
        return "has fewer than 2 points"
    vertices = [vertex for item in items if isinstance(item, Mapping) and (vertex := _vertex(item)) is not None]
    if len(vertices) < len(items):
        return "has points without usable numbers"
    names, before = ([regions.id_of(item.get(key)) for item in items] for key in ("id", "prevPointId"))
    if not any(before):  # as other programs may write it
        return vertices
    order = vector_paths.ordered(dict(zip(names, before, strict=True)))
    if order is None or len(order) < len(items):
        return "has branches, and only closed lines are learned"
    return [dict(zip(names, vertices, strict=True))[name] for name in order]


def _vertex(item: Mapping[str, Any]) -> Vertex | None:
    """Return a point with its control points, as shares of the image; None for one without usable numbers."""
    curved = [name for name in _CONTROLS if item.get("isBezier") is True and item.get(name) is not None]
    point, controls = _point(item), {name: _point(item[name]) for name in curved}
    if point is None or None in controls.values():
        return None
    return Vertex(point, *(controls.get(name) for name in _CONTROLS))


def _point(item: Any) -> Point | None:
    if not isinstance(item, Mapping):
        return None
    x, y = regions.number(item.get("x")) / 100, regions.number(item.get("y")) / 100
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None


TAG = Tag(
    name="VectorLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=polygonlabels.TAG.task,
    needs={"closable": ("true", "leaves lines open, and the model learns closed ones")},
)
