from __future__ import annotations

import pytest

from backend.policy.hyper_parameters import epochs_for, hyper_parameters, steps_for
from backend.settings import Settings
from backend.types import HyperParameters


@pytest.mark.parametrize(
    ("images", "epochs"), [(0, 300), (1, 300), (50, 160), (51, 159), (200, 80), (800, 40), (10**6, 30)]
)
def test_epochs_spend_the_step_budget_within_bounds(images: int, epochs: int) -> None:
    assert epochs_for(images, Settings()) == epochs


@pytest.mark.parametrize(("growth", "steps"), [(0.0, 500.0), (0.5, 1000.0), (1.0, 2000.0)])
def test_steps_grow_with_the_images(growth: float, steps: float) -> None:
    assert steps_for(200, Settings(steps_growth=growth)) == steps


@pytest.mark.parametrize(("tag_epochs", "epochs"), [(0, 80), (7, 7), (1000, 200)])
def test_a_tag_may_set_its_own_epochs(tag_epochs: int, epochs: int) -> None:
    settings = Settings(max_epochs=200, batch=16, imgsz=320, seed=3, device="cpu")
    hyper = hyper_parameters(200, settings, epochs=tag_epochs, minutes=2.5)
    assert hyper == HyperParameters(epochs, batch=16, imgsz=320, seed=3, device="cpu", minutes=2.5)
