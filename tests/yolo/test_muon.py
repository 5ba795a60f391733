"""Muon's orthogonal updates in float32."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from backend.yolo.muon import float32_on_cpu, orthogonal
from backend.yolo.runtime import quiet_ultralytics

pytestmark = pytest.mark.torch

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(scope="module")
def muon() -> ModuleType:
    """ultralytics' own module."""
    quiet_ultralytics()
    from ultralytics.optim import muon

    return muon  # type: ignore[no-any-return]


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (1, 9), (3, 32, 64)])
def test_an_update_is_what_ultralytics_computes_but_for_rounding(muon: ModuleType, shape: tuple[int, ...]) -> None:
    gradients = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    update, rounded = orthogonal(gradients), muon.zeropower_via_newtonschulz5(gradients.clone()).float()
    assert update.shape == gradients.shape
    assert torch.linalg.vector_norm(update - rounded) < 0.03 * torch.linalg.vector_norm(update)


def test_the_singular_vectors_stay_and_the_singular_values_come_near_1() -> None:
    gradients = torch.randn(24, 80, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(gradients, full_matrices=False)
    turned = left.mT @ orthogonal(gradients) @ right.mT
    assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-4)
    assert values.max() > 2 * values.min()
    assert 0.6 < turned.diagonal().min() < turned.diagonal().max() < 1.3


def test_rows_of_zeros_stay_zero() -> None:
    """ultralytics adds such rows, so that matrices of several sizes share a call."""
    gradients = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    filled = torch.cat([gradients, torch.zeros(4, 20)])
    assert torch.allclose(orthogonal(filled)[:8], orthogonal(gradients), atol=1e-5)
    assert not orthogonal(filled)[8:].any()


def test_only_trainings_on_a_cpu_compute_in_float32_and_only_meanwhile(muon: ModuleType) -> None:
    gradient = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))

    def update() -> torch.Tensor:
        moved: torch.Tensor = muon.muon_update(gradient.clone(), torch.zeros_like(gradient), beta=0.0, nesterov=False)
        return moved

    rounded = update()
    with float32_on_cpu(META):
        assert torch.equal(update(), rounded)
    with float32_on_cpu(CPU):
        assert torch.equal(update(), orthogonal(gradient))
    assert torch.equal(update(), rounded)
