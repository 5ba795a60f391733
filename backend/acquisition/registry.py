"""The registry of acquisition functions: name -> function, with its question, its needs and its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.columns import BY_TABLE, OF_EVERY_POOL
from backend.acquisition.pool import Pool
from backend.errors import ModelError, SettingError

Values = npt.NDArray[np.floating[Any]]
Function = Callable[[Pool, np.random.Generator], Values]


@dataclass(frozen=True, slots=True)
class Acquisition:
    """A registered strategy; calling it gives one finite value per image of the pool, higher = label sooner."""

    name: str
    function: Function
    asks: str  # the question that it answers about an image
    needs: frozenset[str]  # columns and fields of Pool that it reads, e.g. {"class_probs", "embeddings"}
    cost: str
    paper: str
    when: str = ""  # when to use it
    relative: bool = False  # values can be compared only within one pool, so a task alone has none

    @property
    def alone(self) -> bool:
        """Whether a single image has a value after one forward pass, without the rest of the pool."""
        return not self.relative and self.needs <= _OF_ONE_IMAGE

    def __call__(self, pool: Pool, rng: np.random.Generator) -> Values:
        """Return the values, none for an empty pool; raises ModelError where the pool lacks what the strategy needs."""
        missing = sorted(need for need in self.needs if not pool.has(need))
        if missing:
            explanation, fix = _WANTED.get(missing[0], ("which this pool does not have", "choose another strategy"))
            raise ModelError(f"strategy {self.name!r} needs {missing[0]}, {explanation}", fix=fix)
        return self.function(pool, rng) if len(pool) else np.zeros(0)


# column or field of Pool -> the end of the message if it is missing, and the cure
_WANTED = {
    "box_variance": (
        "the variance of the box sides, and this model has no DFL that gives it (YOLO26 has none)",
        "set BASE_MODEL to one with DFL, like yolo11n.pt, or choose another strategy",
    ),
    "committee": (
        "the predictions of two or more models for the pool",
        "use COMMITTEE=augmented, or publish a second version for COMMITTEE=snapshots, or choose another strategy",
    ),
    "shape_confidence": (
        "the confidence of masks or points, and this model predicts boxes only",
        "choose another strategy, or label with PolygonLabels, BrushLabels or KeyPointLabels",
    ),
    "video_doubt": (
        "the uncertainty of video frames, and these tasks are images, or no model has predicted the videos yet",
        "choose another strategy, or label videos with VideoRectangle or TimelineLabels",
    ),
    "embeddings": ("and no image of this pool has one: there is no trained version yet", "label more images first"),
    "thumbnails": (
        "small copies of the images, and this pool was scored without them",
        "score the project again: `yolo-backend score`",
    ),
    "labeled_embeddings": ("and no labeled image was scored by this version", "label more images first"),
    "labeled_losses": ("and no labeled image was scored by this version", "label more images first"),
    "box_embeddings": (
        "and this model embeds no boxes, or found none in the pool",
        "label more images first, or choose another strategy",
    ),
}
_OF_ONE_IMAGE = OF_EVERY_POOL | {"class_probs", "class_weights"}
_OF_POOLS = BY_TABLE.keys() | {field.name for field in fields(Pool)}
REGISTRY: dict[str, Acquisition] = {}


def acquisition(
    name: str,
    *,
    asks: str,
    cost: str,
    paper: str,
    needs: frozenset[str] = frozenset(),
    when: str = "",
    relative: bool = False,
) -> Callable[[Function], Function]:
    """Register the decorated `f(pool, rng) -> (n,)` under a name.

    Raises ValueError for a name that is registered already, and for needs that no pool has.
    """

    def register(function: Function) -> Function:
        """Add the function to the registry and return it unchanged."""
        if name in REGISTRY:
            raise ValueError(f"acquisition {name!r} is already {REGISTRY[name].function.__qualname__}")
        if unknown := sorted(needs - _OF_POOLS):
            raise ValueError(f"acquisition {name!r} needs {unknown[0]}; use some of {', '.join(sorted(_OF_POOLS))}")
        REGISTRY[name] = Acquisition(name, function, asks, needs, cost, paper, when, relative)
        return function

    return register


def get(name: str) -> Acquisition:
    """Return the strategy of that name; raises SettingError that lists the valid names."""
    if name not in REGISTRY:
        raise SettingError(f"unknown strategy {name!r}", where="STRATEGY", fix=f"use one of {', '.join(names())}")
    return REGISTRY[name]


def names() -> tuple[str, ...]:
    """Return the names of all strategies, sorted."""
    return tuple(sorted(REGISTRY))
