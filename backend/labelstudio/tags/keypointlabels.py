"""KeyPointLabels on an Image: the points of a skeleton, each under the box of its object.

The boxes are regions of the RectangleLabels `tag.parent`. The parentID of a point is the id of its box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio import regions
from backend.labelstudio.label_xml import FALSE, TRUE, is_true
from backend.labelstudio.tags import Result, Tag, rectanglelabels
from backend.types import ControlTag, EmptyRegion, Keypoint, LabeledBox, Prediction, Region

KIND = "keypointlabels"
_ABSENT: Keypoint = (0.0, 0.0, 0)


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
        shows_box = is_true(tag.attributes, "model_add_bboxes", default=True)
        encoded += [box] if shows_box else []
        encoded += _points(tag, prediction, row, box, box.id if shows_box else "")
    return tuple(encoded)


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
    parent = _parent(tag)
    items = list(result)
    boxes = [item for item in items if item.get("from_name") == tag.parent and item.get("type") == parent.kind]
    box_ids = {regions.id_of(item.get("id")) for item in boxes} - {""}
    under: dict[str, list[Keypoint]] = {}
    for item in items:
        if item.get("from_name") != tag.from_name or item.get("type") != KIND:
            continue
        above = regions.id_of(item.get("parentID"))
        if above not in box_ids:
            yield f"{regions.name_of(item)} is a point without a box: put it under one in the region tree"
            continue
        points = under.setdefault(above, [_ABSENT] * len(tag.points))
        if reason := _place(tag, item, points):
            yield f"{regions.name_of(item)} {reason}"
    for item in boxes:
        points = under.get(regions.id_of(item.get("id")), [_ABSENT] * len(tag.points))
        for box_or_reason in rectanglelabels.read(parent, [item]):
            yield (
                replace(box_or_reason, keypoints=tuple(points))
                if isinstance(box_or_reason, LabeledBox)
                else box_or_reason
            )


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
            return f"is a second {label!r} of one box"
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
