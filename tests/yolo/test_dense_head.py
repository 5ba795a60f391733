"""The dense output of a detection head: box variance, and features of anchors."""

from __future__ import annotations

import numpy as np
import pytest

from backend.yolo.dense_head import anchor_features, dfl_variance

pytestmark = pytest.mark.torch


def test_dfl_variance_of_known_distributions() -> None:
    import torch

    uniform, certain = torch.zeros(16), torch.full((16,), -1e4)
    certain[3] = 0
    either = torch.full((16,), -1e4)
    either[[0, 4]] = 0
    logits = torch.stack([uniform, certain, either, uniform])[None].expand(2, 4, 16)
    variance = dfl_variance(logits, torch.tensor([1.0, 8.0]))
    np.testing.assert_allclose(variance, np.array([[21.25, 0, 4, 21.25]]) * [[1], [64]], rtol=1e-5)


def test_features_are_those_of_the_anchors_level() -> None:
    """Two levels of 2 x 2 and 1 x 1 cells, the finer one with half the channels, for two images."""
    import torch

    fine = torch.arange(16.0).reshape(2, 2, 2, 2)
    coarse = torch.arange(8.0).reshape(2, 4, 1, 1)
    features = anchor_features([fine, coarse], torch.tensor([0, 1, 1]), torch.tensor([3, 0, 4]))
    assert features.tolist() == [[3, 7], [8, 12], [4.5, 6.5]]  # the coarse one is pooled in pairs
    none = torch.zeros(0, dtype=torch.int64)
    assert anchor_features([fine, coarse], none, none).shape == (0, 2)
