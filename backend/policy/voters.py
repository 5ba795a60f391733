"""Which models vote where a strategy asks several of them."""

from __future__ import annotations

from collections.abc import Sequence

from backend.settings import Settings


def versions_asked(settings: Settings) -> int:
    """Return how many published versions a committee is made of; the other kinds change what one model sees or is.

    >>> versions_asked(Settings(committee="snapshots", committee_size=4)), versions_asked(Settings())
    (4, 1)
    """
    return settings.committee_size if settings.committee == "snapshots" else 1


def voters(models: Sequence[tuple[str, bool]], size: int) -> list[int]:
    """Return the places of the models that vote, `size` at most.

    `models` are a tag's published models, newest first: a text that is the same for the same weights, and whether the
    version carried these weights over from an earlier one. Weights that were carried over have one vote, in the newest
    version that holds them.

    >>> voters([("c", False), ("b", True), ("a", False), ("b", False)], 3)
    [0, 1, 2]
    """
    chosen = []
    carried = set()
    for place, (weights, is_carried) in enumerate(models):
        if weights not in carried:
            chosen.append(place)
        if is_carried:
            carried.add(weights)
    return chosen[:size]
