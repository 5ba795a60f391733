"""BrushLabels on an Image: masks painted pixel by pixel, of objects, or of classes where model_semantic="true"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from backend.errors import RegionError
from backend.geometry import brush_rle, masks
from backend.geometry.coordinates import ring_hull
from backend.labelstudio import regions
from backend.labelstudio.label_xml import FALSE, TRUE, is_true
from backend.labelstudio.tags import Result, Tag
from backend.types import BoolArray, ControlTag, EmptyRegion, LabeledBox, Prediction, Region, YoloTask

KIND = "brushlabels"
# An imported region can claim any size. These limits keep one region below 500 MB of memory.
MOST_PIXELS = 100_000_000  # of its image, 1 byte each
MOST_TRACED = 49_000_000  # pixels of the painted part, 8 bytes each; phones take 48 megapixels
MOST_EDGES = 1_000_000  # in its rows: random data has an edge at every other pixel


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's masks as brush regions, in its order; boxes where the model predicts no outlines.

    It leaves out what `regions.shown_rows` leaves out, and objects that cover no pixel's centre.
    """
    return tuple(
        regions.build(tag, prediction, key, row, {"format": "rle", "rle": brush_rle.encode_rle(mask), KIND: [label]})
        for row, label, mask in filled(tag, prediction, classes, threshold)
    )


def filled(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float
) -> Iterator[tuple[int, str, BoolArray]]:
    """Yield the row, the label and the mask (h, w) of each object that covers a pixel's centre."""
    for row, label in regions.shown_rows(tag, prediction, classes, threshold):
        mask = masks.fill(regions.rings(prediction, row), prediction.width, prediction.height)
        if mask.any():
            yield row, label, mask


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield, for each label of a region, the outline of what it paints, or why the region is not learned.

    All parts of a region are one object. The outline encloses exactly the painted pixels.
    """
    yield from regions.read(tag, result, shape_of)


def shape_of(item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return what a region paints, or what is wrong with it."""
    value = item["value"]
    if value.get("touches") or value.get("maskDataURL"):  # drafts have `touches`; the magic wand leaves `maskDataURL`
        return "holds strokes that are not in its mask yet: open the task in Label Studio and submit it again"
    return outlined(item, MOST_PIXELS, partial(brush_rle.decode_rle, value.get("rle")))


def outlined(
    item: Mapping[str, Any], most_pixels: int, decode: Callable[[int, int], BoolArray]
) -> LabeledBox | EmptyRegion | str:
    """Return what a region's mask paints, or what is wrong with it; `decode` takes height and width of the image."""
    size = regions.image_size(item)
    if size is None or not all(map(float.is_integer, size)):
        return "does not carry original_width and original_height"
    width, height = map(int, size)
    if width * height > most_pixels:
        return f"says that its image has {width} x {height} pixels, more than can be read"
    try:
        mask = decode(height, width)
    except RegionError as error:
        return f"cannot be learned: {error}"
    traced, edges = masks.effort(mask)
    if traced > MOST_TRACED or edges > MOST_EDGES:
        return f"paints over {traced} pixels with {edges} edges, and up to {MOST_TRACED} and {MOST_EDGES} can be read"
    rings = [tuple(map(tuple, (ring / (width, height)).tolist())) for ring in masks.trace(mask)]
    if not rings:
        return EmptyRegion("paints nothing")
    return LabeledBox("", ring_hull(tuple(point for ring in rings for point in ring)), outline=tuple(rings))


def task_of(attributes: Mapping[str, str]) -> YoloTask:
    """Return the task of a tag's models: "semantic" for one of pixels, not objects."""
    return "semantic" if is_true(attributes, "model_semantic", default=False) else "segment"


TAG = Tag(
    name="BrushLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=task_of,
    masks=True,
    attributes={"model_semantic": (*FALSE, *TRUE)},
)
