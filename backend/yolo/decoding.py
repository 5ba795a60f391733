"""What the tasks find beyond boxes: rotated boxes, masks, and how sure the model is of them."""

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

SIMPLIFY = 0.75  # pixels of the image as the model sees it: the tolerance of outlines
_MASKS = 32  # held at a time, each as large as the image


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks of the n objects of an image."""

    outlines: tuple[Outline, ...]  # n, in pixels of the upright image
    confidence: FloatArray  # (n,) how sure each mask is of its pixels, in [0, 1]


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


def masks_of(image: Letterboxed, protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor) -> Masks:
    """Return the masks of an image's objects; tensors as of `mask_outlines`."""
    of = protos, coefficients, boxes, image.pixels.shape[:2]
    outlines = tuple(tuple(image.upright_points(ring) for ring in outline) for outline in mask_outlines(*of))
    return Masks(outlines, mask_confidence(*of))


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


def mask_confidence(
    protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: Sequence[int]
) -> FloatArray:
    """Return how sure each mask is of the pixels in its box (n,): the mean of |2p - 1|, p the probability of a pixel.

    Pixels are as coarse as the prototypes; a box has one at least. Arguments as of `mask_outlines`.
    """
    import torch

    rows, columns = protos.shape[1:]
    scale = boxes.new_tensor([columns / size[1], rows / size[0]]).repeat(2)
    found = [boxes.new_zeros(0)]
    for begin in range(0, len(boxes), _MASKS):
        these = slice(begin, begin + _MASKS)
        logits = torch.einsum("nk,kyx->nyx", coefficients[these], protos.float())
        left, top, right, bottom = (boxes[these] * scale).T
        across, down = _within(left, right, columns), _within(top, bottom, rows)
        sure = torch.einsum("nyx,ny,nx->n", (logits / 2).tanh().abs(), down, across)
        found.append(sure / (down.sum(1) * across.sum(1)))
    confidence: FloatArray = torch.cat(found).cpu().numpy()
    return confidence


def _within(low: torch.Tensor, high: torch.Tensor, length: int) -> torch.Tensor:
    """Return which of `length` pixels lie between two edges (n,), one at least: (n, length) of zeros and ones."""
    first = low.floor().clamp(0, length - 1)[:, None]
    last = (high.ceil() - 1)[:, None].clamp(max=length - 1).maximum(first)
    place = low.new_tensor(range(length))[None]
    return ((first <= place) & (place <= last)).to(low.dtype)


def points_confidence(keypoints: FloatArray) -> FloatArray:
    """Return how sure a skeleton is of which of its points are seen (n,): the mean of |2v - 1| of points (n, K, 3)."""
    sure: FloatArray = np.abs(2 * keypoints[:, :, 2] - 1).mean(axis=1)
    return sure


def outline_of(mask: npt.NDArray[np.uint8]) -> Outline:
    """Return the rings around the parts of a mask (h, w) and around its holes, the longest first.

    They run through the centres of the pixels at the border, simplified with a tolerance of SIMPLIFY pixels (Douglas
    and Peucker). OpenCV then drops points near a line once more, so a border may be missed by 1.3 pixels, and what is
    one pixel wide by more. What is left with less than three points is dropped.

    >>> mask = np.zeros((9, 9), np.uint8)
    >>> mask[1:8, 1:8], mask[3:6, 3:6] = 1, 0
    >>> [len(ring) for ring in outline_of(mask)], outline_of(mask)[0].min(), outline_of(np.zeros((9, 9), np.uint8))
    ([4, 4], np.float32(1.5), ())
    """
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simple = (cv2.approxPolyDP(contour, SIMPLIFY, True)[:, 0] for contour in sorted(contours, key=len, reverse=True))
    return tuple(ring.astype(np.float32) + np.float32(0.5) for ring in simple if len(ring) >= 3)
