"""Which control tags of a label config have a model: of several that name one object alike, the first."""

from __future__ import annotations

from collections.abc import Sequence

from backend.labelstudio import tags
from backend.types import ControlTag


def owners(controls: Sequence[ControlTag]) -> tuple[list[ControlTag], list[str]]:
    """Return the tags that have a model of their own, and why others have none.

    Shape tags with the same Labels are several tools for the same objects. One model learns what all of them drew,
    and answers as the first of them. In the same way, another tag with all labels of an EllipseLabels learns its
    ellipses.
    """
    owning: list[ControlTag] = []
    reasons: list[str] = []
    for place, control in enumerate(controls):
        owner = next((other for other in controls if _teaches(control, other, earlier=other in controls[:place])), None)
        if owner is None:
            owning.append(control)
        else:
            reasons.append(_reason(control, owner))
    return owning, reasons


def _teaches(control: ControlTag, other: ControlTag, *, earlier: bool) -> bool:
    """Return whether the model of `other` learns all shapes of `control`."""
    if control is other or control.to_name != other.to_name or other.task in ("classify", "pose"):
        return False
    if tags.get(control.kind).labels_beside:
        first = earlier or control.task == "pose"  # labels of objects cannot name the points of a skeleton too
        same = bool(tags.get(other.kind).labels_beside) and control.labels_from == other.labels_from
        return first and same and not control.frame_rate
    if control.kind != "ellipselabels" or control.labels_key or not set(control.labels) <= set(other.labels):
        return False
    return earlier or other.kind != control.kind


def _reason(control: ControlTag, owner: ControlTag) -> str:
    own, other = (f'{tags.get(tag.kind).name} "{tag.from_name:.80}"' for tag in (control, owner))
    if control.task == "pose":
        return (
            f"{own} has no model of its own: its points have the labels of the objects of {other}. "
            f'Fix: give the points labels of their own in a KeyPointLabels, or set model_skip="true" on {other}'
        )
    unnamed = tags.get(control.kind).unnamed and not control.labels_from
    labels = "has no labels either" if unnamed else "has the same labels"
    return (
        f"{own} has no model of its own: {other} {labels}, and learns what {own} drew. "
        f'Fix: to be answered as {own} instead, set model_skip="true" on {other}'
    )
