"""How often pre-annotations made from prompts are right, per label; labels that are mostly wrong are switched off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

LEAST_IMAGES = 20  # labeled images before anything is judged
LEAST_SHOWN = 5  # pre-annotations of a label before it is judged
LEAST_PRECISION = 0.5  # of a label that stays on: correcting more wrong boxes than right ones costs time


@dataclass(frozen=True, slots=True)
class PromptPrecision:
    """What annotators made of the pre-annotations of one label, under one prompt of one model."""

    tag: str  # name of the control tag
    label: str
    prompt: str
    base_model: str
    shown: int  # pre-annotations on the judged images
    right: int  # of them, those that match a label

    @property
    def is_off(self) -> bool:
        """Whether the label is switched off.

        >>> [PromptPrecision("label", "cat", "cat", "", shown, 2).is_off for shown in (4, 5)]
        [False, True]
        """
        return self.shown >= LEAST_SHOWN and self.right < LEAST_PRECISION * self.shown

    def in_words(self) -> str:
        """Return the measurement as a sentence.

        >>> PromptPrecision("label", "cat", "a cat", "", 12, 3).in_words()
        "The prompt 'a cat' of the label 'cat' was right in 3 of 12 pre-annotations, so the label is switched off."
        """
        end = ", so the label is switched off" if self.is_off else ""
        count = f"{self.right} of {self.shown} pre-annotations"
        return f"The prompt {self.prompt!r} of the label {self.label!r} was right in {count}{end}."


def counted(outcomes: Iterable[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    """Return how many pre-annotations of each label there are, and how many are right.

    >>> counted([("cat", True), ("cat", False), ("dog", True)])
    {'cat': (2, 1), 'dog': (1, 1)}
    """
    pairs = list(outcomes)
    right = Counter(label for label, is_right in pairs if is_right)
    return {label: (count, right[label]) for label, count in Counter(label for label, _ in pairs).items()}
