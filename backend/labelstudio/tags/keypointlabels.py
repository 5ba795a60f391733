"""KeyPointLabels on an Image: the points of a skeleton, each under the box of its object.

The boxes are regions of the RectangleLabels `tag.parent`. The parentID of a point is the id of its box. Without such a
tag, the box of an object is the padded hull of its points, and the parentID of its points is the id of its first one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio import loose_points, regions
from backend.labelstudio.label_xml import FALSE, TRUE, is_true
from backend.labelstudio.tags import Result, Tag, rectanglelabels
from backend.types import ControlTag, EmptyRegion, Keypoint, LabeledBox, Prediction, Region

KIND = "keypointlabels"
Item = Mapping[str, Any]
_ABSENT: Keypoint = (0.0, 0.0, 0)
_NOWHERE = (-1.0, -1.0, 0.0, 0.0)  # a box that holds no point


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return each object as its box and one region per visible point, in the order of `tag.points`.

    It leaves out what `regions.shown_rows` leaves out, points under model_point_threshold (default 0), points outside
    the image, and the boxes where model_add_bboxes is "false".
    """
    parent = _parent(tag)
    boxes = coordinates.percent_boxes(prediction) if len(prediction.boxes) else np.zeros((0, 4))
    encoded: list[Region] = []
    for row, label in regions.shown_rows(tag, prediction, classes, threshold):
        x, y, width, height = boxes[row].tolist()
        value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, parent.kind: [label]}
        box = regions.build(parent, prediction, key, row, value)
        if tag.parent:
            shows_box = is_true(tag.attributes, "model_add_bboxes", default=True)
            encoded += [box] if shows_box else []
            encoded += _points(tag, prediction, row, box, box.id if shows_box else "")
        else:
            encoded += _tied(list(_points(tag, prediction, row, box, "")))
    return tuple(encoded)


def _tied(points: Sequence[Region]) -> list[Region]:
    """Return the points of one object, all others under the first one in the region tree."""
    return [point if index == 0 else replace(point, parent_id=points[0].id) for index, point in enumerate(points)]


def _points(tag: ControlTag, prediction: Prediction, row: int, box: Region, parent_id: str) -> Iterator[Region]:
    if prediction.keypoints is None or prediction.keypoints.shape[1] != len(tag.points):
        return  # a model of another skeleton
    least = regions.setting(tag, "model_point_threshold", 0.0)
    # Label Studio refuses a point wider than 100 percent.
    size = min(100 * regions.setting(tag, "model_point_size", 1.0) / prediction.width, 100.0)
    scale = (prediction.width, prediction.height)
    for index, (x, y, visibility) in enumerate(prediction.keypoints[row].astype(np.float64).tolist()):
        across, down = 100 * x / scale[0], 100 * y / scale[1]
        if visibility >= least and 0 <= across <= 100 and 0 <= down <= 100:
            value = {"x": across, "y": down, "width": size, KIND: [tag.points[index]]}
            point_id = regions.region_id(box.id, tag.from_name, index)
            point = replace(box, id=point_id, kind=KIND, from_name=tag.from_name, value=value, parent_id=parent_id)
            yield replace(point, score=float(visibility))


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield boxes with the points under them, in the order of `tag.points`, or why a point or its box is not learned.

    Points are clipped to the image. A hidden point counts as covered, a missing point as not labeled.
    """
    items = list(result)
    points = [item for item in items if item.get("from_name") == tag.from_name and item.get("type") == KIND]
    yield from _with_boxes(tag, points, items) if tag.parent else _without_boxes(tag, points)


def _with_boxes(
    tag: ControlTag, points: Sequence[Item], items: Sequence[Item]
) -> Iterator[LabeledBox | EmptyRegion | str]:
    boxes, parent = _boxes(tag, items), _parent(tag)
    under: dict[int, list[Item]] = {}
    for item, holder in zip(points, _holders(tag, points, boxes), strict=True):
        if holder is None:
            yield f"{regions.name_of(item)} is a point without a box: put it under one in the region tree"
        else:
            under.setdefault(holder, []).append(item)
    for index, box in enumerate(boxes):
        skeleton, reasons = _skeleton(tag, under.get(index, ()))
        yield from reasons
        for part in rectanglelabels.read(parent, [box]):
            yield replace(part, keypoints=skeleton) if isinstance(part, LabeledBox) else part


def _boxes(tag: ControlTag, items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.get("from_name") == tag.parent and item.get("type") == rectanglelabels.KIND]


def _holders(tag: ControlTag, points: Sequence[Item], boxes: Sequence[Item]) -> list[int | None]:
    """Return the index of each point's box: the one above it in the region tree, else the only one that holds it."""
    readings = [rectanglelabels.read(_parent(tag), [box]) for box in boxes]
    places = [next((part.xywh for part in parts if isinstance(part, LabeledBox)), _NOWHERE) for parts in readings]
    index_of = {regions.id_of(item.get("id")): index for index, item in enumerate(boxes) if item.get("id")}
    above = [index_of.get(regions.id_of(item.get("parentID"))) for item in points]
    holding = loose_points.holders([item for item, index in zip(points, above, strict=True) if index is None], places)
    return [next(holding) if index is None else index for index in above]


