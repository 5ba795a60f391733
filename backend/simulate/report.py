"""The page of an experiment: one HTML file that loads nothing, with null results shown as such."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np

from backend.evaluation import basis
from backend.simulate import charts, curves, learning, picked
from backend.simulate.charts import Line
from backend.simulate.curves import Comparison, Curve, Interval
from backend.simulate.records import Plan, Results, Row
from backend.simulate.simulation_data import SimulationData
from backend.yolo.tasks import RECIPES

RANDOM = "random"
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
_GREY = "#555555"

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Is it worth it?</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>
body { font: 15px/1.5 sans-serif; max-width: 1280px; margin: 24px auto; padding: 0 16px; color: #222 }
h1 { font-size: 24px } h2 { font-size: 18px; margin-top: 32px }
table { border-collapse: collapse } th, td { padding: 3px 10px; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } td { vertical-align: top; white-space: nowrap }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px } .key i { display: inline-block; width: 22px; height: 4px;
margin-right: 6px; vertical-align: middle }
.wide { overflow-x: auto } .small { color: #666; font-size: 13px }
.picks i { display: inline-block; width: 72px; height: 72px; margin: 1px; background-color: #eee;
background-position: center; background-size: contain; background-repeat: no-repeat }
.better { color: #00703c; font-weight: bold } .worse { color: #b00020; font-weight: bold }
</style></head><body>
"""


_END = "</body></html>\n"


def render(results: Results, data: SimulationData) -> str:
    """Return the page; `data` gives the pictures and the true classes of what was picked."""
    found = {name: _Strategy(name, [row for row in results.rows if row.strategy == name]) for name in _names(results)}
    quality, labels = results.plan.quality, RECIPES[results.plan.task].labels
    lowest = learning.floor(results.plan, data.test)
    if results.plan.test < basis.MIN_JUDGED_IMAGES:
        return "".join([_HEAD, "<h1>Is it worth it?</h1>", _not_judged(results.plan), _origin(results), _END])
    colours = {name: _GREY if name == RANDOM else _COLOURS[at % len(_COLOURS)] for at, name in enumerate(found)}
    return "".join(
        [
            _HEAD,
            "<h1>Is it worth it?</h1>",
            _summary(results, found, lowest),
            _table(results, found, lowest),
            "<h2>Learning curves</h2>",
            _key(colours),
            '<div class="charts">',
            charts.line_chart([_line(one, "images", colours) for one in found.values()], "labeled images", quality),
            charts.line_chart([_line(one, "boxes", colours) for one in found.values()], f"{labels} in them", quality),
            "</div>",
            '<p class="small">Lines are means over seeds, bands reach from the lowest to the highest seed.</p>',
            _classes(results, found, data),
            _irregular(results),
            picked.show(_names(results), results.rows, {data.name(at): file.path for at, file in enumerate(data.pool)}),
            _origin(results),
            _END,
        ]
    )


class _Strategy:
    """The rows of one strategy as curves."""

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        self.name = name
        self.rows = rows
        seeds = sorted({row.seed for row in rows})
        by_seed = [sorted((row for row in rows if row.seed == seed), key=lambda row: row.round) for seed in seeds]
        self.quality = np.array([[row.map50 for row in each] for each in by_seed])
        self.images = np.array([[row.images for row in each] for each in by_seed], dtype=np.float64)
        self.boxes = np.array([[row.boxes for row in each] for each in by_seed], dtype=np.float64)

    def curve(self, over: str) -> Curve:
        return Curve(self.images if over == "images" else self.boxes, self.quality)

    @property
    def final(self) -> Interval:
        """The quality after the last round; of one seed the interval is that over the test images."""
        over_seeds = curves.compare(self.curve("images"), self.curve("images")).final
        ends = max(self.rows, key=lambda row: row.round).interval
        return replace(over_seeds, low=ends[0], high=ends[1]) if len(self.quality) < 2 and ends else over_seeds

    def class_ap(self, name: str) -> Interval:
        """Return the mean quality of a class after the last round, NaN where the test split has none of it."""
        last = max(row.round for row in self.rows)
        known = np.array([row.class_ap50[name] for row in self.rows if row.round == last and name in row.class_ap50])
        if not len(known):
            return Interval(math.nan, math.nan, math.nan)
        return curves.bootstrap(lambda drawn: float(known[drawn].mean()), len(known))


