"""The first batch of a line of an experiment: `FIRST+STRATEGY` begins with FIRST, `STRATEGY` alone with FIRST_BATCH.

All lines of a seed that begin alike share the training on their first batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from backend.errors import SettingError
from backend.settings import Settings
from backend.simulate.records import INITIAL

RANDOM = "random"
FIRST_BATCHES: tuple[str, ...] = get_args(Settings.model_fields["first_batch"].annotation)


def parts(name: str, first_batch: str) -> tuple[str, str]:
    """Return the first batch and the strategy of a line; raises SettingError for a first batch that does not exist.

    >>> parts("typiclust+margin", "random"), parts("margin", "random")
    (('typiclust', 'margin'), ('random', 'margin'))
    """
    first, plus, strategy = name.partition("+")
    if not plus:
        return first_batch, name
    if first not in FIRST_BATCHES:
        raise SettingError(
            f"unknown first batch {first!r}", where="--strategies", fix=f"use one of {', '.join(FIRST_BATCHES)}"
        )
    return first, strategy


def strategies(names: Iterable[str]) -> tuple[str, ...]:
    """Return the strategies of some lines, without their first batches; raises as `parts`.

    >>> strategies(["random", "typiclust+margin"])
    ('random', 'margin')
    """
    return tuple(parts(name, RANDOM)[1] for name in names)


def initial(first: str) -> str:
    """Return the name of the unit that trains on a first batch.

    >>> initial("random"), initial("typiclust")
    ('initial', 'initial-typiclust')
    """
    return INITIAL if first == RANDOM else f"{INITIAL}-{first}"


def initials(names: Iterable[str], first_batch: str) -> tuple[str, ...]:
    """Return the units that train on the first batches of some lines.

    >>> initials(["random", "typiclust+random", "margin"], "random")
    ('initial', 'initial-typiclust')
    """
    return tuple(dict.fromkeys(initial(parts(name, first_batch)[0]) for name in names))


def first_of(unit: str) -> str | None:
    """Return the first batch on which a unit trains; None for the unit of a line.

    >>> first_of("initial"), first_of("initial-probcover"), first_of("margin")
    ('random', 'probcover', None)
    """
    return next((first for first in FIRST_BATCHES if unit == initial(first)), None)
