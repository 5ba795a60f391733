"""Which control tags of a label config have a model, what they learn of each other, and which one answers.

Tags whose labels name the same objects are several tools for them: shape tags with one Labels, and, where they have
labels of their own, outlines of different kinds (polygons, brushes, bitmasks, closed lines). An ellipse is a tool
beside outlines and beside boxes. An object that somebody drew with one tool is no background for the model of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from backend.labelstudio import tags
from backend.types import ControlTag

MOST_NAMED = 3  # labels that a warning lists
_MASKS, _BESIDE_ELLIPSES = ("segment", "semantic"), ("detect", "obb", "segment")  # tasks of models


def owners(controls: Sequence[ControlTag]) -> tuple[list[ControlTag], list[str]]:
    """Return the tags that have a model of their own, and why others have none.

    Shape tags with the same Labels are several tools for the same objects. One model learns what all of them drew,
    and answers as the first of them. In the same way, another tag with all labels of an EllipseLabels learns its
    ellipses, and a tag with all labels of a tag of other outlines learns those.
    """
    owning: list[ControlTag] = []
    reasons: list[str] = []
    for place, control in enumerate(controls):
        owner = next((other for other in controls if _teaches(control, other, earlier=other in controls[:place])), None)
        if owner is None:
            owner = next((other for other in owning if _is_covered(control, other)), None)
        if owner is None:
            owning.append(control)
        else:
            reasons.append(_reason(control, owner))
    return owning, reasons


def related(owning: Sequence[ControlTag], drawing: Sequence[ControlTag]) -> tuple[list[ControlTag], list[str]]:
    """Return the tags `owning` a model, each with its teachers, and what people must know of who answers.

    All tags that are `drawing` teach, also those without a model. Of several tags with one label only the first
    answers, an ellipse last: an object that all of them answered would be there several times. Ellipses are no
    teachers here, because they teach every tag that has their labels (`lend` in `tags.ellipselabels`).
    """
    answering = sorted(owning, key=lambda tag: tags.get(tag.kind).elliptic)
    notes: list[str] = []
    taught: list[ControlTag] = []
    outlined = [other for other in drawing if not tags.get(other.kind).elliptic]
    for tag in owning:
        teachers = tuple(other for other in outlined if _is_other_tool(tag, other) and _common(tag, other))
        before = [other for other in answering[: answering.index(tag)] if _is_other_tool(tag, other)]
        left = tuple(label for label in tag.labels if any(label in other.labels for other in before))
        notes += [_who_answers(tag, other) for other in before if _common(tag, other)]
        taught.append(replace(tag, teachers=teachers, answered_by_others=left))
    return taught, notes


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


def _is_covered(control: ControlTag, owner: ControlTag) -> bool:
    """Return whether an earlier tag with a model learns all shapes of `control`, and answers for all of its labels."""
    same = _is_other_tool(control, owner) and set(control.labels) <= set(owner.labels)
    return same and not tags.get(owner.kind).elliptic


def _is_other_tool(tag: ControlTag, other: ControlTag) -> bool:
    """Return whether two tags with labels of their own draw the same objects with different tools.

    Two tags of one kind are two questions. So are boxes beside outlines, objects beside the pixels of classes, and tags
    that the editor shows under different conditions.
    """
    pair = (tag, other)
    place, other_place = ((control.to_name, control.conditions, control.labels_key) for control in pair)
    forms = [tags.get(control.kind) for control in pair]
    apart = tag.kind == other.kind or any(form.labels_beside for form in forms)
    if place != other_place or apart or tag.frame_rate or other.frame_rate:
        return False
    if forms[0].elliptic != forms[1].elliptic:
        return {tag.task, other.task} <= set(_BESIDE_ELLIPSES)
    return tag.task == other.task and tag.task in _MASKS


def _common(tag: ControlTag, other: ControlTag) -> list[str]:
    return [label for label in tag.labels if label in other.labels]


def _reason(control: ControlTag, owner: ControlTag) -> str:
    own, other = _spelled((control, owner))
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


def _who_answers(tag: ControlTag, other: ControlTag) -> str:
    own, answering = _spelled((tag, other))
    common = _common(tag, other)
    named = ", ".join(f"{label:.80}" for label in common[:MOST_NAMED])
    labels = f"{named} and {len(common) - MOST_NAMED} more labels" if len(common) > MOST_NAMED else named
    elliptic = tags.get(tag.kind).elliptic
    cure = f"remove {labels} from {answering}" if elliptic else f"write it before {answering}"
    return (
        f"{own} gives no answers for {labels}: {answering} does, and each of the two learns what the other drew of it. "
        f"Fix: to be answered as {own} instead, {cure}"
    )


def _spelled(controls: Iterable[ControlTag]) -> list[str]:
    return [f'{tags.get(tag.kind).name} "{tag.from_name:.80}"' for tag in controls]
