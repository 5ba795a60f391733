"""The view Versions: their table, two of them compared, and the buttons to promote, roll back and download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.evaluation.judged_images import PictureAnswers
from backend.loop import steering
from backend.loop.insight.tag_models import model_of_version, version_models
from backend.loop.insight.versions_compared import (
    PictureDifference,
    VersionComparison,
    VersionRow,
    compare,
    version_rows,
)
from backend.queue.rq_queue import Jobs
from backend.web.page.overlays import Overlay
from backend.web.page.view import Form, View, Visit
from backend.web.page.views.answer_boxes import answer_overlay

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class PicturePair:
    """A held-out picture with the answers of two versions."""

    task: int
    frame: int
    before: Overlay
    after: Overlay
    text: str


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a project, and two of them compared."""

    rows: tuple[VersionRow, ...]
    accepted: int  # the version that the next training competes with; 0: none
    first: int  # the two that are compared; 0: none
    second: int
    comparison: VersionComparison | None
    pairs: tuple[PicturePair, ...]


def read(visit: Visit) -> Versions:
    """Return what the view shows. Raises NotFoundError for a version in the query that has no model of the tag."""
    rows = version_rows(visit.context, visit.record, visit.tag)
    current = visit.context.store.current(visit.project_id)
    first, second = _compared(visit, rows)
    is_asked = "first" in visit.query or "second" in visit.query  # it may take seconds
    comparison = compare(visit.context, visit.record, visit.tag, first, second) if second and is_asked else None
    pairs = tuple(_pair(visit, comparison, difference) for difference in comparison.pictures) if comparison else ()
    return Versions(rows, current.number if current else 0, first, second, comparison, pairs)


def _compared(visit: Visit, rows: Sequence[VersionRow]) -> tuple[int, int]:
    """Return the versions that `?first=` and `?second=` name, else the newest two; 0 and 0 for fewer than two."""
    if len(rows) < 2:
        return 0, 0
    wanted = [visit.query.get(name, "") for name in ("first", "second")]
    numbers = [int(text) if text.isdecimal() else 0 for text in wanted]
    return numbers[0] or rows[1].number, numbers[1] or rows[0].number


def _pair(visit: Visit, comparison: VersionComparison, difference: PictureDifference) -> PicturePair:
    before, after = difference.before, difference.after
    overlays = [
        _overlay(visit, answers, model.report.classes if model.report else ())
        for answers, model in ((before, comparison.before), (after, comparison.after))
    ]
    return PicturePair(
        task=difference.task_id,
        frame=difference.frame,
        before=overlays[0],
        after=overlays[1],
        text=f"F1 {before.f1:.2f} → {after.f1:.2f}",
    )


def _overlay(visit: Visit, answers: PictureAnswers, classes: Sequence[str]) -> Overlay:
    return answer_overlay(answers.answers, classes, visit.colours, visit.tag)


@dataclass(frozen=True, slots=True)
class Download:
    """The weights of a version, ready to be sent."""

    path: Path
    name: str  # of the file: letters, digits, dots, dashes and underscores
    sha256: str


def weights(visit: Visit, number: int) -> Download:
    """Return the weights of a version for the chosen tag. Raises NotFoundError, or ModelError if they are not kept."""
    models = version_models(visit.context, visit.record, visit.tag)
    shown = model_of_version(models, number)
    path = visit.context.store.weights(shown.version, visit.tag.from_name)
    name = _UNSAFE.sub("_", f"{shown.version.name}-{visit.tag.from_name}"[:100])
    return Download(path, f"{name}.pt", shown.model.sha256)


def accept(visit: Visit, jobs: Jobs, form: Form) -> str:
    """Make another version the accepted one. Raises NotFoundError, or ModelError if it cannot serve."""
    number = form.whole_number("number")
    version = steering.accept_version(visit.context, jobs, visit.project_id, number, form.who)
    return f"{version.name} is accepted. It serves as soon as it has scored the pool."


VIEW = View("versions", "Versions", "Which version serves, and how do two versions differ?", read, {"accept": accept})
