"""Which models form the committee of a strategy."""

from __future__ import annotations

from collections.abc import Sequence

from backend.settings import Settings


def committee_versions(settings: Settings) -> int:
    """Return the number of published versions in a committee.

    Only a committee of snapshots has several. The other kinds vary the image or the weights of one model.

    >>> committee_versions(Settings(committee="snapshots", committee_size=4)), committee_versions(Settings())
    (4, 1)
    """
    return settings.committee_size if settings.committee == "snapshots" else 1


def voters(models: Sequence[tuple[str, bool]], size: int) -> list[int]:
    """Return the indices of the models that vote, at most `size`.

    `models` are a tag's published models, newest first. Each is a pair: a text that identifies its weights, and whether
    the version carried them over from an earlier version. Weights that were carried over vote once, for the newest
    version that holds them.

    >>> voters([("c", False), ("b", True), ("a", False), ("b", False)], 3)
    [0, 1, 2]
    """
    chosen = []
    carried = set()
    for index, (weights, is_carried) in enumerate(models):
        if weights not in carried:
            chosen.append(index)
        if is_carried:
            carried.add(weights)
    return chosen[:size]
