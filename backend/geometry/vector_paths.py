"""The closed lines that Label Studio's Vector draws: points joined by straight lines or by Bezier curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from backend.types import Point, Ring

_STEPS = 16  # straight lines per curve
_SHARE = 0.3  # of a line's length: where the editor puts the control point of an end that has none


@dataclass(frozen=True, slots=True)
class Vertex:
    """A point of a line; a point of a curve also has the control points of the lines before and after it."""

    point: Point
    before: Point | None = None
    after: Point | None = None


def ring(vertices: Sequence[Vertex]) -> Ring:
    """Return a closed line as a ring of straight lines, as Label Studio's editor draws it.

    >>> ring([Vertex((0.0, 0.0)), Vertex((1.0, 0.0)), Vertex((1.0, 1.0))])
    ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    >>> curved = ring([Vertex((0.0, 0.0), after=(0.0, 1.0)), Vertex((1.0, 0.0), before=(1.0, 1.0))])
    >>> len(curved), curved[8]
    (17, (0.5, 0.75))
    """
    pairs = zip(vertices, [*vertices[1:], *vertices[:1]], strict=True)
    return tuple(point for start, end in pairs for point in _line(start, end))


def ordered(before: Mapping[str, str]) -> list[str] | None:
    """Return the ids of a line's points in its order, from the id of each point's predecessor; the first may have none.

    The result is None if the points are not one line, as where a line has branches.

    >>> ordered({"b": "a", "a": "c", "c": "b"}), ordered({"b": "a", "a": ""}), ordered({"b": "a", "a": "", "c": "a"})
    (['b', 'c', 'a'], ['a', 'b'], None)
    """
    after = {start: end for end, start in before.items()}
    name: str | None = next((end for end, start in before.items() if start not in before), next(iter(before)))
    path: dict[str, None] = {}
    while name is not None and name not in path:
        path[name] = None
        name = after.get(name)
    return list(path) if len(path) == len(before) else None


def _line(start: Vertex, end: Vertex) -> Ring:
    """Return the points of a line or curve without its last one."""
    if start.after is None and end.before is None:
        return (start.point,)
    first = start.after or _between(start.point, end.point, _SHARE)
    second = end.before or _between(end.point, start.point, _SHARE)
    points = (start.point, first, second, end.point)
    return tuple(_on_curve(points, step / _STEPS) for step in range(_STEPS))


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _on_curve(points: Sequence[Point], share: float) -> Point:
    """Return the point of a curve at a share of its way (de Casteljau)."""
    while len(points) > 1:
        points = [_between(start, end, share) for start, end in pairwise(points)]
    return points[0]
