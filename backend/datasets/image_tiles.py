"""Tiles of large labeled images, to learn from: small objects keep their pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from backend.datasets.writer import LabeledImage
from backend.geometry import tiles
from backend.types import FloatArray, LabeledBox

LEAST_SHARE = 0.2  # of a box: a tile with less of it does not show the object
EMPTY_SHARE = 0.25  # tiles without an object that are learned, as a share of those with one; at least one per image


def cut(images: Sequence[LabeledImage], side: int, imgsz: int, folder: Path) -> tuple[LabeledImage, ...]:
    """Return the images with tiles in the place of those that are larger than `side` pixels.

    The tiles are written into `folder` as PNG, from one decoded image at a time. If tiles cut an object because it is
    larger than what they have in common, the whole image is learned too, scaled down to `imgsz` pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(part for image in images for part in _parts(image, side, imgsz, folder))


def _parts(image: LabeledImage, side: int, imgsz: int, folder: Path) -> Iterator[LabeledImage]:
    with Image.open(image.path) as picture:
        size = picture.size
        if max(size) <= side:
            yield image
            return
        boxes = np.array([_corners(box, *size) for box in image.boxes]).reshape(-1, 4)
        places = tiles.grid(*size, side)
        shares = np.array([tiles.parts(boxes, place)[1] for place in places])  # (tiles, boxes)
        for number in learned_tiles(shares, np.random.default_rng((image.task_id, image.frame))):
            left, top, right, bottom = places[number].tolist()
            inside, share = tiles.parts(boxes, places[number])
            labels = tuple(
                _label(box, corners.tolist(), right - left, bottom - top)
                for box, corners, part in zip(image.boxes, inside, share, strict=True)
                if part >= LEAST_SHARE
            )
            tile = replace(image, boxes=labels, tile=number + 1, path=folder / f"{image.name}-{number + 1}.png")
            picture.crop((left, top, right, bottom)).convert("RGB").save(tile.path, compress_level=1)
            yield tile
        if (shares.max(axis=0, initial=0.0) < 1).any():
            scaled = replace(image, path=folder / f"{image.name}.png")
            small = [max(1, round(length * imgsz / max(size))) for length in size]
            picture.resize((small[0], small[1]), reducing_gap=2.0).convert("RGB").save(scaled.path, compress_level=1)
            yield scaled


def learned_tiles(shares: FloatArray, rng: np.random.Generator) -> list[int]:
    """Return the tiles of an image that are learned, given the share of each box in each tile (n, l).

    They are all that show an object, and EMPTY_SHARE as many of the empty ones, drawn at random. A tile that shows no
    more than slivers of objects is neither.

    >>> learned_tiles(np.array([[1.0], [0.1], [0.0], [0.6]]), np.random.default_rng(0))
    [0, 2, 3]
    """
    best = shares.max(axis=1, initial=0.0)
    labeled, empty = np.flatnonzero(best >= LEAST_SHARE), np.flatnonzero(best == 0)
    count = min(len(empty), max(1, round(EMPTY_SHARE * len(labeled))))
    return sorted([*labeled.tolist(), *rng.choice(empty, count, replace=False).tolist()])


def _corners(box: LabeledBox, width: int, height: int) -> tuple[float, float, float, float]:
    """Return a label's box, xyxy in pixels."""
    x, y, across, down = box.xywh
    left, right = ((x + sign * across / 2) * width for sign in (-1, 1))
    top, bottom = ((y + sign * down / 2) * height for sign in (-1, 1))
    return left, top, right, bottom


def _label(box: LabeledBox, corners: Sequence[float], width: int, height: int) -> LabeledBox:
    """Return the part of a label in a tile of this size; `corners` are xyxy in pixels of the tile."""
    left, top, right, bottom = corners
    xywh = (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height
    return replace(box, xywh=xywh, outline=(), keypoints=())
