"""Whether the models of an experiment learned anything; otherwise its strategies cannot be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from backend.datasets.reader import LabeledFile
from backend.simulate.curves import Curve
from backend.simulate.records import Plan, Results

LEAST = 0.01  # mAP50 of a model that learned nothing, at most


def floor(plan: Plan, test: Sequence[LabeledFile]) -> float:
    """Return the quality of a model that learned nothing; for classes, of one that always answers the most frequent."""
    if plan.task != "classify":
        return LEAST
    counts = Counter(label for file in test for label in {box.label for box in file.boxes})
    return max(counts.values(), default=0) / max(len(test), 1)


def nothing_learned(results: Results, lowest: float) -> str:
    """Return advice if no model of an experiment is better than `lowest`, else an empty text."""
    best = max((row.map50 for row in results.rows), default=0.0)
    if best > lowest:
        return ""
    plan = results.plan
    steps, size = plan.settings.get("train_steps"), plan.settings.get("imgsz")
    start = "other base weights" if plan.base.sha256 else "pretrained base weights, as these started from scratch"
    return (
        f"Nothing was learned: the best {plan.quality} of all {len(results.rows)} trainings is {best:.3f}. So the "
        f"strategies cannot be compared. Change one of these: train longer (--steps, now {steps}), show larger images "
        f"(--imgsz, now {size}), or take {start} (BASE_MODEL, now {plan.base.source})."
    )


def gained_by_labels(curve: Curve, lowest: float) -> bool:
    """Return whether more labels improved the models; otherwise any number of labels "reaches" the last quality."""
    means = curve.quality.mean(axis=0)
    return bool(means[-1] > max(means[0], lowest))
