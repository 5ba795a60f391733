"""A model's answers on a held-out picture, as shapes over it and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.evaluation.judged_images import NOTHING, PercentBox, ShownAnswer
from backend.web.page.overlays import Overlay, Shape, box
from backend.web.page.view import Visit

ISOLATE, END = "\u2068", "\u2069"  # around text whose direction may differ from that of the sentence


def task_address(visit: Visit, task_id: int) -> str:
    """Return the address of a task in Label Studio."""
    return f"{visit.context.settings.label_studio_url.rstrip('/')}/projects/{visit.project_id}/data?task={task_id}"


def described(answer: ShownAnswer, classes: Sequence[str]) -> str:
    """Return what a model answered and what people labeled; the names keep their own direction of writing.

    >>> text = described(ShownAnswer(0, 1, 0.93, (0, 0, 9, 9)), ["cat", "dog"])
    >>> text.translate({ord(ISOLATE): None, ord(END): None})
    '“cat” (0.93) instead of “dog”'
    """
    labeled = _quoted(classes[answer.labeled]) if answer.labeled != NOTHING else ""
    if answer.predicted == NOTHING:
        return f"{labeled} missed"
    predicted = f"{_quoted(classes[answer.predicted])} ({answer.confidence:.2f})"
    if answer.is_right:
        return f"{predicted} right"
    return f"{predicted} instead of {labeled}" if labeled else f"{predicted} where nothing is labeled"


def _quoted(name: str) -> str:
    return f"“{ISOLATE}{name}{END}”"


def answer_overlay(
    answers: Sequence[ShownAnswer], classes: Sequence[str], colours: Mapping[str, str], *, whole: bool
) -> Overlay:
    """Return the shapes of answers: the model's dashed, the labels that they cover or miss with a full line.

    `whole` says that answers are of the whole picture: they become words.
    """
    if whole:
        return Overlay((), tuple(described(answer, classes) for answer in answers))
    shapes: list[Shape] = []
    for answer in answers:
        label = answer.box if answer.predicted == NOTHING else answer.label_box
        if label is not None and answer.labeled != NOTHING:
            name = classes[answer.labeled]
            shapes.append(box(_corners(label), name, colours.get(name, "#888888"), kind="annotator"))
        if answer.predicted != NOTHING:
            name, corners = classes[answer.predicted], _corners(answer.box)
            shapes.append(box(corners, name, colours.get(name, "#888888"), kind="model", score=answer.confidence))
    return Overlay(tuple(shapes), ())


def _corners(percent: PercentBox) -> PercentBox:
    """Return left, top, right and bottom of a box."""
    left, top, width, height = percent
    return left, top, left + width, top + height
