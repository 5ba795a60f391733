"""Which label the class of a model becomes, although people and models write one name in different letters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Claim = tuple[str, str]  # the name of a class as the label config writes it, and the label that covers it


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The labels of class names: by the folded name, and by the exact name where that decides otherwise."""

    folded: Mapping[str, str]
    exact: Mapping[str, str]
    contested: Mapping[str, tuple[str, ...]]  # folded name -> the labels that claim it, where none of them gets it


def fold(name: str) -> str:
    """Return a name without differences of case, spaces and Unicode form.

    >>> fold("  Große  CAR"), fold("STRASSE") == fold("Straße")
    ('grosse car', True)
    """
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def match(levels: Sequence[Sequence[Claim]]) -> ClassNames:
    """Decide which label gets which class; a claim of an earlier level wins over one of a later level.

    On a level the exact spelling wins over the folded one, and a spelling that several labels claim decides nothing.

    >>> match([[("Person", "Person"), ("person", "person"), ("CAR", "CAR")]])
    ClassNames(folded={'car': 'CAR'}, exact={'Person': 'Person', 'person': 'person'}, contested={})
    >>> match([[("Car", "Car"), ("CAR", "CAR")]]).contested
    {'car': ('Car', 'CAR')}
    """
    spellings = [_unique(claims) for claims in levels]
    foldings = [_unique((fold(name), label) for name, label in claims) for claims in levels]
    folded = {name: label for names in reversed(foldings) for name, label in names.items()}
    exact: dict[str, str] = {}
    claimants: dict[str, dict[str, None]] = {}
    for name, label in (claim for claims in levels for claim in claims):
        key = fold(name)
        claimants.setdefault(key, {})[label] = None
        steps = ((spelled.get(name), names.get(key)) for spelled, names in zip(spellings, foldings, strict=True))
        covered = next((choice for step in steps for choice in step if choice), None)
        if covered and covered != folded.get(key):
            exact[name] = covered
    contested = {key: tuple(labels) for key, labels in claimants.items() if key not in folded and key not in exact}
    return ClassNames(folded, exact, contested)


def _unique(claims: Iterable[Claim]) -> dict[str, str]:
    """Return name -> label for the names that are not empty and that one label alone claims."""
    labels: dict[str, str | None] = {}
    for name, label in claims:
        labels[name] = label if labels.setdefault(name, label) == label else None
    return {name: label for name, label in labels.items() if name and label}
