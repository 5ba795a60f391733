"""The commands for offline experiments. As in app, heavy modules are imported inside the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.startup import log_to_stderr, open_context, read_settings, with_redis

if TYPE_CHECKING:
    from rich.console import Console

    from backend.settings import Settings


def simulate(
    out: Annotated[
        Path, typer.Option(help="folder of the experiment; the same command continues an experiment that was stopped")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="data.yaml, YOLO export of Label Studio, folder of classes, "
            "or generated: scenes, scenes-balanced, scenes-repeated"
        ),
    ] = None,
    project: Annotated[
        int | None, typer.Option(help="id of a Label Studio project: its labels are the data, in place of --data")
    ] = None,
    strategies: Annotated[
        str,
        typer.Option(
            help="comma list; see `yolo-backend strategies`; FIRST+STRATEGY sets the first batch, e.g. typiclust+random"
        ),
    ] = "information_density_unique,random",
    seeds: Annotated[int, typer.Option(min=1, help="number of repetitions, with the seeds 0, 1, ...")] = 3,
    initial: Annotated[
        int, typer.Option(min=2, help="images labeled before the first training, at random or as FIRST_BATCH says")
    ] = 60,
    batch: Annotated[int, typer.Option(min=1, help="images labeled between two trainings")] = 60,
    rounds: Annotated[
        int, typer.Option(min=1, help="number of trainings, including the one on the initial images")
    ] = 5,
    steps: Annotated[int | None, typer.Option(min=1, help="TRAIN_STEPS of each training")] = None,
    imgsz: Annotated[int, typer.Option(min=32, max=4096, help="image size, pixels")] = 160,
    device: Annotated[str | None, typer.Option(help="ultralytics device, e.g. cpu or 0")] = None,
    explore_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="share of the queue drawn at random")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="top, datahunt1 or datahunt2")] = None,
    uncertain_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="share of a batch that the strategy chooses")
    ] = None,
    train_from: Annotated[
        str | None,
        typer.Option(help="every training starts from the accepted version (last) or from the base weights (base)"),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="units that run at the same time on this machine, one thread each")
    ] = 1,
) -> None:
    """Measure which strategy saves labels on your data, or on a project's. Its labels take the place of annotators.

    With REDIS_URL set, `yolo-backend worker` processes that see the same folder share the work.
    """
    from rich.console import Console

    from backend.simulate import runner

    if (data is None) is (project is None):
        raise typer.BadParameter("give either --data or --project", param_hint="--data")
    overrides = {
        "train_steps": steps,
        "imgsz": imgsz,
        "device": device,
        "explore_share": explore_share,
        "protocol": protocol,
        "uncertain_share": uncertain_share,
        "train_from": train_from,
    }
    settings = read_settings(**overrides)
    if settings.redis_url:
        with_redis(settings)
    names, console = runner.parse_strategies(strategies), Console(soft_wrap=True)
    if project is not None:
        data, settings = _project_data(project, out, settings, overrides, console)
    order = runner.Order(str(data), names, seeds, initial, batch, rounds, out, jobs)
    runner.run(order, settings, console)


def _project_data(
    project: int, out: Path, settings: Settings, overrides: Mapping[str, object], console: Console
) -> tuple[str, Settings]:
    """Write a project's labels into the folder of the experiment; return their place, and the project's settings."""
    from backend.cli.progress import progress
    from backend.loop import experiment_data
    from backend.loop.served_models import require_project

    context = open_context()
    with progress("labels") as show:
        written = experiment_data.write(context, project, out / "data", show)
    for note in written.notes:
        console.print(f"note: {note}", style="yellow")
    own = context.project_settings(require_project(context, project))
    changes = {name: value for name, value in overrides.items() if value is not None}
    update = {**changes, "base_model": written.base_model, "redis_url": settings.redis_url}
    return str(written.place), own.model_copy(update=update)


def simulate_unit(folder: Path, strategy: str, seed: int) -> None:
    """Run one strategy with one seed of an experiment; `simulate` starts this command for each pair."""
    from backend.simulate import units

    log_to_stderr("WARNING")
    units.run_unit(folder, strategy, seed)
