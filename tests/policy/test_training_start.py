from __future__ import annotations

from dataclasses import replace

import pytest

from backend.policy.training_start import Origin, starts_from_served

SERVED = Origin(("cat", "dog"), "yolo11n.pt", (0, 1, 2))


@pytest.mark.parametrize(
    ("served", "train_from", "held_out", "continues"),
    [
        (SERVED, "last", {4}, True),
        (SERVED, "last", set(), True),  # no held-out task that it could have learned from
        (SERVED, "base", {4}, False),
        (SERVED, "last", {2, 4}, False),  # task 2 is held out now
        (replace(SERVED, learned=None), "last", {4}, False),  # a manifest of a release that did not record it
        (replace(SERVED, classes=("dog", "cat")), "last", {4}, False),
        (replace(SERVED, base_model="yolo11s.pt"), "last", {4}, False),
        (None, "last", {4}, False),
    ],
)
def test_a_training_starts_from_a_champion_that_has_not_learned_from_a_held_out_task(
    served: Origin | None, train_from: str, held_out: set[int], continues: bool
) -> None:
    kind = {"classes": ("cat", "dog"), "base_model": "yolo11n.pt"}
    assert starts_from_served(served, train_from=train_from, held_out=held_out, **kind) is continues  # type: ignore[arg-type]
