"""The sentences and the tables of an experiment's page: each strategy against random, and the classes it picked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.simulate import curves, learning
from backend.simulate.curves import Comparison, Curve, Interval
from backend.simulate.records import Plan, Row
from backend.simulate.simulation_data import SimulationData
from backend.yolo.tasks import RECIPES

RANDOM = "random"
_WORDS = {1: "better", -1: "worse", 0: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    """A number with its interval; `verdict` is "better" or "worse" where the interval excludes 0."""

    value: str
    interval: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first entry of the head is the heading of the column with the names of the rows."""

    head: tuple[str, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sentence about a strategy; `word` is "better" or "worse" if it differs significantly from random."""

    strategy: str
    word: str
    text: str


class StrategyRows:
    """The rows of one strategy as curves."""

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        self.name = name
        self.rows = rows
        seeds = sorted({row.seed for row in rows})
        by_seed = [sorted((row for row in rows if row.seed == seed), key=lambda row: row.round) for seed in seeds]
        self.quality = np.array([[row.map50 for row in rounds] for rounds in by_seed])
        self.images = np.array([[row.images for row in rounds] for rounds in by_seed], dtype=np.float64)
        self.boxes = np.array([[row.boxes for row in rounds] for rounds in by_seed], dtype=np.float64)

    def curve(self, over: str) -> Curve:
        """Return the quality over the labeled "images", or over the labels in them ("boxes")."""
        return Curve(self.images if over == "images" else self.boxes, self.quality)

    def class_curve(self, name: str) -> Curve | None:
        """Return the quality of a class over the labeled images, None if a round did not measure it."""
        measured = {(row.seed, row.round): row.class_ap50.get(name) for row in self.rows}
        rounds = sorted({row.round for row in self.rows})
        by_seed = [
            [measured.get((seed, round_)) for round_ in rounds] for seed in sorted({row.seed for row in self.rows})
        ]
        if any(value is None for values in by_seed for value in values):
            return None
        return Curve(self.images, np.array(by_seed, dtype=np.float64))

    @property
    def final(self) -> Interval:
        """The quality after the last round; with one seed, its interval is over the test images."""
        over_seeds = curves.compare(self.curve("images"), self.curve("images")).final
        ends = max(self.rows, key=lambda row: row.round).interval
        return replace(over_seeds, low=ends[0], high=ends[1]) if len(self.quality) < 2 and ends else over_seeds

    def class_ap(self, name: str) -> Interval:
        """Return the mean quality of a class after the last round, NaN if the test split lacks the class."""
        last = max(row.round for row in self.rows)
        values = np.array([row.class_ap50[name] for row in self.rows if row.round == last and name in row.class_ap50])
        if not len(values):
            return Interval(math.nan, math.nan, math.nan)
        return curves.bootstrap(lambda drawn: float(values[drawn].mean()), len(values))


def answer(strategies: Mapping[str, StrategyRows], plan: Plan, lowest: float) -> str:
    """Return the answer to "is it worth it?" for a person who plans a labeling project; strategies include random."""
    random = strategies[RANDOM].curve("images")
    compared = {
        name: curves.compare(rows.curve("images"), random) for name, rows in strategies.items() if name != RANDOM
    }
    if not compared:
        return "Only random selection was tried, so there is nothing to compare."
    if not learning.gained_by_labels(random, lowest):
        return "Cannot say: even random labels did not improve the model, so no order of labeling can be better."
    if plan.seeds < 2:
        return "Cannot say yet: with one seed, any difference may be noise. Run again with --seeds 3 or more."
    better = {name: result for name, result in compared.items() if result.area_gain.sign > 0}
    if not better:
        worse = sum(result.area_gain.sign < 0 for result in compared.values())
        end = f"; {worse} of them did worse" if worse else ""
        return f"Not shown: none of {len(compared)} strategies was significantly better than random order{end}."
    name = max(better, key=lambda name: better[name].area_gain.value)
    share = better[name].share
    if math.isinf(share.value) or share.value >= 1:
        gain = better[name].area_gain.value
        return f"A little: {name} is better by {gain:.3f} {plan.quality} on average, but saves no images at the end."
    likely = "" if math.isnan(share.low) else f" (95%: {_percent(share.low)} to {_percent(share.high)})"
    return (
        f"Yes: with {name} you label {_percent(share.value)} of the images{likely} that random order needs for the "
        "same quality."
    )


def _percent(share: float) -> str:
    return "more than all" if math.isinf(share) else f"{share:.0%}"


def verdicts(strategies: Mapping[str, StrategyRows], plan: Plan, lowest: float) -> list[Verdict]:
    """Return a sentence for each strategy but random."""
    random = strategies[RANDOM].curve("images")
    gained = learning.gained_by_labels(random, lowest)
    sentences = []
    for name, rows in strategies.items():
        if name == RANDOM:
            continue
        compared = curves.compare(rows.curve("images"), random)
        word, text = _difference(compared.area_gain, plan)
        reached = "random gained nothing by more labels, so there is no share of labels to compare"
        sentences.append(Verdict(name, word, f"{text}; {_reached(compared, plan.quality) if gained else reached}"))
    return sentences


def _difference(gain: Interval, plan: Plan) -> tuple[str, str]:
    if plan.seeds < 2:
        return "", "with one seed, any difference may be noise"
    if not gain.sign:
        return "", "no significant difference from random"
    return _WORDS[gain.sign], f" by {abs(gain.value):.3f} {plan.quality}, averaged over the labels"


def _reached(compared: Comparison, quality: str) -> str:
    share = compared.share
    if math.isinf(share.value):
        return f"it did not reach the last {quality} of random"
    return f"it reached the last {quality} of random with {share.value:.0%} of the images"


def against_random(strategies: Mapping[str, StrategyRows], plan: Plan, lowest: float) -> Table:
    """Return the numbers behind the sentences."""
    quality, labels = plan.quality, RECIPES[plan.task].labels
    head = ["strategy", f"last {quality}", f"mean {quality} over the labels"]
    random = strategies.get(RANDOM)
    if random:
        head += ["last against random", "mean against random", f"images to random's last {quality}", f"{labels} to it"]
    gained = random is not None and learning.gained_by_labels(random.curve("images"), lowest)
    rows = []
    for name, strategy in strategies.items():
        against = random or strategy
        images, boxes = (curves.compare(strategy.curve(over), against.curve(over)) for over in ("images", "boxes"))
        cells = [_number(strategy.final), _number(images.area)]
        if name == RANDOM:
            cells += [Cell("-")] * 4
        elif random:
            shares = [_share(images.share), _share(boxes.share)] if gained else [Cell("-")] * 2
            cells += [_gain(images.final_gain), _gain(images.area_gain), *shares]
        rows.append(TableRow(name, tuple(cells)))
    return Table(tuple(head), tuple(rows))


def noise(seeds: int) -> str:
    """Return the sentences that explain the intervals of the table."""
    if seeds < 2:
        return (
            "With one seed, any difference may be noise. Below the last value is its 95% bootstrap interval over the "
            "test images; the other values have none."
        )
    return (
        "Below each value is its 95% bootstrap interval over seeds, paired by seed. A value is bold if the interval "
        f"excludes 0. With {seeds} seeds, {curves.chance(seeds):.0%} of strategies that equal random have all seeds on "
        "the same side of 0."
    )


def class_shares(strategies: Mapping[str, StrategyRows], plan: Plan, data: SimulationData) -> Table:
    """Return the share of each class in the labels of the picked images, and in those of the whole pool.

    The first batch counts where a line has its own.
    """
    labels_in = {data.name(index): Counter(box.label for box in file.boxes) for index, file in enumerate(data.pool)}
    rows = [TableRow("whole pool", _shares(sum(labels_in.values(), Counter[str]()), plan.classes))]
    for name, strategy in strategies.items():
        counts = Counter[str]()
        for image in (image for row in strategy.rows if row.round > 1 or "+" in name for image in row.picked):
            counts.update(labels_in[image])
        rows.append(TableRow(name, _shares(counts, plan.classes)))
    return Table((f"share of {RECIPES[plan.task].labels}", *plan.classes), tuple(rows))


def class_quality(strategies: Mapping[str, StrategyRows], plan: Plan) -> Table:
    """Return the quality of each class after the last round."""
    rows = (
        TableRow(name, tuple(_number(strategy.class_ap(label)) for label in plan.classes))
        for name, strategy in strategies.items()
    )
    return Table(("strategy", *plan.classes), tuple(rows))


def _shares(counts: Counter[str], classes: Sequence[str]) -> tuple[Cell, ...]:
    total = sum(counts.values())
    return tuple(Cell(f"{counts[name] / total:.1%}" if total else "-") for name in classes)


def _gain(interval: Interval) -> Cell:
    ends = "" if math.isnan(interval.low) else f"{interval.low:+.3f} … {interval.high:+.3f}"
    return Cell(f"{interval.value:+.3f}", ends, _WORDS[interval.sign])


def _share(interval: Interval) -> Cell:
    def word(value: float) -> str:
        """Return a share in percent, or "not reached"."""
        return "not reached" if math.isinf(value) else f"{value:.0%}"

    certain = math.isnan(interval.low) or interval.low == interval.high
    return Cell(word(interval.value), "" if certain else f"{word(interval.low)} … {word(interval.high)}")


def _number(interval: Interval) -> Cell:
    """Return a quality with its interval."""
    if math.isnan(interval.value):
        return Cell("-")
    return Cell(
        f"{interval.value:.3f}", "" if math.isnan(interval.low) else f"{interval.low:.3f} … {interval.high:.3f}"
    )
