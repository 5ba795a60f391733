"""The view Labels: labels that look wrong, agreement between annotators, and labels that could not be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.evaluation.label_quality import LabelIssue
from backend.labelstudio.region_outlines import Drawing, outline
from backend.loop import steering
from backend.loop.insight import label_issues
from backend.loop.insight.label_issues import LabelsView, Suspect
from backend.queue.rq_queue import Jobs
from backend.web.page.overlays import Overlay, corners, overlay, shape
from backend.web.page.view import Form, View, Visit

_RED = "#d7263d"
_WHOLE = (0.0, 0.0, 100.0, 100.0)
_WORDS = {
    "overlooked": "The model sees {label}, and nobody labeled it.",
    "misplaced": "The box of {label} is not where the model sees one.",
    "swapped": "{label} looks like another class to the model.",
    "mistaken": "{label} does not show here, says the model.",
}


@dataclass(frozen=True, slots=True)
class SuspectTile:
    """One label that looks wrong: the picture's shapes and what is wrong in words."""

    issue: LabelIssue
    overlay: Overlay
    sentence: str
    chosen: tuple[str, ...]  # choices of the annotator
    predicted: tuple[str, ...]  # choices of the model


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a project."""

    view: LabelsView
    tiles: tuple[SuspectTile, ...]


def read(visit: Visit) -> Labels:
    """Return the labels of the chosen tag; `?page=` turns the pages of suspects."""
    page = visit.query.get("page", "1")
    number = int(page) if page.isascii() and page.isdecimal() and len(page) < 7 else 1
    view = label_issues.view(visit.context, visit.project_id, visit.tag, number)
    colours = visit.colours
    tiles = tuple(_tile(suspect, colours) for suspect in view.suspects)
    return Labels(view, tiles)


def _tile(suspect: Suspect, colours: Mapping[str, str]) -> SuspectTile:
    issue = suspect.issue
    drawn = overlay(suspect.annotated or Drawing(), colours, "annotator")
    predicted = overlay(suspect.predicted, colours, "model")
    shapes = [*drawn.shapes, *predicted.shapes]
    if issue.box is not None and issue.box != _WHOLE:
        shapes.append(shape(outline([corners(*issue.box)], issue.label), _RED, "suspect"))
    sentence = _WORDS.get(issue.suspicion, "{label} looks wrong.").format(label=f"“{_isolated(issue.label)}”")
    return SuspectTile(
        issue, Overlay(tuple(shapes), (), drawn.undrawn + predicted.undrawn), sentence, drawn.whole, predicted.whole
    )


def _isolated(text: str) -> str:
    """Return a text whose direction of writing does not change that of the sentence around it."""
    return f"\u2068{text}\u2069"


def accept(visit: Visit, _jobs: Jobs, form: Form) -> str:
    """Remember that a label which looks wrong is right. Raises NotFoundError if somebody changed it since."""
    task_id, annotation_id = form.whole_number("task"), form.whole_number("annotation")
    steering.accept_label(visit.context, visit.project_id, task_id, annotation_id, form.fields.get("tag", ""), form.who)
    return f"The label of task {task_id} counts as right. It is not listed again until somebody changes it."


VIEW = View(
    "labels",
    "Labels",
    "Which labels look wrong, where do people disagree, and what could not be learned?",
    read,
    {"accept": accept},
)
