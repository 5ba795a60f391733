"""Thumbnails: what an image looks like from afar, by which near-copies are found whatever a model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backend.types import THUMBNAIL_SIDE, ByteArray, IntArray

if TYPE_CHECKING:
    import torch


def thumbnails(batch: torch.Tensor) -> ByteArray:
    """Return the mean colours of 8 x 8 parts of each image, in [0, 255]: (B, 3, h, w) in [0, 1] -> (B, 192)."""
    from torch.nn.functional import adaptive_avg_pool2d

    small = adaptive_avg_pool2d(batch.float(), THUMBNAIL_SIDE).mul(255).round().flatten(1)
    return np.asarray(small.cpu().numpy(), dtype=np.uint8)


def mean(total: IntArray, count: int) -> ByteArray:
    """Return the mean of a video's `count` thumbnails, of which `total` is the sum (192,)."""
    return np.rint(total / max(count, 1)).astype(np.uint8)
