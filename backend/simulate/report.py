"""The page of an experiment: one HTML file that loads nothing; strategies without a gain are shown as such."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from backend.evaluation import basis
from backend.simulate import charts, learning, picked, report_tables
from backend.simulate.charts import Line
from backend.simulate.curves import Curve
from backend.simulate.records import Plan, Results
from backend.simulate.report_tables import RANDOM, StrategyRows
from backend.simulate.simulation_data import SimulationData
from backend.yolo.tasks import RECIPES

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8b5e3c",
    "#6a3d9a",
    "#b2182b",
    "#1b7837",
)
_GREY = "#777777"
MOST_CLASSES = 12  # whose curves are drawn; the table has all classes


def render(results: Results, data: SimulationData) -> str:
    """Return the page; `data` provides the picked images and their true classes."""
    plan = results.plan
    if plan.test < basis.MIN_JUDGED_IMAGES:
        return _template().render(not_judged=_not_judged(plan), origin=_origin(results))
    names = _names(results)
    strategies = {name: StrategyRows(name, [row for row in results.rows if row.strategy == name]) for name in names}
    lowest = learning.floor(plan, data.test)
    advice = learning.nothing_learned(results, lowest)
    if not advice and RANDOM not in strategies:
        missing = "Random selection is not among the strategies, so the saved labels cannot be computed."
    else:
        missing = ""
    colours = {name: _GREY if name == RANDOM else _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    paths = {data.name(index): file.path for index, file in enumerate(data.pool)}
    return _template().render(
        not_judged="",
        summary=_summary(plan),
        answer="" if advice or missing else report_tables.answer(strategies, plan, lowest),
        advice=advice,
        missing=missing,
        verdicts=() if advice or missing else report_tables.verdicts(strategies, plan, lowest),
        against_random=report_tables.against_random(strategies, plan, lowest),
        noise=report_tables.noise(plan.seeds),
        colours=colours,
        charts=_charts(strategies, plan, colours),
        class_charts=_class_charts(strategies, plan, colours),
        class_shares=report_tables.class_shares(strategies, plan, data),
        class_quality=report_tables.class_quality(strategies, plan),
        class_quality_name=_of_a_class(plan.quality),
        irregular=_irregular(results),
        gallery=picked.gallery(names, results.rows, paths),
        origin=_origin(results),
    )


@cache
def _template() -> Template:
    loader = PackageLoader("backend.simulate", package_path="")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2")


def _names(results: Results) -> list[str]:
    """Return the strategies, random last."""
    return sorted(results.plan.strategies, key=lambda name: name == RANDOM)


def _summary(plan: Plan) -> str:
    labeled = plan.initial + (plan.rounds - 1) * plan.batch
    return (
        f"{plan.pool} images to choose from, {plan.initial} first and then {plan.batch} at a time, {labeled} in "
        f"all, {plan.seeds} seed{'s' * (plan.seeds > 1)}; measured on {plan.test} other images."
    )


def _not_judged(plan: Plan) -> str:
    """Return the reason why no figure is shown: the test split is too small."""
    return (
        f"{basis.NOT_JUDGED.capitalize()}: the test split has {plan.test} images, and "
        f"{basis.MIN_JUDGED_IMAGES} are needed. Put more into it; results.json has the figures all the same."
    )


def _charts(strategies: dict[str, StrategyRows], plan: Plan, colours: dict[str, str]) -> list[str]:
    """Return the learning curves as <svg>, over images and over labels."""
    axes = {"images": "labeled images", "boxes": f"{RECIPES[plan.task].labels} in them"}
    return [
        charts.line_chart([_line(rows, rows.curve(over), colours) for rows in strategies.values()], title, plan.quality)
        for over, title in axes.items()
    ]


def _class_charts(strategies: dict[str, StrategyRows], plan: Plan, colours: dict[str, str]) -> list[tuple[str, str]]:
    """Return the name of each class and its learning curves as <svg>; at most MOST_CLASSES, none for a single class."""
    if len(plan.classes) < 2:
        return []
    charts_of_classes = []
    for label in plan.classes[:MOST_CLASSES]:
        curves = [(rows, rows.class_curve(label)) for rows in strategies.values()]
        lines = [_line(rows, curve, colours) for rows, curve in curves if curve is not None]
        if lines:
            svg = charts.line_chart(lines, "labeled images", _of_a_class(plan.quality))
            charts_of_classes.append((label, svg))
    return charts_of_classes


def _line(rows: StrategyRows, curve: Curve, colours: dict[str, str]) -> Line:
    x, y = curve.mean(np.arange(len(curve.labels)))
    low, high = curve.quality.min(axis=0), curve.quality.max(axis=0)
    return Line(rows.name, colours[rows.name], x, y, low, high, dashed=rows.name == RANDOM)


def _of_a_class(quality: str) -> str:
    """Return the name of the quality of a single class; mAP is a mean over classes.

    >>> _of_a_class("mask mAP50"), _of_a_class("top-1 accuracy")
    ('mask AP50', 'top-1 accuracy')
    """
    return quality.replace("mAP", "AP")


def _irregular(results: Results) -> list[str]:
    """Return a sentence about the rounds in which no version was published or the strategy could not rank."""
    refused = Counter(row.strategy for row in results.rows if not row.published)
    unable = Counter((row.strategy, row.unranked) for row in results.rows if row.unranked)
    lines = [
        f"{name}: {count} versions were not published, so the queue did not change" for name, count in refused.items()
    ]
    return lines + [f"{name}: could not rank {count} times: {why}" for (name, why), count in unable.items()]


def _origin(results: Results) -> list[str]:
    """Return the date, the data, the settings and the software, so that the results can be reproduced."""
    plan, settings = results.plan, results.plan.settings
    names = "imgsz train_steps min_epochs max_epochs batch train_from explore_share protocol tolerance"
    return [
        f"{results.date:%Y-%m-%d %H:%M} UTC on {results.machine}",
        f"data {plan.data}; base weights {plan.base.source}",
        ", ".join(f"{name.upper()} {settings[name]}" for name in names.split() if name in settings),
        ", ".join(f"{name} {version}" for name, version in plan.software.items()),
    ]
