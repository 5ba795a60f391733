"""Pins: tasks that a person puts at the front or at the back of the queue, whatever their value is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from backend.errors import RequestError
from backend.sampling.ranking import quantiles
from backend.types import Ranking

Place: TypeAlias = Literal["front", "back", "none"]
PLACES: tuple[str, ...] = get_args(Place)


@dataclass(frozen=True, slots=True)
class Pins:
    """The ids of pinned tasks, each side in the order in which its tasks were pinned and are handed out."""

    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.front) + len(self.back)

    def __iter__(self) -> Iterator[int]:
        return iter((*self.front, *self.back))

    def moved(self, task_ids: Iterable[int], place: Place) -> Pins:
        """Return the pins with these tasks at `place`; a task that is there already keeps its turn.

        >>> Pins(front=(1, 2)).moved([2, 3], "front").moved([1], "back")
        Pins(front=(2, 3), back=(1,))
        >>> Pins(front=(1, 2)).moved([1], "none")
        Pins(front=(2,), back=())
        """
        moved = tuple(dict.fromkeys(task_ids))
        sides = {
            side: tuple(task_id for task_id in pinned if task_id not in moved or side == place)
            for side, pinned in (("front", self.front), ("back", self.back))
        }
        if place != "none":
            sides[place] = tuple(dict.fromkeys((*sides[place], *moved)))
        return Pins(**sides)

    def without(self, task_ids: frozenset[int]) -> Pins:
        """Return the pins without these tasks."""
        return self.moved(task_ids, "none")


def as_place(text: str) -> Place:
    """Return the place with this name. Raises RequestError that lists the names."""
    for place in get_args(Place):
        if text == place:
            return place  # type: ignore[no-any-return]  # get_args has no type
    raise RequestError(f"unknown place {text!r:.40}", where="pin", fix=f"use one of {', '.join(PLACES)}")


def pinned_places(ranking: Ranking, pins: Pins) -> dict[int, float]:
    """Return the place of each ranked task, by task id: 0 to 1, the lowest is handed out next.

    Tasks pinned to the front lie below all others, those pinned to the back above. The others keep their places. Pins
    of tasks that are not ranked are ignored.

    >>> order = Ranking(np.array([1, 2, 3]), np.float32([.25, .5, .75]), np.float32([3, 2, 1]), np.zeros(3, bool), "")
    >>> pinned_places(order, Pins(front=(3, 2), back=(1,)))
    {1: 0.75, 2: 0.3333333333333333, 3: 0.16666666666666666}
    """
    places: dict[int, float] = dict(zip(ranking.task_ids.tolist(), ranking.priority.tolist(), strict=True))
    front, back = ([task_id for task_id in side if task_id in places] for side in (pins.front, pins.back))
    if not front and not back:
        return places
    others = places.keys() - {*front, *back}
    lowest = min((places[task_id] for task_id in others), default=0.5)
    highest = max((places[task_id] for task_id in others), default=0.5)
    if lowest <= 0 or highest >= 1:  # an earlier release ranked from 0 to 1, which leaves no room for pins
        count = len(places)
        places |= {task_id: (1 + places[task_id] * (count - 1)) / (count + 1) for task_id in others}
        lowest = min((places[task_id] for task_id in others), default=0.5)
        highest = max((places[task_id] for task_id in others), default=0.5)
    places |= dict(zip(front, _spaced(0.0, lowest, len(front)), strict=True))
    places |= dict(zip(back, _spaced(highest, 1.0, len(back)), strict=True))
    return places


def _spaced(begin: float, end: float, count: int) -> Sequence[float]:
    """Return `count` ascending values between two limits, which are left out."""
    return np.linspace(begin, end, count + 2)[1:-1].tolist()  # type: ignore[no-any-return]


def pinned(ranking: Ranking, pins: Pins) -> Ranking:
    """Return the ranking in the order of `pinned_places`; a pinned task does not count as drawn at random."""
    places = pinned_places(ranking, pins)
    order = np.argsort([places[task_id] for task_id in ranking.task_ids.tolist()], kind="stable")
    is_pinned = np.isin(ranking.task_ids, np.array(list(pins), dtype=np.int64))
    return replace(ranking, priority=quantiles(order), explored=ranking.explored & ~is_pinned)
