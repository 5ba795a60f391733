"""The view Is it learning?: the curve, the truth beside picked tasks, and what the newest model gets wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.evaluation.held_out_report import EvaluationReport, HeldOutReport, Mistake
from backend.evaluation.judged_images import NOTHING
from backend.evaluation.reliability import calibration_error
from backend.loop.insight.learning_curve import CurvePoint, LearningCurve, learning_curve
from backend.loop.insight.tag_models import VersionModel, model_of_version, version_models
from backend.web.page.overlays import Overlay
from backend.web.page.plots import Chart, Series
from backend.web.page.view import View, Visit
from backend.web.page.views.answer_boxes import answer_overlay, described

MOST_CLASSES = 15  # in the confusion matrix; of more, those with most mistakes
MOST_LINES = 8  # classes in the chart; of more, those of the lowest quality
MOST_BANDS = 3  # classes whose intervals can be told apart in one chart


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class in the newest judged version."""

    label: str
    quality: float | None
    interval: tuple[float, float] | None
    held_out: int | None  # labels; None: not known
    learned: int | None


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """A row of the confusion matrix: the predictions for the labels of one class."""

    label: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]  # of the row


@dataclass(frozen=True, slots=True)
class Tile:
    """A wrong answer as a picture."""

    task: int
    frame: int
    overlay: Overlay
    text: str


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What one model gets wrong on the held-out images."""

    shown: VersionModel
    report: HeldOutReport
    reliability: Chart
    error_before: float | None  # expected calibration error
    error_after: float | None
    columns: tuple[str, ...]  # of the confusion matrix
    rows: tuple[MatrixRow, ...]
    left_out: int  # classes that the matrix leaves out
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Learning:
    """Whether the model of a control tag is learning."""

    curve: LearningCurve
    charts: tuple[Chart, ...]
    classes: tuple[ClassRow, ...]
    choices: tuple[VersionModel, ...]  # versions with a report, newest first
    chosen: int  # version; 0: none
    report: ModelReport | None
    problem: str  # why there is no report


def read(visit: Visit) -> Learning:
    """Return what the view shows. Raises NotFoundError for a version in `?version=` that has no model of the tag."""
    curve = learning_curve(visit.context, visit.record, visit.tag)
    models = version_models(visit.context, visit.record, visit.tag)
    shown, problem = _chosen(visit, models)
    report = shown.report.held_out if shown and shown.report else None
    return Learning(
        curve=curve,
        charts=charts(curve, visit.colours),
        classes=_class_rows(curve, shown.report if shown else None),
        choices=tuple(model for model in reversed(models) if model.report and model.report.held_out),
        chosen=shown.version.number if shown else 0,
        report=_model_report(visit, shown, report) if shown and report else None,
        problem=problem,
    )


def _chosen(visit: Visit, models: tuple[VersionModel, ...]) -> tuple[VersionModel | None, str]:
    """Return the version that `?version=` names, else the accepted one, and why it has no report."""
    wanted = visit.query.get("version", "")
    if wanted.isdecimal():
        shown = model_of_version(models, int(wanted))
    else:
        current = visit.context.store.current(visit.project_id)
        accepted = [model for model in models if current and model.version.number == current.number]
        if not accepted:
            return None, "There is no version yet, so there are no wrong answers to look at."
        shown = accepted[0]
    if shown.problem:
        return shown, shown.problem
    if shown.report is None:
        return shown, f"{shown.version.name} was trained by an earlier release, which kept no report."
    if shown.report.held_out is None:
        return shown, f"{shown.version.name} was trained while no image was held out, so nothing can be measured."
    return shown, ""


def charts(curve: LearningCurve, colours: Mapping[str, str]) -> tuple[Chart, ...]:
    """Return the learning curve over images, over boxes, and per class; none without a judged version."""
    if not curve.points:
        return ()
    over_images = [(point.images, point) for point in curve.points]
    over_labels = [(point.boxes, point) for point in curve.points if point.boxes is not None]
    shown = [_curve_chart(curve.measure, "images learned", over_images)]
    if over_labels:
        shown.append(_curve_chart(curve.measure, "labels learned", over_labels))
    return (*shown, _class_chart(curve, colours))


def _curve_chart(measure: str, x_title: str, pairs: Sequence[tuple[int, CurvePoint]]) -> Chart:
    accepted = [(x, point) for x, point in pairs if point.promoted]
    rejected = [(x, point) for x, point in pairs if not point.promoted]
    series = [_series("accepted", accepted)]
    if rejected:
        series.append(_series("rejected", rejected, mode="markers", colour="#d55e00", band=False))
    newest = pairs[-1][1]
    label = f"{measure} over {x_title}: {len(pairs)} versions, the newest {newest.quality:.3f}."
    return Chart(label, x_title, measure, tuple(series), (0.0, 1.0))


def _series(name: str, pairs: Sequence[tuple[int, CurvePoint]], *, band: bool = True, **look: str) -> Series:
    points = [point for _, point in pairs]
    spans = [point.interval for point in points if point.interval]
    has_band = band and len(spans) == len(points)
    return Series(
        name=name,
        x=[x for x, _ in pairs],
        y=[point.quality for point in points],
        low=[low for low, _ in spans] if has_band else (),
        high=[high for _, high in spans] if has_band else (),
        texts=[_hover(point.version, x, point.quality, point.interval) for x, point in pairs],
        **look,  # type: ignore[arg-type]
    )


def _hover(version: int, x: int, quality: float, interval: tuple[float, float] | None) -> str:
    span = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"version {version}, {x}: {quality:.3f}{span}"


def _class_chart(curve: LearningCurve, colours: Mapping[str, str]) -> Chart:
    newest = sorted(curve.points[-1].classes, key=lambda of_class: of_class.quality)
    names = [of_class.label for of_class in newest[:MOST_LINES]]
    series = []
    for name in names:
        rows = [
            (point, of_class)
            for point in curve.points
            if point.promoted or len(curve.points) == 1
            for of_class in point.classes
            if of_class.label == name
        ]
        spans = [of_class.interval for _, of_class in rows if of_class.interval]
        has_band = len(names) <= MOST_BANDS and len(spans) == len(rows)
        series.append(
            Series(
                name=name,
                x=[point.images for point, _ in rows],
                y=[of_class.quality for _, of_class in rows],
                low=[low for low, _ in spans] if has_band else (),
                high=[high for _, high in spans] if has_band else (),
                colour=colours.get(name, ""),
                texts=[
                    _hover(point.version, point.images, of_class.quality, of_class.interval) for point, of_class in rows
                ],
            )
        )
    label = f"Quality of each class over images learned, of {len(names)} classes. The table below has the newest."
    return Chart(label, "images learned", "quality of the class", tuple(series), (0.0, 1.0))


def _class_rows(curve: LearningCurve, report: EvaluationReport | None) -> tuple[ClassRow, ...]:
    """Return the classes of the chosen report, else those of the newest judged version; the worst first."""
    if report and report.held_out:
        learned = report.learned.by_class
        rows = [
            ClassRow(
                of_class.label, of_class.quality, of_class.interval, of_class.labels, learned.get(of_class.label, 0)
            )
            for of_class in report.held_out.class_quality
        ]
    elif curve.points:
        points = curve.points[-1].classes
        rows = [ClassRow(of_class.label, of_class.quality, of_class.interval, None, None) for of_class in points]
    else:
        rows = []
    return tuple(sorted(rows, key=lambda row: (row.quality is None, row.quality or 0.0)))


def _model_report(visit: Visit, shown: VersionModel, report: HeldOutReport) -> ModelReport:
    classes = shown.report.classes if shown.report else ()
    columns, rows, left_out = confusion_rows(report.confusion, classes)
    return ModelReport(
        shown=shown,
        report=report,
        reliability=_reliability_chart(report),
        error_before=calibration_error(report.raw),
        error_after=calibration_error(report.calibrated),
        columns=columns,
        rows=rows,
        left_out=left_out,
        tiles=tuple(_tile(visit, mistake, classes) for mistake in report.mistakes),
    )


def _reliability_chart(report: HeldOutReport) -> Chart:
    series = [Series("perfect", [0.0, 1.0], [0.0, 1.0], colour="#888888", mode="lines", dashed=True)]
    for name, bins, colour in (("before", report.raw, "#d55e00"), ("after", report.calibrated, "")):
        series.append(
            Series(
                name=name,
                x=[part.confidence for part in bins],
                y=[part.accuracy for part in bins],
                colour=colour,
                texts=[f"{part.count} answers: {part.confidence:.2f} sure, {part.accuracy:.0%} right" for part in bins],
            )
        )
    label = "Reliability diagram: the share of right answers by confidence, before and after the temperature."
    return Chart(label, "confidence", "share of right answers", tuple(series), (0.0, 1.0))


def confusion_rows(
    confusion: Sequence[Sequence[int]], classes: Sequence[str]
) -> tuple[tuple[str, ...], tuple[MatrixRow, ...], int]:
    """Return the columns and the rows of the confusion matrix, and the number of classes that are left out.

    Of more than MOST_CLASSES, those with most mistakes are shown.

    >>> confusion_rows([[3, 1, 0], [0, 2, 0], [0, 0, 0]], ["cat", "dog"])[1][0]
    MatrixRow(label='cat', counts=(3, 1, 0), shares=(0.75, 0.25, 0.0))
    """
    nothing = len(classes)
    mistakes = [
        sum(confusion[kind]) + sum(row[kind] for row in confusion) - 2 * confusion[kind][kind]
        for kind in range(nothing)
    ]
    worst = sorted(range(nothing), key=lambda kind: -mistakes[kind])[:MOST_CLASSES]
    kept = [*sorted(worst), nothing]
    names = (*classes, "nothing")
    rows = []
    for kind in kept:
        counts = tuple(confusion[kind][column] for column in kept)
        total = max(sum(confusion[kind]), 1)
        rows.append(MatrixRow(names[kind], counts, tuple(count / total for count in counts)))
    return tuple(names[kind] for kind in kept), tuple(rows), nothing - len(worst)


def _tile(visit: Visit, mistake: Mistake, classes: Sequence[str]) -> Tile:
    answer = mistake.answer
    text = described(answer, classes)
    overlay = answer_overlay((answer,), classes, visit.colours, visit.tag)
    if answer.predicted == NOTHING and visit.tag.task == "classify":
        overlay = Overlay((), (text,))
    return Tile(mistake.task_id, mistake.frame, overlay, text)


VIEW = View("learning", "Is it learning?", "Does the model get better, and what does it still get wrong?", read, {})
