"""Thumbnails of images, by which near-duplicates are found independently of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backend.types import THUMBNAIL_SIDE, ByteArray, IntArray

if TYPE_CHECKING:
    import torch


def thumbnails(batch: torch.Tensor) -> ByteArray:
    """Return the mean colours in [0, 255] of 8 x 8 parts of each image: (B, 3, h, w) in [0, 1] -> (B, 192)."""
    from torch.nn.functional import adaptive_avg_pool2d

    small = adaptive_avg_pool2d(batch.float(), THUMBNAIL_SIDE).mul(255).round().flatten(1)
    return np.asarray(small.cpu().numpy(), dtype=np.uint8)


def mean(total: IntArray, count: int) -> ByteArray:
    """Return the mean thumbnail (192,) of `count` frames; `total` (192,) is the sum of their thumbnails."""
    return np.rint(total / max(count, 1)).astype(np.uint8)
