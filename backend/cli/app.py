"""The command line. Heavy modules are imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from backend import __version__
from backend.cli import experiments, export_commands, project_commands, reading_commands, steer
from backend.cli.startup import (
    check_access,
    check_label_studio,
    check_store,
    machine_message,
    read_settings,
    stop_signal,
    with_redis,
)
from backend.errors import BackendError

app = typer.Typer(
    help="Active learning inside Label Studio: YOLO pre-annotations, retraining, and the most useful images first.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"yolo-backend {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version, and end")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run a command; an expected error ends it with one message and exit status 1, never with a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # exits through all `finally` blocks
    try:
        app()
    except BackendError as error:
        message = str(error)
    except Exception as error:
        message = machine_message(error)
        if not message:
            raise
    else:
        return
    typer.echo(f"error: {message}", err=True)
    sys.exit(1)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="ultralytics data.yaml; default: generated scenes")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="how often to annotate and retrain; default: 4, with --keep none")
    ] = None,
    exit_: Annotated[bool, typer.Option("--exit", help="end after the last round instead of staying up")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="open the last demo again, with its labels")] = False,
    folder: Annotated[
        Path,
        typer.Option(help="folder for all files of the demo; without --keep the last demo in it is removed"),
    ] = Path("demo-data"),
) -> None:
    """Start Label Studio, redis, worker and backend, and run the loop with a scripted annotator."""
    from backend.cli.demo import Demo
    from backend.cli.demo import run as run_demo

    if keep and data:
        raise typer.BadParameter("a demo that is opened again has its data", param_hint="--keep")
    run_demo(Demo(folder, data, rounds or (0 if keep else 4), keep, stay=not exit_))


@app.command()
def run(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on")] = None,
) -> None:
    """Run the whole backend for your Label Studio: server, worker, and a redis unless REDIS_URL is set."""
    from backend.cli.embedded import backend_processes
    from backend.subprocesses import require_free_port

    settings = read_settings(host=host, port=port)
    check_access(settings)
    check_label_studio(settings, required=True)
    require_free_port(settings.host, settings.port)
    check_store(settings)
    with stop_signal() as stop, backend_processes(settings, os.environ) as backend:
        typer.echo(f"backend: {backend.url}   (paste it into Label Studio: project → Settings → Model → Connect Model)")
        typer.echo(f"page:    {backend.url}   (open it in a browser to see the loop at work)")
        backend.watch(stop)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on")] = None,
) -> None:
    """Run the server alone; needs REDIS_URL and a worker."""
    from backend.loop.context import build
    from backend.subprocesses import require_free_port
    from backend.web.listener import listen

    settings = read_settings(host=host, port=port)
    check_access(settings)
    with_redis(settings)
    require_free_port(settings.host, settings.port)
    check_label_studio(settings, required=False)
    check_store(settings)
    with closing(build(settings)) as context:
        listen(context)


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="work off only these queues, in this process: control,score,train")] = "",
) -> None:
    """Run the workers: one process that trains, one for everything else; needs REDIS_URL."""
    from backend.loop.context import local_dir
    from backend.loop.training import scratch
    from backend.queue import rq_queue as rq_queues
    from backend.worker import supervisor

    settings = read_settings()
    scratch.clear(local_dir(settings))
    with_redis(settings)
    if queues:
        names = tuple(queues.split(","))
        if unknown := set(names) - set(rq_queues.QUEUES):
            raise typer.BadParameter(f"unknown queue {min(unknown)}; use {', '.join(rq_queues.QUEUES)}")
        # Imported before rq forks, so that no job pays for it again.
        from backend.worker import jobs  # noqa: F401
        from backend.yolo.runtime import preload_training, quiet_ultralytics

        quiet_ultralytics()
        if rq_queues.TRAIN in names:
            preload_training()
        rq_queues.work(settings.redis_url, names)
        return
    check_store(settings)
    with stop_signal() as stop:
        supervisor.run(settings, os.environ, stop)


for _command in (
    project_commands.connect,
    project_commands.disconnect,
    reading_commands.status,
    reading_commands.versions,
    project_commands.train,
    project_commands.score,
    project_commands.rank,
    reading_commands.label_errors,
    reading_commands.frames,
    steer.rollback,
    steer.pin,
    export_commands.export,
    export_commands.import_dataset,
    export_commands.import_weights,
    reading_commands.strategies,
    reading_commands.doctor,
    experiments.simulate,
):
    app.command()(_command)
app.command(hidden=True)(experiments.simulate_unit)
app.command(hidden=True)(export_commands.inspect_weights)
