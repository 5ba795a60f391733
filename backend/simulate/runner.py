"""`yolo-backend simulate`: plan an experiment, run its units here or on rq workers, and write the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen

from redis import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from backend import acquisition
from backend.datasets import synthetic
from backend.errors import BackendError, SettingError
from backend.evaluation import basis
from backend.queue.rq_queue import Jobs
from backend.sampling import ranking
from backend.settings import Settings
from backend.simulate import (
    first_batches,
    learning,
    records,
    report,
    simulation_data,
    simulation_task,
    unit_process,
)
from backend.simulate.history import PROGRESS_FILE
from backend.simulate.records import Base, Plan, Project, Results, Round
from backend.storage import LocalFiles, file_sha256, local_folder
from backend.types import YoloTask
from backend.yolo import base_weights
from backend.yolo.runtime import select_device
from backend.yolo.tasks import RECIPES, quality

# name of generated data -> exponent of the long tail, copies of each scene in the pool, share of foreign scenes
SCENES = {"scenes": (1.3, 1, 0.0), "scenes-balanced": (0.0, 1, 0.0), "scenes-repeated": (1.3, 5, 0.05)}
POOL, TEST = 1000, 150  # generated scenes
POLL_S = 0.5
_LONG_S = 24 * 3600.0  # the ETA uses the whole run, not only the last half minute

Unit = tuple[str, int]  # the name of a line or of an initial unit, and the seed


@dataclass(frozen=True, slots=True)
class Order:
    """The arguments of the command line."""

    data: str  # a data.yaml, a folder of classes, or a name in SCENES
    strategies: tuple[str, ...]
    seeds: int
    initial: int
    batch: int
    rounds: int
    out: Path
    jobs: int
    project: Project | None = None  # a live project to repeat; not from the command line


def run(order: Order, settings: Settings, console: Console) -> Results:
    """Run the missing rounds of an experiment, write results.json and report.html, and return the results.

    Raises SettingError and DataError before the first training, and BackendError naming a unit that failed.
    """
    plan = make_plan(order, settings, console)
    folder = order.out.resolve()
    records.save_plan(folder, plan)
    run_units = _worker_runner(settings.redis_url) if settings.redis_url else _local_runner(order.jobs)
    with progress_bar(console, folder, plan) as show:
        run_units(folder, [(name, seed) for seed in range(plan.seeds) for name in initials(plan)], show)
        run_units(folder, [(name, seed) for seed in range(plan.seeds) for name in plan.strategies], show)
    results = collect(folder, plan)
    records.write(folder, "results.json", results)
    data = simulation_data.read(Path(plan.data), plan.task)
    page = report.render(results, data)
    LocalFiles(folder).write("report.html", page.encode())
    if advice := learning.nothing_learned(results, learning.floor(plan, data.test)):
        console.print(advice, style="yellow")
    console.print(f"{folder / 'results.json'}\n{folder / 'report.html'}")
    return results


def collect(folder: Path, plan: Plan) -> Results:
    """Return the results of the finished rounds."""
    rows = [
        row
        for name in plan.strategies
        for seed in range(plan.seeds)
        for row in records.rows_of(folder, name, seed, plan.rounds)
    ]
    return Results(plan=plan.without_paths(), date=datetime.now(UTC), machine=records.machine(), rows=tuple(rows))


def make_plan(order: Order, settings: Settings, console: Console) -> Plan:
    """Check the order, the data and the settings before any training, and return the plan."""
    for name in first_batches.strategies(order.strategies):
        acquisition.get(name)
    ranking.protocol(settings.protocol, batch=order.batch)
    task, weights = _task(order, settings)
    place = generated(order.data, order.out / "data") if order.data in SCENES else Path(order.data)
    data = simulation_data.read(place, task)
    simulation_data.check(data, order.initial + (order.rounds - 1) * order.batch)
    _check_project(order.project, len(data.pool))
    for note in data.notes[:5]:
        console.print(f"note: {note}", style="yellow")
    if len(data.notes) > 5:
        console.print(f"note: and {len(data.notes) - 5} more like these", style="yellow")
    if not settings.redis_url:  # workers may have other devices than this machine
        select_device(settings.device)
    base = base_weights.base_weights(weights, local_folder(settings.model_dir), task)
    if base.note:
        console.print(base.note, style="yellow")
    simulation_task.check_first_batches(order.strategies, settings, base)
    return Plan(
        data=str(place.resolve()),
        data_sha256=data.sha256(),
        classes=data.classes,
        pool=len(data.pool),
        test=len(data.test),
        strategies=order.strategies,
        seeds=order.seeds,
        rounds=order.rounds,
        initial=order.initial,
        batch=order.batch,
        base=Base(source=base.source, sha256=file_sha256(Path(base.source)) if base.pretrained else ""),
        settings=records.learning_settings(settings),
        software=records.software(),
        project=order.project,
        task=task,
        quality=quality(data.tag),
    )


def _task(order: Order, settings: Settings) -> tuple[YoloTask, str]:
    """Return the task and the name of its base weights; raises SettingError for strategies that do not suit it."""
    data_task = "detect" if order.data in SCENES else simulation_data.task_by_data(Path(order.data))
    task, weights = simulation_task.choose(data_task, settings.base_model, local_folder(settings.model_dir))
    simulation_task.check(first_batches.strategies(order.strategies), task)
    return task, weights


def _check_project(project: Project | None, images: int) -> None:
    if project and not len(project.task_ids) == len(set(project.task_ids)) == images:
        raise SettingError(
            f"{len(set(project.task_ids))} tasks for {images} images",
            where=f"project {project.id}",
            fix="name the task of each image of the train split, in its order",
        )


def parse_strategies(text: str) -> tuple[str, ...]:
    """Return the names in a comma list, each once.

    >>> parse_strategies("entropy, random,entropy")
    ('entropy', 'random')
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise SettingError("no strategy", where="--strategies", fix="name some of `yolo-backend strategies`")
    return names


