"""The view Effort: seconds per image, what became of pre-annotations, and the hours that they saved."""

from __future__ import annotations

from dataclasses import dataclass

from backend.evaluation.effort import FEWEST_COMPARED, VersionEffort
from backend.loop.insight import effort
from backend.loop.insight.effort import EffortView
from backend.web.page.plots import Chart, Series
from backend.web.page.view import View, Visit

# Colours of the fates, dark enough for a white ground and light enough for a black one.
FATES = (
    ("kept", "#3a8f5c"),
    ("moved", "#d19a2a"),
    ("relabeled", "#8a63b8"),
    ("deleted", "#c8473d"),
    ("added", "#4a83c4"),
)


@dataclass(frozen=True, slots=True)
class FateShare:
    """The share of one fate among the regions of a row."""

    name: str
    colour: str
    count: int
    percent: float  # of all regions of the row


@dataclass(frozen=True, slots=True)
class EffortRow:
    """The work with one version's pre-annotations."""

    name: str
    effort: VersionEffort
    fates: tuple[FateShare, ...]  # of non-zero counts


@dataclass(frozen=True, slots=True)
class Effort:
    """What labeling a project costs."""

    view: EffortView
    rows: tuple[EffortRow, ...]
    chart: Chart
    fewest: int  # control tasks that an estimate needs


def read(visit: Visit) -> Effort:
    """Return what labeling costs, from the store alone."""
    view = effort.view(visit.context, visit.project_id)
    judged = [point for point in view.curve if point.map50 is not None]
    series = Series(
        name="mAP50",
        x=[point.hours for point in judged],
        y=[point.map50 for point in judged],
        low=[point.interval[0] if point.interval else point.map50 for point in judged],
        high=[point.interval[1] if point.interval else point.map50 for point in judged],
        texts=[f"{view.names.get(point.number, point.number)}: {point.map50:.3f}" for point in judged],
    )
    label = "mAP50 of each version over the hours of labeling behind it. The table below has the same numbers."
    chart = Chart(label, "hours of labeling", "mAP50", (series,), (0.0, 1.0))
    return Effort(view, tuple(_row(entry, view) for entry in view.versions), chart, FEWEST_COMPARED)


def _row(entry: VersionEffort, view: EffortView) -> EffortRow:
    if entry.version is None:
        name = "no pre-annotation"
    else:
        name = view.names.get(entry.version, f"version {entry.version}") + (", control tasks" if entry.blank else "")
    total = sum(getattr(entry, fate) for fate, _ in FATES)
    shares = (
        FateShare(fate, colour, count, 100 * count / total) for fate, colour in FATES if (count := getattr(entry, fate))
    )
    return EffortRow(name, entry, tuple(shares))


VIEW = View("effort", "Effort", "What does labeling cost, and does pre-annotation pay?", read, {})
