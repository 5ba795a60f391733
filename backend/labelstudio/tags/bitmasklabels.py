"""BitmaskLabels on an Image: masks as BrushLabels paints them, stored as PNG files in data URLs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from backend.geometry import png_masks
from backend.labelstudio import regions
from backend.labelstudio.tags import Result, Tag, brushlabels
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region

KIND = "bitmasklabels"
URL = "imageDataURL"
# A PNG of so many pixels takes 440 MB of memory while it is read and traced. Phones take 48 megapixels.
MOST_PIXELS = brushlabels.MOST_TRACED


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's masks as bitmask regions; it leaves out what `brushlabels.encode` leaves out."""
    return tuple(
        regions.build(tag, prediction, key, row, {URL: png_masks.encode(mask), KIND: [label]})
        for row, label, mask in brushlabels.filled(tag, prediction, classes, threshold)
    )


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield, for each label of a region, the outline of what it paints, or why the region is not learned."""
    yield from regions.read(tag, result, _shape)


def _shape(item: Mapping[str, Any]) -> LabeledBox | EmptyRegion | str:
    """Return what a region paints, or what is wrong with it."""
    return brushlabels.outlined(item, MOST_PIXELS, partial(png_masks.decode, item["value"].get(URL)))


TAG = Tag(
    name="BitmaskLabels",
    object_name="Image",
    encode=encode,
    read=read,
    task=brushlabels.task_of,
    masks=True,
    attributes=brushlabels.TAG.attributes,
)
