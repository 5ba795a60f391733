"""Whether a challenger is published, from the measurements of champion and challenger."""

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
class Judgement:
    """The metrics of champion and challenger, and whether the challenger is accepted."""

    challenger: Metrics
    champion: Metrics | None
    promoted: bool
    reason: str


def judge_challenger(
    measured: Sequence[Measured],
    measure_on_labels: Callable[[], Sequence[Measured]],
    *,
    held_out: bool,
    finite: bool,
    tolerance: float,
    quality: str,
    chosen: bool = False,
) -> Judgement:
    """Return whether the challenger is published, and the metrics that are recorded of both models.

    `measured` holds the challenger and, if there is one, the champion, measured on the same validation set. `held_out`
    says that neither has learned from that set. `measure_on_labels` measures both on all labels. It is called only if
    the held-out images are too few to decide, because it takes longer the more labels there are. `finite` says that the
    losses of the training were finite, `chosen` that somebody rolled back to the champion. `quality` is the task's name
    for its mAP50.
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
    return Judgement(challenger.metrics, champion.metrics if champion else None, promoted, reason)


def _with_basis(measured: Measured, *, held_out: bool) -> Measured:
    """Return a measurement whose metrics say whether its images were held out."""
    return replace(measured, metrics=replace(measured.metrics, held_out=held_out))


def calibration_of(detections: Detections | None) -> Calibration:
    """Return the temperature that fits a model's detections on the held-out images; 1 if there are none."""
    return Calibration(reason=NOTHING_HELD_OUT) if detections is None else detections.calibration()


def class_quality_of(detections: Detections | None, classes: Sequence[str]) -> dict[str, float]:
    """Return PPAL's quality of each class that was matched on the held-out images, by class name."""
    return {} if detections is None else matching.class_quality(detections, classes)