def tied(tag: ControlTag, result: Sequence[Item]) -> list[Item]:
    """Return a result in which each point of the tag is under the region of its object, where that can be known.

    Points without a box are under the first point of their object.
    """
    points = [item for item in result if item.get("from_name") == tag.from_name and item.get("type") == KIND]
    if tag.parent:
        boxes = _boxes(tag, result)
        tops = {
            id(item): boxes[holder].get("id")
            for item, holder in zip(points, _holders(tag, points, boxes), strict=True)
            if holder is not None
        }
    else:
        groups, _ = loose_points.objects(points)
        tops = {id(item): group[0].get("id") for group in groups for item in group[1:]}
    return [{**item, "parentID": tops[id(item)]} if id(item) in tops else item for item in result]


def _without_boxes(tag: ControlTag, points: Sequence[Item]) -> Iterator[LabeledBox | str]:
    groups, loose = loose_points.objects(points)
    for item in loose:
        yield f"{regions.name_of(item)} is a point of no object: put it under a point of its object in the region tree"
    for group in groups:
        skeleton, reasons = _skeleton(tag, group)
        yield from reasons
        if labeled := [point for point in skeleton if point != _ABSENT]:
            size = regions.image_size(group[0]) or (1.0, 1.0)
            yield LabeledBox(tag.labels[0], loose_points.box(labeled, *size), keypoints=skeleton)


def _skeleton(tag: ControlTag, group: Sequence[Item]) -> tuple[tuple[Keypoint, ...], list[str]]:
    """Return the points of one object in the order of `tag.points`, and why some cannot be used."""
    points = [_ABSENT] * len(tag.points)
    reasons = [f"{regions.name_of(item)} {reason}" for item in group if (reason := _place(tag, item, points))]
    return tuple(points), reasons


def _parent(tag: ControlTag) -> ControlTag:
    return replace(tag, kind=rectanglelabels.KIND, from_name=tag.parent, task="detect")


def _place(tag: ControlTag, item: Mapping[str, Any], points: list[Keypoint]) -> str:
    """Put a point into `points` at the index of each of its labels; return why it cannot be used, empty if it can."""
    labels = regions.labels_of(item, KIND)
    if not labels:
        return "has no label"
    x, y = (regions.number(item["value"].get(name)) / 100 for name in ("x", "y"))
    if not (math.isfinite(x) and math.isfinite(y)):
        return "has no usable x or y"
    place = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0), 1 if item.get("hidden") is True else 2
    for label in labels:
        if not isinstance(label, str) or label not in tag.points:
            return regions.unknown_label(label)
        index = tag.points.index(label)
        if points[index] != _ABSENT:
            return f"is a second {label!r} of one object"
        points[index] = place
    return ""


TAG = Tag(
    name="KeyPointLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=lambda _: "pose",
    attributes={"model_add_bboxes": (*TRUE, *FALSE)},
    numbers={"model_point_threshold": 1, "model_point_size": 100},
)
