"""Regions of Label Studio as SVG shapes over a picture, in percent of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labelstudio.regions import id_of
from backend.types import Json

_LABELS = "labels"  # the type of the entry that names a shape, where that has no labels of its own


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape over a picture: the points of a closed line in percent of it, its label, and its confidence."""

    points: str  # for <polygon points="...">
    label: str
    colour: str
    score: float | None = None  # None: a person drew it
    kind: str = ""  # "annotator" or "model", where both are shown; it becomes a CSS class


@dataclass(frozen=True, slots=True)
class Overlay:
    """The shapes of a task, and the labels that belong to the whole picture."""

    shapes: tuple[Shape, ...]
    whole: tuple[str, ...]  # choices


def overlay(result: Sequence[Json], colours: Mapping[str, str], kind: str = "") -> Overlay:
    """Return what Label Studio's `result` draws on a picture; what cannot be drawn is left out.

    Rectangles, polygons, ellipses and key points are drawn; a mask is not, because its pixels are run-length encoded.
    """
    shapes: list[Shape] = []
    whole: list[str] = []
    named = {id_of(region.get("id")) for region in result if region.get("type") == _LABELS} - {""}
    for region in result:
        value, region_kind = region.get("value", {}), str(region.get("type", ""))
        if region_kind != _LABELS and id_of(region.get("id")) in named:
            continue  # the entry with the labels has the shape too
        if region_kind in ("choices", "taxonomy"):
            whole += _texts(value.get(region_kind, ()))
            continue
        label = ", ".join(_texts(value.get(region_kind, ())))
        points = _points(value, _aspect(region))
        if points:
            score = region.get("score")
            text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
            shapes.append(Shape(text, label, colours.get(label, "#888888"), score, kind))
    return Overlay(tuple(shapes), tuple(whole))


def box(percent: Sequence[float], label: str, colour: str, *, kind: str = "", score: float | None = None) -> Shape:
    """Return a box (left, top, right, bottom) in percent as a shape."""
    left, top, right, bottom = percent
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Shape(" ".join(f"{x:.2f},{y:.2f}" for x, y in corners), label, colour, score, kind)


def _aspect(region: Json) -> float:
    """Return the height of the picture divided by its width; 1 where the region does not tell."""
    width, height = region.get("original_width"), region.get("original_height")
    return height / width if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0 else 1.0


def _points(value: Mapping[str, Any], aspect: float) -> list[tuple[float, float]]:
    try:
        if "points" in value:
            return [(float(x), float(y)) for x, y in value["points"]]
        x, y, turn = float(value["x"]), float(value["y"]), math.radians(float(value.get("rotation", 0)))
        if "radiusX" in value:
            a, b = float(value["radiusX"]), float(value["radiusY"])
            steps = [2 * math.pi * step / 24 for step in range(24)]
            return _turned(x, y, [(a * math.cos(step), b * math.sin(step)) for step in steps], turn, aspect)
        if "height" in value:
            width, height = float(value["width"]), float(value["height"])
            return _turned(x, y, [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)], turn, aspect)
        half = max(float(value.get("width", 1.0)), 1.0)  # a key point
        return _turned(x, y, [(-half, 0.0), (0.0, -half), (half, 0.0), (0.0, half)], 0.0, aspect)
    except (KeyError, TypeError, ValueError):  # not a region that is drawn on a picture
        return []


def _turned(
    x: float, y: float, offsets: Sequence[tuple[float, float]], turn: float, aspect: float
) -> list[tuple[float, float]]:
    """Return the points at `offsets` from (x, y), turned in pixels as Label Studio turns a region; all in percent."""
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x + dx * cos - dy * aspect * sin, y + dx * sin / aspect + dy * cos) for dx, dy in offsets]


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list | tuple):
        return []
    return [" / ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
