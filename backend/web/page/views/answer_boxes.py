"""A model's answers on a held-out picture, as shapes over it and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.evaluation.judged_images import NOTHING, PercentBox, ShownAnswer
from backend.evaluation.shown_outlines import ShownOutline
from backend.labelstudio import region_outlines
from backend.labelstudio.region_outlines import RegionOutline
from backend.types import ControlTag
from backend.web.page.overlays import UNKNOWN_COLOUR, Overlay, Shape, corners, shape

ISOLATE, END = "\u2068", "\u2069"  # around text whose direction may differ from that of the sentence


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
    answers: Sequence[ShownAnswer], classes: Sequence[str], colours: Mapping[str, str], tag: ControlTag
) -> Overlay:
    """Return the shapes of answers: the model's dashed, the labels that they cover or miss with a full line.

    Answers of the whole picture become words.
    """
    if tag.task == "classify":
        return Overlay((), tuple(described(answer, classes) for answer in answers))
    shapes: list[Shape] = []
    for answer in answers:
        is_missed = answer.predicted == NOTHING
        label_box = answer.box if is_missed else answer.label_box
        if label_box is not None and answer.labeled != NOTHING:
            rings = answer.outline if is_missed else answer.label_outline
            label = _outlined(label_box, rings, classes[answer.labeled], None, tag)
            shapes.append(shape(label, colours.get(label.label, UNKNOWN_COLOUR), "annotator"))
        if not is_missed:
            predicted = _outlined(answer.box, answer.outline, classes[answer.predicted], answer.confidence, tag)
            shapes.append(shape(predicted, colours.get(predicted.label, UNKNOWN_COLOUR), "model"))
    return Overlay(tuple(shapes), ())


def _outlined(
    percent: PercentBox, rings: ShownOutline, label: str, score: float | None, tag: ControlTag
) -> RegionOutline:
    left, top, width, height = percent
    box = corners(left, top, left + width, top + height)
    return region_outlines.object_outline(tag, box, rings, label, score)
