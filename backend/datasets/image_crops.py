"""Crops of labeled images around their boxes, to learn what each box shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from backend.datasets.writer import LabeledImage, Split
from backend.geometry import crops
from backend.geometry.coordinates import Box, label_arrays
from backend.types import WHOLE, LabeledBox


def cut_split(split: Split, folder: Path) -> Split:
    """Return a split with the crops of its images, written into `folder`; all crops of an image are in its part."""
    train = cut(split.train, folder)
    val = cut(split.val, folder) if split.held_out else train
    return replace(split, train=train, val=val)


def cut(images: Sequence[LabeledImage], folder: Path) -> tuple[LabeledImage, ...]:
    """Return a crop for each place of an image that has labels, with these labels as those of the whole crop.

    The crops are PNG files in `folder`, and count from 1 as the frames of the image's task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(crop for image in images for crop in _crops(image, folder))


def _crops(image: LabeledImage, folder: Path) -> Iterator[LabeledImage]:
    labels_of: dict[Box, list[LabeledBox]] = {}
    for box in image.boxes:
        labels_of.setdefault(box.xywh, []).append(LabeledBox(box.label, WHOLE))
    if not labels_of:
        return
    with Image.open(image.path) as picture:
        places, _ = label_arrays([LabeledBox("", xywh) for xywh in labels_of], (), *picture.size)
        corners = crops.around(places, *picture.size).tolist()
        pixels = picture.convert("RGB")
    for number, ((left, top, right, bottom), labels) in enumerate(zip(corners, labels_of.values(), strict=True), 1):
        crop = replace(image, boxes=tuple(labels), frame=number, path=folder / f"{image.name}-{number}.png")
        pixels.crop((left, top, right, bottom)).save(crop.path, compress_level=1)
        yield crop
