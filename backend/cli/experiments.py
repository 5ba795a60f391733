"""The commands for offline experiments. As in app, heavy modules are imported inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.cli.startup import log_to_stderr, read_settings, with_redis


def simulate(
    data: Annotated[
        str,
        typer.Option(
            help="data.yaml, YOLO export of Label Studio, folder of classes, "
            "or generated: scenes, scenes-balanced, scenes-repeated"
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="folder of the experiment; the same command continues an experiment that was stopped")
    ],
    strategies: Annotated[
        str, typer.Option(help="comma list; see `yolo-backend strategies`")
    ] = "information_density_unique,random",
    seeds: Annotated[int, typer.Option(min=1, help="number of repetitions, with the seeds 0, 1, ...")] = 3,
    initial: Annotated[int, typer.Option(min=2, help="images labeled at random before the first training")] = 60,
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
    """Measure which strategy saves labels on your data. The true labels take the place of annotators.

    With REDIS_URL set, `yolo-backend worker` processes that see the same folder share the work.
    """
    from rich.console import Console

    from backend.simulate import runner

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
    names = runner.parse_strategies(strategies)
    order = runner.Order(data, names, seeds, initial, batch, rounds, out, jobs)
    runner.run(order, settings, Console(soft_wrap=True))


def simulate_unit(folder: Path, strategy: str, seed: int) -> None:
    """Run one strategy with one seed of an experiment; `simulate` starts this command for each pair."""
    from backend.simulate import units

    log_to_stderr("WARNING")
    units.run_unit(folder, strategy, seed)
