"""Does the sampler save labels? The committed experiments of docs/experiments, compared with random.

`python -m tests.benchmarks.proof` writes docs/results.md from them; `make bench` holds them against their targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.curves import Comparison, Curve, Interval, compare
from backend.experiment import Results, load_results
from tests.benchmarks.report import Result

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FOLDER = DOCS / "results.md", DOCS / "experiments"
RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One committed run of `yolo-backend simulate`."""

    name: str  # of its file
    question: str
    command: str
    default: str  # the strategy held against the target
    target: float | None = None  # most labels to random's final mAP50, as a share of random's

    @property
    def results(self) -> Results:
        return load_results(FOLDER / f"{self.name}.json")


_INTRODUCTION = """# Does the sampler save labels?

Experiments of `yolo-backend simulate`; `python -m tests.benchmarks.proof` writes this page from
[experiments/](experiments). In brackets stands the 95% bootstrap interval over seeds, paired by seed: a gain whose
interval holds 0 is no difference beyond noise. "Labels needed" is the share of random's labels at which a strategy
reaches the mAP50 that random ends with. [simulate.md](simulate.md) says how an experiment runs.
"""
EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "scenes",
        "The default and `auto` against random, on scenes with a long tail",
        "yolo-backend simulate --data scenes --strategies random,class_entropy,auto --seeds 2 --jobs 2 --out DIR",
        default="class_entropy",
        target=0.35,
    ),
)


def run(_folder: Path) -> list[Result]:
    """Return which share of random's labels the default needs to random's final mAP50, where there is a target."""
    found = []
    for experiment in EXPERIMENTS:
        if experiment.target is not None:
            share = comparison(experiment.results, experiment.default).share
            what = f"{experiment.name}: labels to random's final mAP50, {experiment.default} vs random"
            value = share.value if math.isfinite(share.value) else 9.99  # JSON knows no infinity
            details = {"low": share.low, "high": share.high} if math.isfinite(share.high) else {}
            found.append(Result("proof", what, value, experiment.target, "x", at_most=True, details=details))
    return found


def comparison(results: Results, strategy: str) -> Comparison:
    """Return a strategy against random, by images."""
    return compare(curve(results, strategy), curve(results, RANDOM))


def curve(results: Results, strategy: str) -> Curve:
    """Return mAP50 over images, a row per seed."""
    seeds = range(results.plan.seeds)
    rows = [[row for row in results.rows if (row.strategy, row.seed) == (strategy, seed)] for seed in seeds]
    return Curve(
        np.array([[row.images for row in each] for each in rows], dtype=np.float64),
        np.array([[row.map50 for row in each] for each in rows]),
    )


def page() -> str:
    """Return docs/results.md."""
    return "".join(
        [
            _INTRODUCTION,
            *(part for experiment in EXPERIMENTS for part in _section(experiment)),
        ]
    )


def _section(experiment: Experiment) -> Iterator[str]:
    results = experiment.results
    plan = results.plan
    yield f"\n## {experiment.question}\n\n"
    software = ", ".join(f"{name} {version}" for name, version in plan.software.items())
    yield f"`{experiment.command}`\n\n"
    yield f"{results.date:%Y-%m-%d}, {results.machine}, seeds 0 to {plan.seeds - 1}, {software}.\n"
    yield f"Pool of {plan.pool} images, {plan.test} test images, epochs at least {plan.settings['min_epochs']}.\n\n"
    images = curve(results, RANDOM).labels[0]
    yield "| strategy | " + " | ".join(f"{count:.0f}" for count in images) + " | gain at the end | labels needed |\n"
    yield "|---|" + "---|" * (len(images) + 2) + "\n"
    for strategy in plan.strategies:
        means = curve(results, strategy).quality.mean(axis=0)
        against = comparison(results, strategy)
        last = (
            "| control | 100% |" if strategy == RANDOM else f"| {_gain(against.final_gain)} | {_share(against.share)} |"
        )
        yield f"| `{strategy}` | " + " | ".join(f"{value:.3f}" for value in means) + f" {last}\n"
    if experiment.target is not None:
        share = comparison(results, experiment.default).share.value
        met = "met" if share <= experiment.target else "missed"
        yield f"\nTarget for `{experiment.default}`: at most {experiment.target:.0%} of random's labels: **{met}**.\n"


def _gain(gain: Interval) -> str:
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def _share(share: Interval) -> str:
    low, high, value = (
        f"{one:.0%}" if math.isfinite(one) else "not reached" for one in (share.low, share.high, share.value)
    )
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
