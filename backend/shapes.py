"""What the tasks find beyond boxes, from the columns of a model's output: rotated boxes and the outlines of masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backend.geometry import corners_of
from backend.types import FloatArray, Outline

if TYPE_CHECKING:
    import torch

SIMPLIFY = 0.75  # pixels of the image as the model sees it, by which an outline may miss its mask's border
_MASKS = 32  # held at a time, each as large as the image


def hulls(rotated: FloatArray) -> FloatArray:
    """Return the upright boxes xyxy (n, 4) around rotated ones (n, 5)."""
    corners = corners_of(rotated).astype(np.float32)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def smallest_rectangle(points: npt.ArrayLike) -> FloatArray:
    """Return the smallest rectangle around points (k, 2), as Prediction has rotated boxes: (5,).

    >>> smallest_rectangle([[10, 10], [30, 10], [30, 20], [10, 20]])[:4].tolist()
    [20.0, 15.0, 10.0, 20.0]
    """
    import cv2

    (x, y), (width, height), degrees = cv2.minAreaRect(np.asarray(points, dtype=np.float32))
    return np.array([x, y, width, height, np.radians(degrees)], dtype=np.float32)


def mask_outlines(
    protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: Sequence[int]
) -> Iterator[Outline]:
    """Yield the outline of each mask, in pixels of the image as the model sees it.

    `protos` (k, rows, columns), `coefficients` (n, k), `boxes` (n, 4) xyxy, `size` height and width of that image.
    """
    from ultralytics.utils.ops import process_mask

    for begin in range(0, len(boxes), _MASKS):
        these = slice(begin, begin + _MASKS)
        masks = process_mask(protos, coefficients[these], boxes[these], tuple(size), upsample=True)
        yield from map(outline_of, masks.cpu().numpy())


def outline_of(mask: npt.NDArray[np.uint8]) -> Outline:
    """Return the rings around the parts of a mask (h, w) and around its holes, the longest first.

    They run through the centres of the pixels at the border, simplified by at most SIMPLIFY pixels (Douglas and
    Peucker); what is left with less than three points is dropped.

    >>> mask = np.zeros((9, 9), np.uint8)
    >>> mask[1:8, 1:8], mask[3:6, 3:6] = 1, 0
    >>> [len(ring) for ring in outline_of(mask)], outline_of(mask)[0].min(), outline_of(np.zeros((9, 9), np.uint8))
    ([4, 4], np.float32(1.5), ())
    """
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simple = (cv2.approxPolyDP(contour, SIMPLIFY, True)[:, 0] for contour in sorted(contours, key=len, reverse=True))
    return tuple(ring.astype(np.float32) + np.float32(0.5) for ring in simple if len(ring) >= 3)
