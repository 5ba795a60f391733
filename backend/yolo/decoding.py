"""Outputs of models beyond upright boxes: rotated boxes, masks, and the confidence of masks and keypoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backend.geometry.coordinates import corners_of
from backend.types import FloatArray, Outline
from backend.yolo.letterbox import Letterboxed

if TYPE_CHECKING:
    import torch

SIMPLIFY = 0.75  # the tolerance of outlines, in pixels of the letterboxed image
_MASKS = 32  # decoded at a time; each is as large as the image


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks of the n objects of an image."""

    outlines: tuple[Outline, ...]  # n, in pixels of the upright image
    confidence: FloatArray  # (n,) mean certainty of the pixels of each mask, in [0, 1]


def hulls(rotated: FloatArray) -> FloatArray:
    """Return the upright boxes xyxy (n, 4) around rotated ones (n, 5)."""
    corners = corners_of(rotated).astype(np.float32)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def smallest_rectangle(points: npt.ArrayLike) -> FloatArray:
    """Return the smallest rectangle around points (k, 2), as a rotated box of a Prediction (5,).

    >>> smallest_rectangle([[10, 10], [30, 10], [30, 20], [10, 20]])[:4].tolist()
    [20.0, 15.0, 10.0, 20.0]
    """
    import cv2

    (x, y), (width, height), degrees = cv2.minAreaRect(np.asarray(points, dtype=np.float32))
    return np.array([x, y, width, height, np.radians(degrees)], dtype=np.float32)


def masks_of(image: Letterboxed, protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor) -> Masks:
    """Return the masks of an image's objects; tensors as in `mask_outlines`."""
    arguments = protos, coefficients, boxes, image.pixels.shape[:2]
    outlines = tuple(tuple(image.upright_points(ring) for ring in outline) for outline in mask_outlines(*arguments))
    return Masks(outlines, mask_confidence(*arguments))


def mask_outlines(
    protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: Sequence[int]
) -> Iterator[Outline]:
    """Yield the outline of each mask, in pixels of the letterboxed image.

    `protos` (k, rows, columns), `coefficients` (n, k), `boxes` (n, 4) xyxy; `size` is that image's height and width.
    """
    from ultralytics.utils.ops import process_mask

    for begin in range(0, len(boxes), _MASKS):
        block = slice(begin, begin + _MASKS)
        masks = process_mask(protos, coefficients[block], boxes[block], tuple(size), upsample=True)
        yield from map(outline_of, masks.cpu().numpy())


def mask_confidence(
    protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: Sequence[int]
) -> FloatArray:
    """Return the mean certainty of the pixels in the box of each mask (n,): |2p - 1| for a pixel's probability p.

    Pixels are those of the prototypes, and a box has at least one of them. Arguments as in `mask_outlines`.
    """
    import torch

    rows, columns = protos.shape[1:]
    scale = boxes.new_tensor([columns / size[1], rows / size[0]]).repeat(2)
    confidences = [boxes.new_zeros(0)]
    for begin in range(0, len(boxes), _MASKS):
        block = slice(begin, begin + _MASKS)
        logits = torch.einsum("nk,kyx->nyx", coefficients[block], protos.float())
        left, top, right, bottom = (boxes[block] * scale).T
        across, down = _within(left, right, columns), _within(top, bottom, rows)
        sums = torch.einsum("nyx,ny,nx->n", (logits / 2).tanh().abs(), down, across)
        confidences.append(sums / (down.sum(1) * across.sum(1)))
    confidence: FloatArray = torch.cat(confidences).cpu().numpy()
    return confidence


def _within(low: torch.Tensor, high: torch.Tensor, length: int) -> torch.Tensor:
    """Return a mask (n, length) of the pixels that lie between two edges (n,), at least one pixel each, as 0 and 1."""
    first = low.floor().clamp(0, length - 1)[:, None]
    last = (high.ceil() - 1)[:, None].clamp(max=length - 1).maximum(first)
    place = low.new_tensor(range(length))[None]
    return ((first <= place) & (place <= last)).to(low.dtype)


def points_confidence(keypoints: FloatArray) -> FloatArray:
    """Return the mean certainty (n,) of whether keypoints (n, K, 3) are visible: |2v - 1| for a visibility v."""
    sure: FloatArray = np.abs(2 * keypoints[:, :, 2] - 1).mean(axis=1)
    return sure


def outline_of(mask: npt.NDArray[np.uint8]) -> Outline:
    """Return the rings around the parts and the holes of a mask (h, w), the longest first.

    A ring runs through the centres of the pixels at the border, simplified with a tolerance of SIMPLIFY pixels (Douglas
    and Peucker). OpenCV then drops points near a line once more, so a ring may be 1.3 pixels from the border, and more
    for parts that are one pixel wide. Rings with fewer than three points are dropped.

    >>> mask = np.zeros((9, 9), np.uint8)
    >>> mask[1:8, 1:8], mask[3:6, 3:6] = 1, 0
    >>> [len(ring) for ring in outline_of(mask)], outline_of(mask)[0].min(), outline_of(np.zeros((9, 9), np.uint8))
    ([4, 4], np.float32(1.5), ())
    """
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simple = (cv2.approxPolyDP(contour, SIMPLIFY, True)[:, 0] for contour in sorted(contours, key=len, reverse=True))
    return tuple(ring.astype(np.float32) + np.float32(0.5) for ring in simple if len(ring) >= 3)
