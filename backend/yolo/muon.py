"""Muon's orthogonal updates in float32, for trainings on a CPU.

ultralytics computes them in bfloat16. Many CPUs have no instructions for it, and then its products take nearly all the
time of a training (`python -m tests.benchmarks muon`). With float32, all CPUs also train the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # they move small singular values quickly towards 1


@contextmanager
def float32_on_cpu(device: torch.device) -> Iterator[None]:
    """Let ultralytics' MuSGD of this process compute in float32 meanwhile, if the training runs on a CPU."""
    from ultralytics.optim import muon

    original = muon.zeropower_via_newtonschulz5
    if device.type == "cpu":
        muon.zeropower_via_newtonschulz5 = orthogonal
    try:
        yield
    finally:
        muon.zeropower_via_newtonschulz5 = original


def orthogonal(gradients: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """Return matrices with the gradients' singular vectors, and singular values near 1: (..., r, c) -> (..., r, c).

    Newton-Schulz iterations: X ← a·X + (b·XXᵀ + c·(XXᵀ)²)·X, from X = G / |G|. Source: Jordan et al., Muon: An
    optimizer for hidden layers in neural networks, 2024.
    """
    import torch

    a, b, c = _COEFFICIENTS
    is_tall = gradients.size(-2) > gradients.size(-1)
    x = (gradients.mT if is_tall else gradients).float()
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + eps)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return torch.transpose(x, -2, -1) if is_tall else x