def _names(results: Results) -> list[str]:
    """Return the strategies, random last."""
    return sorted(results.plan.strategies, key=lambda name: name == RANDOM)


def _summary(results: Results, found: dict[str, _Strategy], lowest: float) -> str:
    plan = results.plan
    labeled = plan.initial + (plan.rounds - 1) * plan.batch
    text = (
        f"{plan.pool} images to choose from, {plan.initial} at random and then {plan.batch} at a time, {labeled} in "
        f"all, {plan.seeds} seed{'s' * (plan.seeds > 1)}; measured on {plan.test} other images."
    )
    verdicts = [_sentence(name, found, plan, lowest) for name in found if name != RANDOM]
    if advice := learning.nothing_learned(results, lowest):
        verdicts = [f"<b>{escape(advice)}</b>"]
    elif RANDOM not in found:
        verdicts = ["Random selection is not among the strategies, so nothing can be said of labels saved."]
    return f"<p>{escape(text)}</p><ul>{''.join(f'<li>{each}</li>' for each in verdicts)}</ul>"


def _not_judged(plan: Plan) -> str:
    """Say that the test split is too small for any figure to tell something."""
    return (
        f"<p>{basis.NOT_JUDGED.capitalize()}: the test split has {plan.test} images, and "
        f"{basis.MIN_JUDGED_IMAGES} are needed. Put more into it; results.json has the figures all the same.</p>"
    )


def _sentence(name: str, found: dict[str, _Strategy], plan: Plan, lowest: float) -> str:
    if RANDOM not in found:
        return ""
    compared = curves.compare(found[name].curve("images"), found[RANDOM].curve("images"))
    gain = compared.area_gain
    if plan.seeds < 2:
        verdict = "one seed says nothing of noise"
    elif gain.sign:
        word = "better" if gain.sign > 0 else "worse"
        verdict = f'<span class="{word}">{word} than random</span> by {abs(gain.value):.3f} {plan.quality} on the way'
    else:
        verdict = "no difference from random beyond noise"
    if learning.gained_by_labels(found[RANDOM].curve("images"), lowest):
        reached = _reached(compared, plan.quality)
    else:
        reached = "random gained nothing by its labels, so no share of them can be named"
    return f"<b>{escape(name)}</b>: {verdict}; {reached}"


def _reached(compared: Comparison, quality: str) -> str:
    share = compared.share
    if math.isinf(share.value):
        return f"it did not reach the {quality} that random ended with"
    return f"it had reached random's last {quality} with {share.value:.0%} of the images"


def _table(results: Results, found: dict[str, _Strategy], lowest: float) -> str:
    """Return the numbers behind the sentences."""
    gained = RANDOM in found and learning.gained_by_labels(found[RANDOM].curve("images"), lowest)
    quality, labels = results.plan.quality, RECIPES[results.plan.task].labels
    head = ["strategy", f"last {quality}", f"mean {quality} on the way"]
    if RANDOM in found:
        head += ["last against random", "mean against random", f"images to random's last {quality}", f"{labels} to it"]
    rows = ""
    for name, one in found.items():
        against = found.get(RANDOM, one)
        images, boxes = (curves.compare(one.curve(over), against.curve(over)) for over in ("images", "boxes"))
        cells = [_number(one.final), _number(images.area)]
        if name == RANDOM:
            cells += ["-"] * 4
        elif RANDOM in found:
            shares = [_share(images.share), _share(boxes.share)] if gained else ["-", "-"]
            cells += [_gain(images.final_gain), _gain(images.area_gain), *shares]
        rows += _row(name, cells)
    return f'<h2>Against random</h2>{_grid(head, rows)}<p class="small">{escape(_noise(results.plan.seeds))}</p>'


def _noise(seeds: int) -> str:
    if seeds < 2:
        return (
            "One seed: any difference may be noise. Below the last figure stands its 95% bootstrap interval over the "
            "test images; the others have none."
        )
    return (
        "Below each value its 95% bootstrap interval over seeds, paired by seed; bold where it excludes 0. "
        f"Of strategies no different from random, {curves.chance(seeds):.0%} are on one side of it in {seeds} seeds."
    )


