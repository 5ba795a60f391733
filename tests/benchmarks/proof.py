"""Does the sampler save labels? The committed tables of docs/experiments, compared with their controls.

`python -m tests.benchmarks.proof` writes docs/results.md from them; `make bench` compares them with their targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from backend.simulate.curves import Comparison, Curve, Interval, compare
from tests.benchmarks import corrections, digits, few_boxes, few_labels
from tests.benchmarks.experiments import EXPERIMENTS, RANDOM, Experiment
from tests.benchmarks.findings import FINDINGS
from tests.benchmarks.lines import COMMITTED, Line, Table, load
from tests.benchmarks.report import Result

PAGE = Path(__file__).parents[2] / "docs" / "results.md"

_INTRODUCTION = """# Does the sampler save labels?

`python -m tests.benchmarks.proof` writes this page from the files in `docs/experiments/`. `yolo-backend simulate`
and the commands below have written these files.

- Brackets hold the 95% bootstrap interval over seeds, paired by seed. If the interval of a gain contains 0, the gain is
  not significant. With one seed there is no interval.
- "Images needed" is the number of images with which a strategy reaches the last value of the control, as a share of the
  control's images. "Boxes needed" is the same share of the drawn boxes.
- "Refused" counts versions that were worse on the held-out images. They were not published, and the queue kept its
  order.
- Every training starts from the base weights, unless the table says that trainings continue from the last version.
  Continuing is the default now.
- [Simulate](simulate.md) explains how an experiment runs. `pytest tests/loop/test_live_simulation.py` runs one
  experiment in Label Studio and in the simulation, and both pick the same images in the same order.
- No weights could be downloaded on the machine of these experiments. `letters.pt` is a YOLO11n that was trained to
  detect letters (`python -m tests.benchmarks.base FOLDER`). `yolo11n.yaml` is trained from scratch.
"""

# Experiments with a command of their own.
_SCRATCH = Experiment("scenes", "The default on scenes with a long tail, from scratch", (), target=0.35)
_DIGITS = Experiment(
    digits.SHARE, "The share of a batch picked by margin, scikit-learn's digits as classification", (), control="0%"
)
_CHOICE = Experiment(digits.CHOICE, "How uncertain is a choice among ten classes? scikit-learn's digits again", ())
_CORRECTIONS = Experiment(
    corrections.NAME,
    "Do wrong labels harm versions that continue from the last one?",
    (),
    control=corrections.ARMS[0].name,
)
_COMMANDS = {
    _CORRECTIONS.name: "python -m tests.benchmarks.corrections FOLDER",
    _SCRATCH.name: "STEPS_GROWTH=0 TRAIN_FROM=base yolo-backend simulate --data scenes "
    "--strategies random,class_entropy,information_density_unique,auto --seeds 2 --jobs 2 --out FOLDER",
    _DIGITS.name: "python -m tests.benchmarks.digits",
    _CHOICE.name: "python -m tests.benchmarks.digits",
}
SECTIONS = (_SCRATCH, *EXPERIMENTS, _CORRECTIONS, _DIGITS, _CHOICE)


def committed() -> tuple[Experiment, ...]:
    """Return the experiments that have results."""
    return tuple(experiment for experiment in SECTIONS if (COMMITTED / f"{experiment.name}.json").is_file())


def run(_folder: Path) -> list[Result]:
    """Return the results of the experiments with a target: the labels that the default needs, or its largest loss."""
    results = []
    for experiment in committed():
        against = (
            comparison(experiment, load(experiment.name), experiment.judged)
            if (experiment.target, experiment.behind) != (None, None)
            else None
        )
        if against is not None and experiment.target is not None:
            share = against.share
            value = share.value if math.isfinite(share.value) else 9.99  # JSON knows no infinity
            promise = f"{experiment.name}: labels to random's final mAP50, {experiment.judged} vs random"
            results.append(
                Result("proof", promise, value, experiment.target, "x", at_most=True, details=_details(share))
            )
        if against is not None and experiment.behind is not None:
            promise = f"{experiment.name}: most mAP50 behind random beyond noise, {experiment.judged}"
            results.append(
                Result(
                    "proof",
                    promise,
                    behind(experiment, load(experiment.name)),
                    experiment.behind,
                    "mAP50",
                    at_most=True,
                )
            )
    return results


def comparison(experiment: Experiment, table: Table, name: str) -> Comparison:
    """Return the comparison of a line with the experiment's control, by images."""
    return compare(table.line(name).curve, table.line(experiment.control).curve)


