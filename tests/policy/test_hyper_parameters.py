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


@pytest.mark.parametrize(("asked", "epochs"), [(0, 80), (7, 7), (1000, 200)])
def test_a_tag_may_ask_for_epochs_of_its_own(asked: int, epochs: int) -> None:
    settings = Settings(max_epochs=200, batch=16, imgsz=320, seed=3, device="cpu")
    found = hyper_parameters(200, settings, epochs=asked, minutes=2.5)
    assert found == HyperParameters(epochs, batch=16, imgsz=320, seed=3, device="cpu", minutes=2.5)
