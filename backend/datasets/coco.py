"""Labeled images -> a COCO document (https://cocodataset.org/#format-data). Pure: the caller knows sizes and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.geometry import masks
from backend.geometry.coordinates import clip_ring, ring_area
from backend.types import BoolArray, ControlTag, Json, LabeledBox, Ring

_DECIMALS = 2  # of a pixel


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the document; `name` is its path beside the document, its size is in pixels."""

    name: str
    width: int
    height: int
    task_id: int
    frame: int  # of the task's video; 0: the task is the image
    boxes: tuple[LabeledBox, ...]


def document(images: Sequence[CocoImage], tag: ControlTag, description: str) -> Json:
    """Return the document of images with the labels of a control tag.

    The id of a category is the number of its class plus 1, so it is the same in every export of a label config. Boxes
    are x, y, width, height in pixels. Whole images with a class have a box around the image.
    """
    number = {name: place for place, name in enumerate(tag.labels, 1)}
    annotations: list[Json] = []
    for image_id, image in enumerate(images, 1):
        for label in image.boxes:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number[label.label]}
            annotations.append(ids | _annotation(label, image, tag))
    points = {"keypoints": list(tag.points), "skeleton": []} if tag.task == "pose" else {}
    return {
        "info": {"description": description},
        "licenses": [],
        "categories": [{"id": place, "name": name, "supercategory": "", **points} for name, place in number.items()],
        "images": [_image(image_id, image) for image_id, image in enumerate(images, 1)],
        "annotations": annotations,
    }


def run_lengths(mask: BoolArray) -> Json:
    """Return a mask (height, width) as COCO's uncompressed run lengths: zeros first, column by column.

    >>> run_lengths(np.array([[0, 1], [1, 1]], dtype=np.bool_))
    {'counts': [1, 3], 'size': [2, 2]}
    """
    pixels = mask.T.ravel()
    ends = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *ends.tolist(), len(pixels)]).tolist()
    return {"counts": [0, *counts] if len(pixels) and pixels[0] else counts, "size": list(mask.shape)}


def _image(image_id: int, image: CocoImage) -> Json:
    frame = {"frame": image.frame} if image.frame else {}
    size = {"width": image.width, "height": image.height}
    return {"id": image_id, "file_name": image.name, **size, "task_id": image.task_id, **frame}


def _annotation(label: LabeledBox, image: CocoImage, tag: ControlTag) -> Json:
    """Return box, area and shape of a label."""
    x, y, width, height = label.xywh
    sides = width * image.width, height * image.height
    box = _rounded((x * image.width - sides[0] / 2, y * image.height - sides[1] / 2, *sides))
    annotation: Json = {"bbox": box, "area": round(sides[0] * sides[1], _DECIMALS), "iscrowd": 0, "segmentation": []}
    if label.outline:
        annotation |= _outline(label.outline, image)
    if tag.task == "pose":
        places = [_keypoint(point, image) for point in label.keypoints]
        annotation |= {
            "keypoints": [number for place in places for number in place],
            "num_keypoints": sum(place[2] > 0 for place in places),
        }
    return annotation


def _outline(rings: Sequence[Ring], image: CocoImage) -> Json:
    """Return the shape: a polygon for one ring, else run lengths, because polygons cannot have holes."""
    if len(rings) == 1:
        inside = tuple((x * image.width, y * image.height) for x, y in clip_ring(rings[0]))
        flat = _rounded(tuple(number for point in inside for number in point))
        return {"segmentation": [flat], "area": round(ring_area(inside), _DECIMALS)}
    scale = np.array([image.width, image.height])
    mask = masks.fill([np.array(ring) * scale for ring in rings], image.width, image.height)
    return {"segmentation": run_lengths(mask), "area": int(mask.sum())}


def _keypoint(point: tuple[float, float, int], image: CocoImage) -> tuple[float, float, int]:
    x, y, visibility = point
    return (round(x * image.width, _DECIMALS), round(y * image.height, _DECIMALS), visibility)


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, _DECIMALS) for number in numbers]
