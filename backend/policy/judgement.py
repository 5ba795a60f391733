"""Whether a challenger is published: what champion and challenger were measured on, and what that says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from backend.evaluation import bootstrap, matching
from backend.evaluation.bootstrap import Measured
from backend.evaluation.matching import Detections
from backend.evaluation.promotion import Contest, judge, needs_labels
from backend.model_versions import Calibration, Metrics

NOTHING_HELD_OUT = "there are no validation images yet that the model has not learned from"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluation gave, and whether the challenger is accepted for it."""

    challenger: Metrics
    champion: Metrics | None
    promoted: bool
    reason: str


def verdict(
    measured: Sequence[Measured],
    measure_on_labels: Callable[[], Sequence[Measured]],
    *,
    held_out: bool,
    finite: bool,
    tolerance: float,
    quality: str,
    chosen: bool = False,
) -> Verdict:
    """Return whether the challenger is published, and the metrics that both are recorded with.

    `measured` is the challenger, and then the champion if there is one, on the same validation set; without `held_out`
    they have learned from it. `measure_on_labels` measures both on all labels there are. It is only called where the
    held-out images are too few to decide, because it takes as long as there are labels. `finite`: the losses of the
    training were. `chosen`: somebody rolled back to the champion. `quality` is what the task calls its mAP50.
    """
    challenger, *champions = (_with_basis(model, held_out=held_out) for model in measured)
    champion, on_labels = (champions[0] if champions else None), None
    if champion is not None:
        challenger = bootstrap.gained(challenger, champion)
        if held_out and needs_labels(challenger, champion):
            on_labels = Contest(*(_with_basis(model, held_out=False) for model in measure_on_labels()))
    promoted, reason = judge(
        challenger,
        champion,
        finite=finite,
        tolerance=tolerance,
        on_labels=on_labels,
        chosen=chosen,
        quality=quality,
    )
    return Verdict(challenger.metrics, champion.metrics if champion else None, promoted, reason)


def _with_basis(measured: Measured, *, held_out: bool) -> Measured:
    """Return a measurement that says whether its images were held out."""
    return replace(measured, metrics=replace(measured.metrics, held_out=held_out))


def calibration_of(detections: Detections | None) -> Calibration:
    """Return the temperature that fits what a model detects on the held-out images; 1 where there are none."""
    return Calibration(reason=NOTHING_HELD_OUT) if detections is None else detections.calibration()


def class_quality_of(detections: Detections | None, classes: Sequence[str]) -> dict[str, float]:
    """Return PPAL's quality of each class that was matched on the held-out images, by its name."""
    return {} if detections is None else matching.class_quality(detections, classes)
