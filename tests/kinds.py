"""Every kind of control tag: its label config, images, and the results of an annotator and a perfect model."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from backend.datasets.writer import LabeledImage
from backend.geometry import brush_rle, coordinates, masks, png_masks
from backend.labelstudio import label_config, tags
from backend.types import BoolArray, ControlTag, FloatArray, Json, LabeledBox, Prediction, YoloTask
from tests import drawings
from tests.drawings import SIZE
from tests.support import ROOT

Annotate = Callable[[ControlTag, Sequence[LabeledBox]], list[Json]]


@dataclass(frozen=True)
class Kind:
    """A control tag: its label config, how to draw an image for it, and how an annotator labels it."""

    config: str  # file in label_config/
    task: YoloTask
    draw: drawings.Draw
    annotate: Annotate
    types: tuple[str, ...]  # of the regions in a prediction
    classes: tuple[str, ...]  # of the base model, in the order of the matching labels
    change: tuple[str, str] = ("", "")  # text of the label config, and its replacement
    options: dict[str, Any] = field(default_factory=dict)  # of the base model

    def label_config(self) -> str:
        return (ROOT / "label_config" / self.config).read_text(encoding="utf-8").replace(*self.change)

    def tag(self) -> ControlTag:
        return label_config.parse(self.label_config())[0]


def region(tag: ControlTag, kind: str, value: Json, from_name: str = "", **more: Any) -> Json:
    """Return a region as Label Studio's editor writes it."""
    fields = {
        "id": uuid.uuid4().hex[:10],
        "type": kind,
        "from_name": from_name or tag.from_name,
        "to_name": tag.to_name,
        "value": value,
        "original_width": SIZE[0],
        "original_height": SIZE[1],
        "image_rotation": 0,
        "origin": "manual",
    }
    return fields | more


def boxes(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    return [region(tag, "rectanglelabels", _box(shape)) for shape in shapes]


def _box(shape: LabeledBox) -> Json:
    x, y, width, height = coordinates.normalised_to_percent(shape.xywh)
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [shape.label]}