def behind(experiment: Experiment, table: Table) -> float:
    """Return the largest mAP50 by which the judged line is significantly below the control, over all rounds."""
    ours, control = table.line(experiment.judged).curve, table.line(experiment.control).curve
    rounds = range(1, ours.labels.shape[1] + 1)
    gains = [compare(_until(ours, last), _until(control, last)).final_gain for last in rounds]
    return max(0.0, *(-(gain.value if math.isnan(gain.high) else gain.high) for gain in gains))


def _until(curve: Curve, last: int) -> Curve:
    return Curve(curve.labels[:, :last], curve.quality[:, :last])


def page() -> str:
    """Return docs/results.md."""
    done = committed()
    parts = [_INTRODUCTION, *(part for experiment in done for part in _section(experiment, load(experiment.name)))]
    if missing := [experiment for experiment in SECTIONS if experiment not in done]:
        parts += [
            "\n## Not run yet\n\n",
            *(f"- {experiment.question}: `{_command(experiment)}`\n" for experiment in missing),
        ]
    parts += [few_labels.section(), few_boxes.section()]
    return "".join(parts)


def _section(experiment: Experiment, table: Table) -> Iterator[str]:
    seeds = len(table.lines[0].images)
    software = ", ".join(f"{name} {version}" for name, version in table.software.items())
    yield f"\n## {experiment.question}\n\n`{_command(experiment)}`\n\n"
    yield f"{table.date:%Y-%m-%d}, {table.machine}, {seeds} seed{'s' * (seeds > 1)}, {software}.\n{table.facts}\n\n"
    yield from _rows(experiment, table)
    if experiment.target is not None:
        share = comparison(experiment, table, experiment.judged).share
        verdict = "met" if share.value <= experiment.target else "missed"
        wanted = f"at most {experiment.target:.0%} of random's labels"
        yield f"\nTarget for `{experiment.judged}`: {wanted}: **{verdict}**.\n"
    if experiment.behind is not None:
        verdict = "met" if behind(experiment, table) <= experiment.behind else "missed"
        wanted = f"never significantly more than {experiment.behind} mAP50 below random"
        yield f"\nTarget for `{experiment.judged}`: {wanted}: **{verdict}**.\n"
    if experiment.name in FINDINGS:
        yield f"\n{FINDINGS[experiment.name]}\n"


def _rows(experiment: Experiment, table: Table) -> Iterator[str]:
    """Yield the table: the mean over seeds at every round, or only at the last if the rounds of the lines differ."""
    steps = {line.images[0] for line in table.lines}
    counts = [f"{count:.0f}" for count in table.lines[0].images[0]] if len(steps) == 1 else ["at the end"]
    yield "| line | " + " | ".join(counts) + " | gain at the end | images needed | boxes needed | refused |\n"
    yield "|---|" + "---|" * (len(counts) + 4) + "\n"
    for line in table.lines:
        means = line.curve.quality.mean(axis=0)[-len(counts) :]
        against = comparison(experiment, table, line.name)
        last = (
            "control | 100% | 100%"
            if line.name == experiment.control
            else f"{_gain(against.final_gain)} | {_share(against.share)} | {_by_boxes(experiment, table, line)}"
        )
        shown = f"`{line.name}`" if experiment.control == RANDOM else line.name
        yield f"| {shown} | " + " | ".join(f"{value:.3f}" for value in means) + f" | {last} | {line.refused} |\n"


def _by_boxes(experiment: Experiment, table: Table, line: Line) -> str:
    ours, control = line.by_boxes, table.line(experiment.control).by_boxes
    return "-" if ours is None or control is None else _share(compare(ours, control).share)


def _command(experiment: Experiment) -> str:
    return _COMMANDS.get(experiment.name, f"python -m tests.benchmarks.experiments {experiment.name} --out FOLDER")


def _details(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high} if math.isfinite(interval.high) else {}


def _gain(gain: Interval) -> str:
    return f"{gain.value:+.3f}" + (f" [{gain.low:+.3f}, {gain.high:+.3f}]" if math.isfinite(gain.low) else "")


def _share(share: Interval) -> str:
    low, high, value = (
        f"{part:.0%}" if math.isfinite(part) else "not reached" for part in (share.low, share.high, share.value)
    )
    return value if math.isnan(share.low) else f"{value} [{low}, {high}]"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
