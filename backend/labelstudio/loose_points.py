"""The objects of key points without boxes: which points belong together, and the box around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.geometry import coordinates
from backend.labelstudio import region_tree, regions
from backend.types import Keypoint

OBJECT = "object"  # the label of all objects, because no region says another one
PADDING = 0.1  # the box is wider than the hull of its points by this share of the hull's longer side, on each side
LEAST_PADDING = 0.02  # and at least by this share of the image's longer side: a single point has no hull

Item = Mapping[str, Any]


def objects(points: Sequence[Item]) -> tuple[list[list[Item]], list[Item]]:
    """Return the points of each object, and the points of which nobody can say to which object they belong.

    Points under one region of the region tree are one object, together with that region if it is a point. All other
    points are one object with them, unless there are several such objects.
    """
    ids = {regions.id_of(item.get("id")) for item in points} - {""}
    above = {
        regions.id_of(item.get("id")): parent if (parent := regions.id_of(item.get("parentID"))) in ids else ""
        for item in points
    }
    tops = region_tree.roots({name: parent for name, parent in above.items() if name})
    parents = {regions.id_of(item.get("parentID")) for item in points} - {""}
    by_top: dict[str, list[Item]] = {}
    loose: list[Item] = []
    for item in points:
        parent = regions.id_of(item.get("parentID"))
        top = tops.get(regions.id_of(item.get("id")), "")
        if parent and parent not in ids:
            by_top.setdefault(parent, []).append(item)  # under a region of another control tag
        elif top and (parent or top in parents):
            by_top.setdefault(top, []).append(item)
        else:
            loose.append(item)
    if len(by_top) > 1 or not loose:
        return list(by_top.values()), loose
    return [[*next(iter(by_top.values()), []), *loose]], []


def box(points: Sequence[Keypoint], width: float, height: float) -> coordinates.Box:
    """Return the padded box (x centre, y centre, width, height) around points in an image, all as shares of its size.

    >>> [round(share, 3) for share in box([(0.25, 0.5, 2), (0.75, 0.5, 2)], 100, 100)]
    [0.5, 0.5, 0.6, 0.1]
    """
    x, y, wide, high = coordinates.ring_hull(tuple((across, down) for across, down, _ in points))
    padding = max(PADDING * max(wide * width, high * height), LEAST_PADDING * max(width, height))
    corners = (x - wide / 2 - padding / width, y - high / 2 - padding / height)
    ends = (x + wide / 2 + padding / width, y + high / 2 + padding / height)
    (left, top), (right, bottom) = (tuple(min(max(value, 0.0), 1.0) for value in point) for point in (corners, ends))
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def holders(points: Sequence[Item], boxes: Sequence[coordinates.Box]) -> Iterator[int | None]:
    """Yield the index of the only box that holds each point, None if none or several do; boxes are shares of the image.

    It compares all points with all boxes; only points without a box above them in the region tree are looked at.
    """
    for item in points:
        value = item.get("value")
        x, y = (regions.number(value.get(name) if isinstance(value, Mapping) else None) / 100 for name in ("x", "y"))
        holding = [
            index
            for index, (across, down, wide, high) in enumerate(boxes)
            if abs(x - across) <= wide / 2 and abs(y - down) <= high / 2
        ]
        yield holding[0] if len(holding) == 1 else None