def generated(name: str, folder: Path, pool: int = POOL) -> Path:
    """Return the data.yaml of a set of SCENES with `pool` images, generated once in `folder`."""
    if not (folder / "data.yaml").is_file():  # written last
        tail, copies, foreign = SCENES[name]
        synthetic.generate(folder, pool=pool, test=TEST, seed=0, tail=tail, copies=copies, foreign=foreign)
    return folder / "data.yaml"


Show = Callable[[], None]


def _local_runner(jobs: int) -> Callable[[Path, Sequence[Unit], Show], None]:
    """Return a function that runs units on this machine, `jobs` at a time."""

    def run_units(folder: Path, units: Sequence[Unit], show: Show) -> None:
        """Run the unfinished units, and call `show` again and again meanwhile. Raises BackendError."""
        waiting = [unit for unit in units if not is_done(folder, unit)]
        running: list[tuple[Unit, Popen[bytes]]] = []
        with ExitStack() as stack:
            while waiting or running:
                while waiting and len(running) < jobs:
                    unit = waiting.pop(0)
                    process = unit_process.start(folder, *unit)
                    stack.callback(_end, process)
                    running.append((unit, process))
                time.sleep(POLL_S)
                ended = [(unit, process) for unit, process in running if process.poll() is not None]
                running = [unit_and_process for unit_and_process in running if unit_and_process not in ended]
                for unit, process in ended:
                    if process.returncode:
                        raise failed(folder, unit, unit_process.reason_of(folder, *unit, process.returncode))
                show()

    return run_units


def _end(process: Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _worker_runner(redis_url: str) -> Callable[[Path, Sequence[Unit], Show], None]:
    """Return a function that has units run by rq workers, which must have access to the same folder."""

    def run_units(folder: Path, units: Sequence[Unit], show: Show) -> None:
        """Run the unfinished units, and call `show` again and again meanwhile. Raises BackendError."""
        with Redis.from_url(redis_url) as redis:
            jobs = Jobs(redis)
            waiting = [unit for unit in units if not is_done(folder, unit)]
            for name, seed in waiting:
                (records.unit_folder(folder, name, seed) / unit_process.ERROR_FILE).unlink(missing_ok=True)
                jobs.put("simulate", str(folder), name, seed)
            while waiting := [unit for unit in waiting if not is_done(folder, unit)]:
                for unit in waiting:
                    error = records.unit_folder(folder, *unit) / unit_process.ERROR_FILE
                    if error.is_file():
                        raise failed(folder, unit, error.read_text(encoding="utf-8"))
                show()
                time.sleep(POLL_S)
            show()

    return run_units


def is_done(folder: Path, unit: Unit) -> bool:
    """Return whether all rounds of a unit are finished."""
    wanted = 1 if first_batches.first_of(unit[0]) else records.load_plan(folder).rounds
    return len(list(records.unit_folder(folder, *unit).glob("round-*.json"))) >= wanted


def failed(folder: Path, unit: Unit, reason: str) -> BackendError:
    """Return the error of a unit."""
    return BackendError(
        f"{unit[0]}, seed {unit[1]}: {reason}",
        where=str(records.unit_folder(folder, *unit) / unit_process.LOG_FILE),
        fix="once that is put right, run the same command again: finished rounds are not done again",
    )


@contextmanager
def progress_bar(console: Console, folder: Path, plan: Plan) -> Iterator[Show]:
    """Show the number of finished rounds with an ETA, and print a line for each newly finished round."""
    begins = initials(plan)
    units = [(name, seed) for seed in range(plan.seeds) for name in (*begins, *plan.strategies)]
    columns = (TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), Remaining(), console=console, speed_estimate_period=_LONG_S) as bar:
        task = bar.add_task("", total=plan.seeds * (len(begins) + len(plan.strategies) * (plan.rounds - 1)))
        printed = {path for name, seed in units for path in _round_files(folder, name, seed)}

        def show() -> None:
            """Update the bar, and print a line for each newly finished round."""
            bar.update(task, completed=sum(_finished(folder, unit) for unit in units))
            for name, seed in units:
                for path in _round_files(folder, name, seed):
                    if path not in printed:
                        printed.add(path)
                        bar.console.print(_line(name, seed, plan, records.load_round(path)))

        show()
        yield show


def initials(plan: Plan) -> tuple[str, ...]:
    """Return the units that train on the first batches of a plan."""
    return first_batches.initials(plan.strategies, plan.settings_for(0).first_batch)


def _round_files(folder: Path, name: str, seed: int) -> list[Path]:
    """Return the files of the rounds that a unit did itself; the first round is that of an initial unit."""
    files = sorted(records.unit_folder(folder, name, seed).glob("round-*.json"))
    return files if first_batches.first_of(name) else files[1:]


def _line(name: str, seed: int, plan: Plan, finished: Round) -> str:
    labels = RECIPES[plan.task].labels
    return (
        f"{name:20} seed {seed}  round {finished.round}  {finished.images:5d} images {finished.boxes:6d} {labels}  "
        f"{plan.quality} {basis.on_test(finished.metrics)}  "
        f"{finished.train_s + finished.score_s + finished.rank_s:.0f} s"
    )


def _finished(folder: Path, unit: Unit) -> float:
    """Return the number of rounds that a unit did itself, plus the share of the current one."""
    path = records.unit_folder(folder, *unit) / PROGRESS_FILE
    done = float(path.read_text() or 0) if path.is_file() else 0.0
    return done if first_batches.first_of(unit[0]) else max(done - 1.0, 0.0)
