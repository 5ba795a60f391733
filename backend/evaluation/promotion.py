"""Whether a challenger is published: the one rule, on what champion and challenger were measured on."""

from __future__ import annotations

from dataclasses import dataclass

from backend.evaluation import basis, bootstrap
from backend.evaluation.bootstrap import Measured
from backend.model_versions import Metrics


@dataclass(frozen=True, slots=True)
class Contest:
    """A challenger and the champion, measured on the same images."""

    challenger: Measured
    champion: Measured

    @property
    def is_won(self) -> bool:
        """Return whether the challenger is better in 97.5% of the draws of the images."""
        gain = bootstrap.gained(self.challenger, self.champion).metrics.gained
        return gain is not None and gain[0] > 0

    def in_words(self, quality: str) -> str:
        """Return both figures, as in "mAP50 0.812 [0.760, 0.851] against 0.794 [0.741, 0.836]"."""
        figures = (basis.figure(one.metrics) for one in (self.challenger, self.champion))
        return f"{quality} {' against '.join(figures)}"


def judge(
    challenger: Measured,
    champion: Measured | None,
    *,
    finite: bool,
    tolerance: float,
    on_labels: Contest | None = None,
    chosen: bool = False,
    quality: str = "mAP50",
) -> tuple[bool, str]:
    """Return whether the challenger is published, and why; `quality` is what the task calls its mAP50.

    Enough held-out images decide alone. With fewer, all labels there are do (`on_labels`, see `needs_labels`): both
    models have learned most of them, so that shows what a training spoiled, and no more. A champion that somebody has
    `chosen`, by rolling back to it, is not replaced by a weaker version: there is no tolerance, and without enough
    held-out images the challenger must be better beyond chance.
    """
    found = challenger.metrics
    if not finite:
        return False, "not published: the losses are not finite"
    if found.detections == 0 and found.boxes > 0:
        return False, "not published: the model collapsed, it detects nothing on the validation set"
    if champion is None:
        return True, f"published: the first version, {quality} {basis.in_words(found)}"
    if not basis.is_judged(found):
        return _by_labels(found, on_labels or Contest(challenger, champion), tolerance, quality, chosen=chosen)
    contest = Contest(challenger, champion)
    said = f"{contest.in_words(quality)} on {basis.ground(found)}"
    if chosen and found.map50 < champion.metrics.map50:
        return False, f"not published: {said}, and somebody rolled back to the previous version"
    if found.map50 < champion.metrics.map50 - tolerance:
        return False, f"not published: {said}, worse than the tolerance {tolerance:g}"
    return True, f"published: {said}"


def needs_labels(challenger: Measured, champion: Measured | None) -> bool:
    """Return whether both have to be measured on all labels as well."""
    return champion is not None and not basis.is_judged(challenger.metrics)


def _by_labels(found: Metrics, contest: Contest, tolerance: float, quality: str, *, chosen: bool) -> tuple[bool, str]:
    ours, theirs = contest.challenger.metrics, contest.champion.metrics
    said = (
        f"{quality} is {basis.in_words(found)}; on all {ours.images} labeled images, including learned ones, "
        f"{contest.in_words(quality)}"
    )
    if chosen and not contest.is_won:
        return (
            False,
            f"not published: {said}, no better than chance explains, and somebody rolled back to the previous version",
        )
    if ours.map50 < theirs.map50 - tolerance:
        return False, f"not published: {said}, worse than the tolerance {tolerance:g}"
    return True, f"published: {said}"
