"""Promotion: the rule by which a challenger replaces the champion."""

from __future__ import annotations

from dataclasses import dataclass

from backend.evaluation import basis, bootstrap
from backend.evaluation.bootstrap import Measured
from backend.model_versions import Metrics


@dataclass(frozen=True, slots=True)
class Contest:
    """The qualities of a challenger and of the champion on the same images."""

    challenger: Measured
    champion: Measured

    @property
    def is_won(self) -> bool:
        """Whether the challenger is better in 97.5% of the bootstrap draws of the images."""
        gain = bootstrap.gained(self.challenger, self.champion).metrics.gained
        return gain is not None and gain[0] > 0

    def in_words(self, quality: str) -> str:
        """Return both qualities, as in "mAP50 0.812 [0.760, 0.851] against 0.794 [0.741, 0.836]"."""
        figures = (basis.figure(model.metrics) for model in (self.challenger, self.champion))
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
    """Return whether the challenger is published, and the reason; `quality` is the task's name for its mAP50.

    If there are enough held-out images, they decide alone. Otherwise all labeled images decide (`on_labels`, see
    `needs_labels`). Both models have learned most of these, so this comparison only shows whether the training damaged
    the model. A champion is `chosen` if somebody rolled back to it. Then there is no tolerance, and without enough
    held-out images the challenger must be significantly better.
    """
    metrics = challenger.metrics
    if not finite:
        return False, "not published: the losses are not finite"
    if metrics.detections == 0 and metrics.boxes > 0:
        return False, "not published: the model collapsed, it detects nothing on the validation set"
    if champion is None:
        return True, f"published: the first version, {quality} {basis.in_words(metrics)}"
    if not basis.is_judged(metrics):
        return _by_labels(metrics, on_labels or Contest(challenger, champion), tolerance, quality, chosen=chosen)
    contest = Contest(challenger, champion)
    comparison = f"{contest.in_words(quality)} on {basis.measured_on(metrics)}"
    if chosen and metrics.map50 < champion.metrics.map50:
        return False, f"not published: {comparison}, and somebody rolled back to the previous version"
    if metrics.map50 < champion.metrics.map50 - tolerance:
        return False, f"not published: {comparison}, worse than the tolerance {tolerance:g}"
    return True, f"published: {comparison}"


def needs_labels(challenger: Measured, champion: Measured | None) -> bool:
    """Return whether both models must be measured on all labeled images too, for lack of held-out images."""
    return champion is not None and not basis.is_judged(challenger.metrics)


def _by_labels(
    held_out: Metrics, contest: Contest, tolerance: float, quality: str, *, chosen: bool
) -> tuple[bool, str]:
    ours, theirs = contest.challenger.metrics, contest.champion.metrics
    comparison = (
        f"{quality} is {basis.in_words(held_out)}; on all {ours.images} labeled images, including learned ones, "
        f"{contest.in_words(quality)}"
    )
    if chosen and not contest.is_won:
        why = "no better than chance explains, and somebody rolled back to the previous version"
        return False, f"not published: {comparison}, {why}"
    if ours.map50 < theirs.map50 - tolerance:
        return False, f"not published: {comparison}, worse than the tolerance {tolerance:g}"
    return True, f"published: {comparison}"
