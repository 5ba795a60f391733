"""What an annotator did with the regions of a pre-annotation: kept, moved, relabeled, deleted, or added by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.labelstudio.regions import Item, id_of, labels_of

Fate = Literal["kept", "moved", "relabeled"]
_SAME = 0.01  # largest difference of a number in a region, in percent of the image, that is rounding of the editor


@dataclass(frozen=True, slots=True)
class RegionChanges:
    """How many regions of a pre-annotation had which fate, and how many regions the annotator drew."""

    kept: int
    moved: int  # or with another size or shape
    relabeled: int  # also if it was moved too
    deleted: int | None  # None: not known, because the pre-annotation is gone
    added: int


def changes(predicted: Iterable[Any] | None, submitted: Iterable[Any]) -> RegionChanges:
    """Compare a submitted result with the result of the prediction from which it was made.

    Regions match by their ids, which Label Studio's editor keeps. If the prediction is gone (None), the `origin` that
    the editor writes into each region decides: "prediction", "prediction-changed" or "manual". Then a region that was
    only relabeled may count as moved. Items that are no regions, such as relations, do not count.

    >>> box = {"id": "a", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["cat"]}}
    >>> moved = {**box, "value": {"x": 9, "rectanglelabels": ["cat"]}}
    >>> changes([box, {**box, "id": "b"}], [moved, {**box, "id": "c", "origin": "manual"}])
    RegionChanges(kept=0, moved=1, relabeled=0, deleted=1, added=1)
    """
    drawn, fates = _by_id(submitted), list[Fate]()
    if predicted is None:
        fates += [fate for items in drawn.values() if (fate := _by_origin(items)) is not None]
        return _counted(fates, None, len(drawn) - len(fates))
    shown = _by_id(predicted)
    fates += [_fate(items, drawn[region]) for region, items in shown.items() if region in drawn]
    return _counted(fates, len(shown.keys() - drawn.keys()), len(drawn.keys() - shown.keys()))


def _counted(fates: Sequence[Fate], deleted: int | None, added: int) -> RegionChanges:
    return RegionChanges(fates.count("kept"), fates.count("moved"), fates.count("relabeled"), deleted, added)


def _by_id(result: Iterable[Any]) -> dict[str, list[Item]]:
    """Return the items of each region; a region may have several, such as a box and its choices."""
    regions: dict[str, list[Item]] = {}
    for item in result:
        if isinstance(item, Mapping) and isinstance(item.get("value"), Mapping) and (region := id_of(item.get("id"))):
            regions.setdefault(region, []).append(item)
    return regions


def _by_origin(items: Sequence[Item]) -> Fate | None:
    origins = {item.get("origin") for item in items}
    if "prediction-changed" in origins:
        return "moved"
    return "kept" if "prediction" in origins else None


def _fate(shown: Sequence[Item], drawn: Sequence[Item]) -> Fate:
    if _labels(shown) != _labels(drawn):
        return "relabeled"
    if _by_origin(drawn) == "kept":
        return "kept"
    by_type = {item.get("type"): item for item in drawn}
    same = all(_is_same(item["value"], by_type.get(item.get("type"), {}).get("value")) for item in shown)
    return "kept" if same else "moved"


def _labels(items: Sequence[Item]) -> set[tuple[str, str]]:
    """Return the labels of a region, each with its type."""
    kinds = [(item, str(item.get("type"))) for item in items]
    return {(kind, str(label)) for item, kind in kinds for label in labels_of(item, kind)}


def _is_same(shown: Any, drawn: Any) -> bool:
    """Return whether the editor left a value as it was; keys that it adds do not count."""
    if isinstance(shown, Mapping) and isinstance(drawn, Mapping):
        return all(_is_same(part, drawn.get(name)) for name, part in shown.items())
    if isinstance(shown, list) and isinstance(drawn, list):
        return len(shown) == len(drawn) and all(map(_is_same, shown, drawn))
    if isinstance(shown, int | float) and isinstance(drawn, int | float):
        return math.isclose(shown, drawn, rel_tol=0, abs_tol=_SAME)
    return bool(shown == drawn)