def _gain(interval: Interval) -> str:
    kind = {1: ' class="better"', -1: ' class="worse"', 0: ""}[interval.sign]
    span = "" if math.isnan(interval.low) else f"<br>{interval.low:+.3f} … {interval.high:+.3f}"
    return f"<span{kind}>{interval.value:+.3f}</span>{span}"


def _share(interval: Interval) -> str:
    def word(value: float) -> str:
        return "not reached" if math.isinf(value) else f"{value:.0%}"

    certain = math.isnan(interval.low) or interval.low == interval.high
    return word(interval.value) + ("" if certain else f"<br>{word(interval.low)} … {word(interval.high)}")


def _key(colours: dict[str, str]) -> str:
    keys = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items())
    return f'<div class="key">{"".join(keys)}</div>'


def _line(one: _Strategy, over: str, colours: dict[str, str]) -> Line:
    curve = one.curve(over)
    x, y = curve.mean(np.arange(len(curve.labels)))
    low, high = curve.quality.min(axis=0), curve.quality.max(axis=0)
    return Line(one.name, colours[one.name], x, y, low, high, dashed=one.name == RANDOM)


def _classes(results: Results, found: dict[str, _Strategy], data: SimulationData) -> str:
    """Say which classes were picked, and how well each is found in the end."""
    contents = {data.name(at): Counter(box.label for box in file.boxes) for at, file in enumerate(data.pool)}
    classes, noun = results.plan.classes, RECIPES[results.plan.task].labels
    shares = _row("whole pool", _shares(sum(contents.values(), Counter[str]()), classes))
    for name, one in found.items():
        picked = Counter[str]()
        for image in (image for row in one.rows if row.round > 1 for image in row.picked):
            picked.update(contents[image])
        shares += _row(name, _shares(picked, classes))
    quality = "".join(_row(name, [_number(one.class_ap(label)) for label in classes]) for name, one in found.items())
    return (
        f"<h2>Which classes were picked</h2>{_grid((f'share of {noun}', *classes), shares)}"
        f"<h2>{_of_a_class(results.plan.quality)} of each class after the last round</h2>"
        f"{_grid(('strategy', *classes), quality)}"
    )


def _of_a_class(quality: str) -> str:
    """Return the quality of one class: mAP is a mean over classes.

    >>> _of_a_class("mask mAP50"), _of_a_class("top-1 accuracy")
    ('mask AP50', 'top-1 accuracy')
    """
    return quality.replace("mAP", "AP")


def _grid(head: Sequence[str], rows: str) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><tr>{cells}</tr>{rows}</table></div>'


def _row(name: str, cells: Sequence[str]) -> str:
    return f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _shares(counts: Counter[str], classes: Sequence[str]) -> list[str]:
    total = sum(counts.values())
    return [f"{counts[name] / total:.1%}" if total else "-" for name in classes]


def _number(interval: Interval) -> str:
    """Return a quality, with its interval below it."""
    if math.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f}" + (
        "" if math.isnan(interval.low) else f"<br>{interval.low:.3f} … {interval.high:.3f}"
    )


def _irregular(results: Results) -> str:
    """Name the rounds in which the loop did not take its usual course."""
    refused = Counter(row.strategy for row in results.rows if not row.published)
    unable = Counter((row.strategy, row.unranked) for row in results.rows if row.unranked)
    lines = [
        f"{name}: {count} versions were not published, so the queue kept its order" for name, count in refused.items()
    ]
    lines += [f"{name}: {count} times it could not rank: {why}" for (name, why), count in unable.items()]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>What went otherwise, as it would in production</h2><ul>{items}</ul>" if lines else ""


def _origin(results: Results) -> str:
    """Say how the numbers came about, so that they can be had again."""
    plan, settings = results.plan, results.plan.settings
    names = "imgsz train_steps min_epochs max_epochs batch train_from explore_share protocol tolerance"
    facts = [
        f"{results.date:%Y-%m-%d %H:%M} UTC on {results.machine}",
        f"data {plan.data}; base weights {plan.base.source}",
        ", ".join(f"{name.upper()} {settings[name]}" for name in names.split() if name in settings),
        ", ".join(f"{name} {version}" for name, version in plan.software.items()),
    ]
    return f'<p class="small">{"<br>".join(escape(fact) for fact in facts)}</p>'
