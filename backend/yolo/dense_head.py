"""The dense output of a detection head: its values for all anchors, before NMS keeps the best boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class DenseOutput:
    """The output of a head for all A anchors of B images of one shape, before NMS."""

    probs: torch.Tensor  # (B, C, A)
    boxes: torch.Tensor  # (B, 4, A) x centre, y centre, width, height in pixels of the batch
    sides: torch.Tensor | None  # (B, 4 * reg_max, A) logits of left, top, right, bottom; None for heads without DFL
    angles: torch.Tensor | None  # (B, A) radians by which boxes are rotated about their centres, None: upright
    strides: torch.Tensor  # (A,)
    grids: tuple[tuple[int, int], ...]  # rows and columns of each level; anchors are in order of level, row, column


def dfl_variance(logits: torch.Tensor, stride: torch.Tensor) -> torch.Tensor:
    """Return the variance of each box side (n, 4) in px²: (Σ k² p_k − (Σ k p_k)²) · stride².

    `logits` (n, 4, reg_max) are those of the distribution focal loss, `stride` is (n,). A uniform distribution over 16
    bins with stride 1 gives 21.25. Source: Generalized Focal Loss, https://arxiv.org/abs/2006.04388
    """
    import torch

    p = logits.softmax(2)
    k = torch.arange(p.shape[2], dtype=p.dtype, device=p.device)
    mean = (p * k).sum(2, keepdim=True)
    return (p * (k - mean) ** 2).sum(2) * stride[:, None] ** 2  # the centred form cannot round below zero


def anchor_features(levels: Sequence[torch.Tensor], image: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
    """Return the neck's feature vectors (m, D) at anchors; D is the lowest number of channels of a level.

    `image` (m,) and `anchor` (m,) are indices; each of `levels` is (B, channels, rows, columns). Longer vectors are
    pooled to the length D.
    """
    from torch.nn.functional import adaptive_avg_pool1d

    length = min(level.shape[1] for level in levels)
    vectors = levels[0].new_zeros(len(anchor), length)
    start = 0
    for level in levels:
        end = start + level.shape[2] * level.shape[3]
        here = ((anchor >= start) & (anchor < end)).nonzero().view(-1)
        if len(here):
            full = level.flatten(2)[image[here], :, anchor[here] - start]
            vectors[here] = adaptive_avg_pool1d(full, length)
        start = end
    return vectors