def turned_boxes(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    regions = []
    for shape in shapes:
        corners = np.array(shape.outline[0]) * SIZE
        along, across = corners[1] - corners[0], corners[3] - corners[0]
        x, y = 100 * corners[0] / SIZE
        width, height = 100 * math.hypot(*along) / SIZE[0], 100 * math.hypot(*across) / SIZE[1]
        rotation = math.degrees(math.atan2(along[1], along[0])) % 360
        value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
        regions.append(region(tag, "rectanglelabels", {**value, "rectanglelabels": [shape.label]}))
    return regions


def ellipses(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    """Draw the ellipse in each box."""
    regions = []
    for shape in shapes:
        x, y, width, height = (100 * share for share in shape.xywh)
        value = {"x": x, "y": y, "radiusX": width / 2, "radiusY": height / 2, "rotation": 0}
        regions.append(region(tag, "ellipselabels", value | {"ellipselabels": [shape.label]}))
    return regions


def turned_ellipses(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    """Draw the ellipse in each rotated box."""
    regions = []
    for shape in shapes:
        x, y, width, height, angle = _rotated(shape).tolist()
        value = {"x": 100 * x / SIZE[0], "y": 100 * y / SIZE[1], "rotation": math.degrees(angle) % 360}
        value |= {"radiusX": 50 * width / SIZE[0], "radiusY": 50 * height / SIZE[1]}
        regions.append(region(tag, "ellipselabels", value | {"ellipselabels": [shape.label]}))
    return regions


def polygons(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    """Draw the outline of each shape, and its hole as a polygon under it."""
    regions: list[Json] = []
    for shape in shapes:
        above: Json = {}
        for ring in shape.outline:
            points = [[100 * x, 100 * y] for x, y in ring]
            value = {"points": points, "closed": True, "polygonlabels": [shape.label]}
            regions.append(region(tag, "polygonlabels", value, **above))
            above = above or {"parentID": regions[-1]["id"]}
    return regions


def brushed(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    kind, value = "brushlabels", {"format": "rle"}
    return [
        region(tag, kind, value | {"rle": brush_rle.encode_rle(pixels(shape)), kind: [shape.label]}) for shape in shapes
    ]


def pixels(shape: LabeledBox) -> BoolArray:
    """Return the pixels that a shape covers."""
    return masks.fill([np.array(ring) * SIZE for ring in shape.outline], *SIZE)


def _painted(shape: LabeledBox) -> LabeledBox:
    """Return a shape as the outline of its pixels."""
    rings = [tuple((float(x), float(y)) for x, y in ring / SIZE) for ring in masks.trace(pixels(shape))]
    hull = coordinates.ring_hull(tuple(point for ring in rings for point in ring))
    return replace(shape, xywh=hull, outline=tuple(rings))


def bitmasks(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    kind = "bitmasklabels"
    return [
        region(tag, kind, {"imageDataURL": png_masks.encode(pixels(shape)), kind: [shape.label]}) for shape in shapes
    ]


def vectors(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    """Draw the outline of each shape as a closed line, as Label Studio's editor writes it."""
    regions = []
    for shape in shapes:
        ring = coordinates.bridged(shape.outline)
        vertices = [
            {"id": f"v{place}", "prevPointId": f"v{(place - 1) % len(ring)}", "x": 100 * x, "y": 100 * y}
            for place, (x, y) in enumerate(ring)
        ]
        vertices = [vertex | {"isBezier": False} for vertex in vertices]
        value = {"vertices": vertices, "closed": True, "vectorlabels": [shape.label]}
        regions.append(region(tag, "vectorlabels", value))
    return regions


def in_two_entries(whole: Annotate, kind: str) -> Annotate:
    """Return how an annotator labels in the split form, where the tag with labels of its own has the kind `kind`."""

    def annotate(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
        entries: list[Json] = []
        for item in whole(tag, shapes):
            if item["type"] != kind:  # the box of a skeleton
                entries.append(item)
                continue
            shape = {name: part for name, part in item["value"].items() if name != kind}
            entries.append(item | {"type": tag.kind, "value": shape})
            labels = {"labels": item["value"][kind]}
            entries.append(item | {"type": "labels", "from_name": tag.labels_from, "value": shape | labels})
        return entries

    return annotate


def skeletons(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    regions: list[Json] = []
    for shape in shapes:
        box = region(tag, "rectanglelabels", _box(shape), tag.parent)
        regions.append(box)
        for name, (across, down, _) in zip(tag.points, shape.keypoints, strict=True):
            point = {"x": 100 * across, "y": 100 * down, "width": 1, "keypointlabels": [name]}
            regions.append(region(tag, "keypointlabels", point, parentID=box["id"]))
    return regions


def choices(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    return [region(tag, "choices", {"choices": [shape.label for shape in shapes]})]


def paths(tag: ControlTag, shapes: Sequence[LabeledBox]) -> list[Json]:
    return [region(tag, "taxonomy", {"taxonomy": [shape.label.split(" > ") for shape in shapes]})]


def of_image(tag: ControlTag, shapes: Sequence[LabeledBox]) -> tuple[LabeledBox, ...]:
    """Return the labels of the whole image: that of its left shape, and for a multiple choice also a red right one."""
    chosen = [shape.label for shape in shapes[: 1 + (tag.multiple and shapes[1].label == tag.labels[0])]]
    return tuple(LabeledBox(label, (0.5, 0.5, 1.0, 1.0)) for label in sorted(set(chosen), key=tag.labels.index))


def drawn(tag: ControlTag, image: LabeledImage) -> tuple[LabeledBox, ...]:
    """Return the labeled boxes of an image, as the tag learns them; red shapes have the first label."""
    number = {"red": 0, "blue": len(tag.labels) > 1}
    shapes = [replace(shape, label=tag.labels[number[shape.label]]) for shape in image.boxes]
    if tags.get(tag.kind).masks:
        shapes = list(map(_painted, shapes))
    if tag.kind in ("vectorlabels", "vector"):
        shapes = [replace(shape, outline=(coordinates.bridged(shape.outline),)) for shape in shapes]
    return of_image(tag, shapes) if tag.task == "classify" else tuple(shapes)


def prediction(tag: ControlTag, shapes: Sequence[LabeledBox]) -> Prediction:
    """Return the prediction of a model that finds exactly these shapes."""
    size = np.array(SIZE, dtype=np.float32)
    xywh = np.array([shape.xywh for shape in shapes], dtype=np.float32).reshape(-1, 2, 2) * size
    probs = np.array([[0.9 * (shape.label == label) for label in tag.labels] for shape in shapes], dtype=np.float32)
    if tag.task == "classify":
        xywh, probs = xywh[:1], probs.max(axis=0, keepdims=True)
    return Prediction(
        width=SIZE[0],
        height=SIZE[1],
        boxes=np.concatenate([xywh[:, 0] - xywh[:, 1] / 2, xywh[:, 0] + xywh[:, 1] / 2], axis=1),
        class_probs=probs,
        confidence=probs.max(axis=1),
        embedding=np.zeros(1, dtype=np.float32),
        rotated=np.stack([_rotated(shape) for shape in shapes]) if tag.task == "obb" else None,
        outlines=tuple(_outline(shape) for shape in shapes) if tag.task in ("segment", "semantic") else None,
        keypoints=np.array([shape.keypoints for shape in shapes], dtype=np.float32) * [*size, 0.5]
        if tag.task == "pose"
        else None,
    )


def _rotated(shape: LabeledBox) -> FloatArray:
    corners = np.array(shape.outline[0]) * SIZE
    along, across = corners[1] - corners[0], corners[3] - corners[0]
    return np.array([*corners.mean(axis=0), math.hypot(*along), math.hypot(*across), math.atan2(along[1], along[0])])


def _outline(shape: LabeledBox) -> tuple[FloatArray, ...]:
    return tuple(np.array(ring, dtype=np.float32) * np.array(SIZE, dtype=np.float32) for ring in shape.outline)


def assert_same(boxes: Sequence[LabeledBox], expected: Sequence[LabeledBox]) -> None:
    assert [box.label for box in boxes] == [box.label for box in expected]
    for box, expected_box in zip(boxes, expected, strict=True):
        assert box.xywh == pytest.approx(expected_box.xywh, abs=1e-6)
        for ring, expected_ring in zip(box.outline, expected_box.outline, strict=bool(box.outline)):
            np.testing.assert_allclose(ring, expected_ring, atol=1e-6)
        np.testing.assert_allclose(box.keypoints, expected_box.keypoints, atol=1e-6)


FISH = '<RectangleLabels name="points_bbox" toName="image" model_skip="true"><Label value="Fish"/></RectangleLabels>'
KINDS = {
    "RectangleLabels": Kind(
        config="rectanglelabels.xml",
        task="detect",
        draw=drawings.bar,
        annotate=boxes,
        types=("rectanglelabels",),
        classes=("vehicle", "person"),
    ),
    "RectangleLabels model_obb": Kind(
        config="rectanglelabels-obb.xml",
        task="obb",
        draw=drawings.bar,
        annotate=turned_boxes,
        types=("rectanglelabels",),
        classes=("ship", "plane"),
    ),
    "PolygonLabels": Kind(
        config="polygonlabels.xml",
        task="segment",
        draw=drawings.donut,
        annotate=polygons,
        types=("polygonlabels",),
        classes=("leaf", "stem"),
    ),
    "BrushLabels": Kind(
        config="brushlabels.xml",
        task="segment",
        draw=drawings.donut,
        annotate=brushed,
        types=("brushlabels",),
        classes=("leaf", "stem"),
    ),
    "BrushLabels model_semantic": Kind(
        config="brushlabels-semantic.xml",
        task="semantic",
        draw=drawings.donut,
        annotate=brushed,
        types=("brushlabels",),
        classes=("road", "water"),
    ),
    "KeyPointLabels": Kind(
        config="keypointlabels.xml",
        task="pose",
        draw=drawings.arrow,
        annotate=skeletons,
        types=("keypointlabels", "rectanglelabels"),
        classes=("fish",),
        options={"data_kpt_shape": (2, 3)},
    ),
    "Choices": Kind(
        config="choices.xml",
        task="classify",
        draw=drawings.bar,
        annotate=choices,
        types=("choices",),
        classes=("tabby", "dog", "plants"),
    ),
    "Choices multiple": Kind(
        config="choices.xml",
        task="classify",
        draw=drawings.bar,
        annotate=choices,
        types=("choices",),
        classes=("tabby", "dog", "plants"),
        change=('choice="single"', 'choice="multiple"'),
    ),
    "Taxonomy": Kind(
        config="taxonomy.xml",
        task="classify",
        draw=drawings.bar,
        annotate=paths,
        types=("taxonomy",),
        classes=("tabby", "dog", "plants"),
    ),
}

# Tags whose models are those of a kind above; only their regions have another form.
FORMS = {
    "Rectangle": Kind(
        config="rectangle.xml",
        task="detect",
        draw=drawings.bar,
        annotate=in_two_entries(boxes, "rectanglelabels"),
        types=("rectangle", "labels"),
        classes=("vehicle", "person"),
    ),
    "Polygon": Kind(
        config="polygon.xml",
        task="segment",
        draw=drawings.donut,
        annotate=in_two_entries(polygons, "polygonlabels"),
        types=("polygon", "labels"),
        classes=("leaf", "stem"),
    ),
    "Ellipse": Kind(
        config="ellipse.xml",
        task="detect",
        draw=drawings.bar,
        annotate=in_two_entries(ellipses, "ellipselabels"),
        types=("ellipse", "labels"),
        classes=("cell", "bubble"),
    ),
    "EllipseLabels": Kind(
        config="ellipselabels.xml",
        task="detect",
        draw=drawings.bar,
        annotate=ellipses,
        types=("ellipselabels",),
        classes=("cell", "bubble"),
    ),
    "EllipseLabels model_obb": Kind(
        config="ellipselabels.xml",
        task="obb",
        draw=drawings.bar,
        annotate=turned_ellipses,
        types=("ellipselabels",),
        classes=("cell", "bubble"),
        change=("model_score", 'model_obb="true" model_score'),
    ),
    "Brush": Kind(
        config="brush.xml",
        task="segment",
        draw=drawings.donut,
        annotate=in_two_entries(brushed, "brushlabels"),
        types=("brush", "labels"),
        classes=("leaf", "stem"),
    ),
    "KeyPoint": Kind(
        config="keypoint.xml",
        task="pose",
        draw=drawings.arrow,
        annotate=in_two_entries(skeletons, "keypointlabels"),
        types=("keypoint", "labels", "rectanglelabels"),
        classes=("fish",),
        change=("<Labels ", f"{FISH}<Labels "),
        options={"data_kpt_shape": (2, 3)},
    ),
    "Bitmask": Kind(
        config="bitmask.xml",
        task="segment",
        draw=drawings.donut,
        annotate=in_two_entries(bitmasks, "bitmasklabels"),
        types=("bitmask", "labels"),
        classes=("leaf", "stem"),
    ),
    "BitmaskLabels": Kind(
        config="bitmasklabels.xml",
        task="segment",
        draw=drawings.donut,
        annotate=bitmasks,
        types=("bitmasklabels",),
        classes=("leaf", "stem"),
    ),
    "Vector": Kind(
        config="vector.xml",
        task="segment",
        draw=drawings.donut,
        annotate=in_two_entries(vectors, "vectorlabels"),
        types=("vector", "labels"),
        classes=("leaf", "stem"),
    ),
    "VectorLabels": Kind(
        config="vectorlabels.xml",
        task="segment",
        draw=drawings.donut,
        annotate=vectors,
        types=("vectorlabels",),
        classes=("leaf", "stem"),
    ),
}
ALL_KINDS = KINDS | FORMS
