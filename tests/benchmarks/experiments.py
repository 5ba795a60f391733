"""The experiments of docs/results.md: `python -m tests.benchmarks.experiments NAME --out FOLDER` runs one, resumable.

An experiment has one or more arms. Each arm is a run of `yolo-backend simulate` with some changed settings. All arms
share the base weights, the data and the trainings on the initial images, which are made once and stored in FOLDER.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from backend.settings import Settings
from backend.simulate import records, runner
from backend.simulate.records import INITIAL
from tests.benchmarks import base
from tests.benchmarks.lines import COMMITTED, Line, Table, facts_of, line_of

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd" / "data.yaml"
DEFAULT, PLAIN, RANDOM = "information_density_unique", "class_entropy", "random"
REPEATED, DISTINCT, MANY_REPEATED = "scenes-repeated", "scenes-distinct", "scenes-many-repeated"

FIRST = ("random", "typiclust+random", "probcover+random")

# Fine-tuning from letters on small pictures: see base.py.
_COMMON = {
    "base_model": base.NAME,
    "imgsz": base.SIZE,
    "train_steps": 150,
    "min_epochs": 10,
    "tolerance": 0.05,
    "train_from": "base",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One run of `yolo-backend simulate`; `settings` are the changed ones."""

    name: str  # of its line in the table; with several strategies, each is a line with its own name
    strategies: tuple[str, ...] = (PLAIN,)
    batch: int = 60
    rounds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question, and the arms that answer it."""

    name: str  # of its file
    question: str
    arms: tuple[Arm, ...]
    data: str = "scenes"  # a generated set, or "bccd"
    seeds: int = 2
    initial: int = 60
    control: str = RANDOM  # the line with which the others are compared
    judged: str = DEFAULT  # the line that must meet the target
    target: float | None = None  # highest share of the control's labels to the control's final mAP50
    behind: float | None = None  # highest mAP50 by which it may be significantly below the control
    base_steps: int = base.STEPS  # of the training of letters.pt


# One strategy of every family that is not in all comparisons.
_FAMILIES = (
    *("entropy", "localization", "bald", "core_set", "max_herding", "information_density", "kmeans", "ppal"),
    "learning_loss",
)
_UNIQUE = "class_entropy_unique"  # without copies in the pool, it picks as PLAIN
_SIZES = {"bccd": {"imgsz": 192}}  # at 128 px a platelet is 8 pixels wide, and is never detected
_LONGER = {"bccd": {"train_steps": 300}}  # with 150 steps, the curve of random falls: see schedule-bccd
_FREE = {"min_epochs": 1, "max_epochs": 999}  # exactly the set number of steps
_GOES_ON = {"train_from": "last"}
_PURE = {"explore_share": 0.0}  # no random picks except those of the arm


def _heuristics(
    name: str, question: str, *others: str, initial: int = 60, batch: int = 60, rounds: int = 3, **more: Any
) -> Experiment:
    data = more.get("data", "scenes")
    settings = _SIZES.get(data, {}) | _LONGER.get(data, {})
    arm = Arm("", (RANDOM, PLAIN, DEFAULT, *others), batch, rounds, settings=settings)
    return Experiment(name, question, (arm,), seeds=3, initial=initial, **more)


def _datahunt(data: str, *, initial: int, batch: int) -> Experiment:
    pure = _PURE | _SIZES.get(data, {})
    arms = (
        Arm("random", (RANDOM,), batch, 5, settings=pure),
        Arm("method 1", (PLAIN,), batch, 5, settings=pure | {"protocol": "datahunt1"}),
        Arm("method 2", (PLAIN,), batch, 5, settings=pure | {"protocol": "datahunt2"}),
    )
    question = f"DataHunt's table on {data}: 2% of the pool, then 10% per round"
    return Experiment(f"datahunt-{data}", question, arms, data=data, seeds=1, initial=initial)


def _schedule(name: str, steps: int, growth: float) -> Arm:
    settings = _FREE | {"train_steps": steps, "steps_growth": growth}
    return Arm(name, (RANDOM,), 120, settings=settings)


def _few_images(steps: int) -> Arm:
    return Arm(f"{steps} steps", (RANDOM,), 20, settings=_FREE | _SIZES["bccd"] | {"train_steps": steps})


def _explore(share: float) -> Arm:
    return Arm(f"{share:.0%}", rounds=2, settings={"explore_share": share})


def _batch(size: int) -> Arm:
    return Arm(f"batch {size}", batch=size, rounds=1 + 200 // size)


def _uncertain(share: float) -> Arm:
    return Arm(f"{share:.0%}", ("margin",), rounds=2, settings=_PURE | {"uncertain_share": share})


EXPERIMENTS: tuple[Experiment, ...] = (
    _heuristics("heuristics-scenes", "The heuristics on scenes with a long tail", "auto", *_FAMILIES),
    _heuristics("heuristics-bccd", "The heuristics on BCCD", data="bccd", initial=20, batch=20, target=0.8),
    _heuristics(
        "families-bccd", "Every family on BCCD, one batch", *_FAMILIES, data="bccd", initial=20, batch=20, rounds=2
    ),
    _heuristics(
        "heuristics-balanced",
        "The heuristics on balanced scenes",
        "auto",
        *_FAMILIES,
        data="scenes-balanced",
        behind=0.01,
    ),
    _heuristics(
        "heuristics-repeated",
        "The heuristics on a pool with five copies of each scene and 5% images that do not belong",
        _UNIQUE,
        "auto",
        *_FAMILIES,
        data=REPEATED,
        target=0.7,
    ),
    _heuristics(
        "heuristics-repeated-many",
        "The same with five times as many scenes",
        _UNIQUE,
        data=MANY_REPEATED,
        target=0.7,
    ),
    Experiment(
        "heuristics-distinct",
        "The scenes of the smaller pool, each once, without images that do not belong",
        (Arm("", (RANDOM, PLAIN)),),
        data=DISTINCT,
        seeds=3,
    ),
    _datahunt("scenes", initial=20, batch=100),
    _datahunt("bccd", initial=4, batch=20),
    Experiment(
        "first-batch",
        "What should order the first batch? Scenes with a long tail",
        (Arm("", FIRST, rounds=1, settings={"imgsz": 96, "train_steps": 100}),),
        seeds=3,
        initial=20,
        base_steps=400,
    ),
    Experiment(
        "share-scenes",
        "The share of a batch picked by margin, scenes",
        tuple(_uncertain(share / 10) for share in range(11)),
        seeds=1,
        control="0%",
    ),
    Experiment(
        "explore",
        "The share of the queue drawn at random",
        tuple(_explore(share) for share in (0.0, 0.1, 0.2, 0.5)),
        control="20%",
    ),
    Experiment(
        "batch",
        "Labels between two trainings",
        tuple(map(_batch, (200, 100, 50, 20, 10))),
        seeds=1,
        control="batch 200",
    ),
    Experiment(
        "continue",
        "Restart from the base weights, or continue from the last version?",
        (Arm("restart"), Arm("continue", settings=_GOES_ON)),
        seeds=2,
        control="restart",
    ),
    Experiment(
        "continue-long",
        "The same question with longer trainings",
        (
            Arm("restart", settings=_FREE | {"train_steps": 450}),
            Arm("continue", settings=_FREE | _GOES_ON | {"train_steps": 450}),
        ),
        seeds=1,
        control="restart",
    ),
    Experiment(
        "goes-on",
        "Does the sampler gain if trainings continue from the last version?",
        (Arm("", (RANDOM, PLAIN), settings=_GOES_ON),),
        seeds=3,
    ),
    Experiment(
        "schedule",
        "How should the steps of a training grow with the images? Random images",
        (
            _schedule("150 steps", 150, 0.0),
            _schedule("300 steps", 300, 0.0),
            _schedule("150 · (n/50)^½", 150, 0.5),
        ),
        control="150 steps",
    ),
    Experiment(
        "schedule-bccd",
        "How many steps do few images need? Random images of BCCD",
        tuple(map(_few_images, (150, 300))),
        data="bccd",
        seeds=1,
        initial=20,
        control="150 steps",
    ),
)


def by_name(name: str) -> Experiment:
    """Return an experiment. Raises typer.BadParameter that lists the valid names."""
    experiments = {experiment.name: experiment for experiment in EXPERIMENTS}
    if name not in experiments:
        raise typer.BadParameter(f"unknown experiment {name!r}, known: {', '.join(experiments)}")
    return experiments[name]


def run(experiment: Experiment, folder: Path, jobs: int, console: Console) -> Table:
    """Run the missing rounds of an experiment in `folder`."""
    weights = folder / ("base" if experiment.base_steps == base.STEPS else f"base-{experiment.base_steps}") / base.NAME
    if not weights.is_file():
        base.train(weights.parent, steps=experiment.base_steps)
    data = _data(experiment.data, folder / "data")
    lines: list[Line] = []
    plans = []
    for number, arm in enumerate(experiment.arms, 1):
        settings = Settings(model_dir=str(weights.parent), **_COMMON | dict(arm.settings))
        out = folder / experiment.name / f"arm-{number}"
        shared = folder / "initial" / f"{experiment.data}-{settings.imgsz}-{experiment.initial}-{settings.train_steps}"
        copy_initial(shared, out, experiment.seeds)
        order = runner.Order(
            str(data), arm.strategies, experiment.seeds, experiment.initial, arm.batch, arm.rounds, out, jobs
        )
        results = runner.run(order, settings, console)
        copy_initial(out, shared, experiment.seeds)
        plans.append(results.plan)
        lines += [
            line_of(arm.name or name, [row for row in results.rows if row.strategy == name]) for name in arm.strategies
        ]
    return Table(
        lines=tuple(lines),
        facts=facts_of(plans),
        date=results.date,
        machine=results.machine,
        software=results.plan.software,
    )


def _data(name: str, folder: Path) -> Path:
    """Return the data.yaml of a data set, made in `folder` unless it is BCCD."""
    if name == "bccd":
        return BCCD
    if name == MANY_REPEATED:
        return runner.generated(REPEATED, folder / name, 5 * runner.POOL)
    if name == DISTINCT:
        return distinct(runner.generated(REPEATED, folder / REPEATED))
    return runner.generated(name, folder / name)


def distinct(repeated: Path) -> Path:
    """Return a data.yaml beside that of the repeated scenes, with each scene once and no foreign images."""
    _, copies, foreign = runner.SCENES[REPEATED]
    pool = (repeated.parent / "pool.txt").read_text(encoding="utf-8").splitlines()
    belong = pool[: len(pool) - round(len(pool) * foreign)]
    (repeated.parent / "distinct.txt").write_text("".join(f"{line}\n" for line in belong[::copies]), encoding="utf-8")
    data_yaml = repeated.with_name("distinct.yaml")
    data_yaml.write_text(repeated.read_text(encoding="utf-8").replace("train: pool.txt", "train: distinct.txt"))
    return data_yaml


def copy_initial(source: Path, target: Path, seeds: int) -> None:
    """Copy finished trainings on the initial images: first the weights, then the record that marks them as finished."""
    for seed in range(seeds):
        unit, copy = records.unit_folder(source, INITIAL, seed), records.unit_folder(target, INITIAL, seed)
        if (unit / "round-001.json").is_file() and not (copy / "round-001.json").is_file():
            copy.mkdir(parents=True, exist_ok=True)
            for name in ("weights-001.pt", "progress.txt", "round-001.json"):
                shutil.copy(unit / name, copy / name)


def main(
    name: Annotated[str, typer.Argument(help="of the experiment")],
    out: Annotated[Path, typer.Option(help="folder of the run; use the same folder to continue after a kill")],
    jobs: Annotated[int, typer.Option(help="units at a time")] = 1,
) -> None:
    """Run an experiment, and write its results into docs/experiments."""
    table = run(by_name(name), out, jobs, Console(soft_wrap=True))
    records.write(COMMITTED, f"{name}.json", table)


if __name__ == "__main__":
    typer.run(main)
