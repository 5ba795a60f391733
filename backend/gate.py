"""Whether a challenger is published: the one rule, on the metrics of champion and challenger."""

from __future__ import annotations

from backend.versions import Metrics

MIN_JUDGED_IMAGES = 10  # a validation set smaller than this only guards against collapse


def judge(
    challenger: Metrics,
    champion: Metrics | None,
    *,
    finite: bool,
    held_out: bool,
    tolerance: float,
    quality: str = "mAP50",
) -> tuple[bool, str]:
    """Return whether the challenger is published, and why; `quality` is what the task calls its mAP50.

    A validation set that is not held out, or is under 10 images, only guards against collapse.
    """
    if not finite:
        return False, "not published: the losses are not finite"
    if challenger.detections == 0 and challenger.boxes > 0:
        return False, "not published: the model collapsed, it detects nothing on the validation set"
    if champion is None:
        return True, "published: the first version"
    if not held_out or challenger.images < MIN_JUDGED_IMAGES:
        return True, f"published: the validation set ({challenger.images} images) is too small to judge, no collapse"
    scores = f"{quality} {challenger.map50:.3f} against {champion.map50:.3f} on {challenger.images} images"
    if challenger.map50 < champion.map50 - tolerance:
        return False, f"not published: {scores}, worse than the tolerance {tolerance:g}"
    return True, f"published: {scores}"
