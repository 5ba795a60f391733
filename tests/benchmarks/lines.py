"""The committed results of an experiment: for each line of its table, the learning curve of every seed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from backend.simulate.curves import Curve
from backend.simulate.records import Frozen, Plan, Row

COMMITTED = Path(__file__).parents[2] / "docs" / "experiments"

Grid = tuple[tuple[float, ...], ...]  # a row per seed, a column per round


class Line(Frozen):
    """One line of the table; the quality is mAP50, or accuracy for classification."""

    name: str
    images: Grid
    quality: Grid
    boxes: Grid = ()
    map50_95: Grid = ()
    refused: int = 0  # versions that were not published

    @property
    def curve(self) -> Curve:
        """Return the quality over images."""
        return Curve(np.array(self.images), np.array(self.quality))

    @property
    def by_boxes(self) -> Curve | None:
        """Return the quality over boxes, None for classification."""
        return Curve(np.array(self.boxes), np.array(self.quality)) if self.boxes else None


class Table(Frozen):
    """The lines of one experiment, with its data, machine and software."""

    lines: tuple[Line, ...]
    facts: str  # pool, test set, training, in words
    date: datetime
    machine: str
    software: dict[str, str]

    def line(self, name: str) -> Line:
        """Return a line. Raises KeyError for an unknown name."""
        return {line.name: line for line in self.lines}[name]


def line_of(name: str, rows: Sequence[Row]) -> Line:
    """Return the rows of one strategy as a line."""
    seeds = sorted({row.seed for row in rows})
    by_seed = [sorted((row for row in rows if row.seed == seed), key=lambda row: row.round) for seed in seeds]
    return Line(
        name=name,
        images=tuple(tuple(float(row.images) for row in rounds) for rounds in by_seed),
        boxes=tuple(tuple(float(row.boxes) for row in rounds) for rounds in by_seed),
        quality=tuple(tuple(round(row.map50, 4) for row in rounds) for rounds in by_seed),
        map50_95=tuple(tuple(round(row.map50_95, 4) for row in rounds) for rounds in by_seed),
        refused=sum(not row.published for row in rows),
    )


def facts_of(plans: Sequence[Plan]) -> str:
    """Return the settings of the plans in words; settings in which the plans differ are in the names of the lines."""
    plan = plans[0]
    start = f"{'fine-tuned from' if plan.base.sha256 else 'from scratch:'} {Path(plan.base.source).name}"
    facts = [f"Pool of {plan.pool} images, {plan.test} test images, {plan.settings['imgsz']} px, {start}"]
    for describe in (_steps, _chance):
        if len({describe(other) for other in plans}) == 1:
            facts.append(describe(plan))
    return ", ".join(facts) + "."


def _steps(plan: Plan) -> str:
    growth = plan.settings.get("steps_growth", 0)
    law = f" · (n/50)^{growth:g}" if growth else ""
    return f"{plan.settings['train_steps']}{law} steps and at least {plan.settings['min_epochs']} epochs"


def _chance(plan: Plan) -> str:
    return f"explore share {plan.settings['explore_share']:.0%}"


def load(name: str) -> Table:
    """Return the committed table of an experiment."""
    table: Table = Table.model_validate_json((COMMITTED / f"{name}.json").read_bytes())
    return table
