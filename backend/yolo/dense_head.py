"""What a detection head says of its anchors, before the best of them become boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Dense:
    """What a model says of all A anchors of B images of one shape, before NMS."""

    probs: torch.Tensor  # (B, C, A)
    boxes: torch.Tensor  # (B, 4, A) x centre, y centre, width, height in pixels of the batch
    sides: torch.Tensor | None  # (B, 4 * reg_max, A) logits of left, top, right, bottom; None where there is no DFL
    angles: torch.Tensor | None  # (B, A) radians, by which boxes are turned about their centres; None: upright
    strides: torch.Tensor  # (A,)
    grids: tuple[tuple[int, int], ...]  # rows and columns of each level; anchors lie level by level, row by row


def dfl_variance(logits: torch.Tensor, stride: torch.Tensor) -> torch.Tensor:
    """Return the variance of each box side, Σ k² p_k − (Σ k p_k)² times stride², in px².

    `logits` (n, 4, reg_max) of the distribution focal loss, `stride` (n,); the result is (n, 4). Uniform over 16 bins
    and stride 1 gives 21.25. Source: Generalized Focal Loss, https://arxiv.org/abs/2006.04388
    """
    import torch

    p = logits.softmax(2)
    k = torch.arange(p.shape[2], dtype=p.dtype, device=p.device)
    mean = (p * k).sum(2, keepdim=True)
    return (p * (k - mean) ** 2).sum(2) * stride[:, None] ** 2  # the centred form cannot round below zero


def anchor_features(levels: Sequence[torch.Tensor], image: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
    """Return the neck's feature vector at each anchor, pooled to the narrowest level's length: (m, D)."""
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
