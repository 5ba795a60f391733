from __future__ import annotations

import pytest

from backend.policy import queue_order
from backend.sampling.ranking import Protocol
from backend.settings import Settings


def test_the_settings_make_the_batches() -> None:
    settings = Settings(protocol="datahunt2", retrain_every=7, uncertain_share=0.25, pool_limit=100)
    assert queue_order.protocol(settings) == Protocol(batch=7, candidates=0.2, uncertain=0.25, limit=100)


@pytest.mark.parametrize(("seed", "project", "number"), [(1, 7, 3), (0, 8, 3), (0, 7, 4)])
def test_each_ranking_of_each_project_has_its_own_random_numbers(seed: int, project: int, number: int) -> None:
    repeated = [queue_order.chance(Settings(), 7, 3).random() for _ in range(2)]
    assert repeated[0] == repeated[1] != queue_order.chance(Settings(seed=seed), project, number).random()
