"""The command line. Heavy modules are imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from redis.exceptions import RedisError

from backend import __version__
from backend.cli import experiments
from backend.cli.startup import (
    check_access,
    check_label_studio,
    check_store,
    machine_message,
    open_context,
    read_settings,
    stop_signal,
    with_redis,
)
from backend.errors import BackendError

app = typer.Typer(
    help="Active learning inside Label Studio: YOLO pre-annotations, retraining, and the most useful images first.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
Project = Annotated[int, typer.Argument(help="id of the Label Studio project")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs instead of a table")]


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
    except (OSError, MemoryError, RedisError) as error:
        message = machine_message(error)
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
        from backend.yolo.runtime import quiet_ultralytics

        quiet_ultralytics()
        rq_queues.work(settings.redis_url, names)
        return
    check_store(settings)
    with stop_signal() as stop:
        supervisor.run(settings, os.environ, stop)


@app.command()
def connect(
    project: Project,
    url: Annotated[
        str, typer.Option(help="the backend's address as Label Studio reaches it")
    ] = "http://localhost:9090",
) -> None:
    """Connect the backend to a project, set up the queue, and print what was done."""
    from backend.addresses import require_web_address
    from backend.loop import project_setup

    require_web_address("--url", url, "http://localhost:9090")
    context = open_context()
    for line in project_setup.connect(context, project, url):
        typer.echo(line)


@app.command()
def train(project: Project) -> None:
    """Train all tags now, in this process. If the version is published, the worker scores the pool."""
    from backend.loop.review import round_value
    from backend.loop.training import retraining
    from backend.queue.rq_queue import Jobs

    context = open_context()
    version = retraining.retrain(context, project, forced=True)
    round_value.reward(context, version)
    typer.echo(f"{version.name}: {version.reason}")
    if version.promoted:
        Jobs(context.redis).once("start_scoring", project)
        typer.echo("scoring of the unlabeled tasks is queued")


@app.command()
def score(project: Project) -> None:
    """Let the worker predict and rank the unlabeled tasks again with the accepted version."""
    from backend.loop.served_models import require_project
    from backend.queue.rq_queue import Jobs

    context = open_context()
    require_project(context, project)
    Jobs(context.redis).once("start_scoring", project)
    typer.echo("scoring is queued; `yolo-backend status` shows how far it is")


@app.command()
def status(project: Project, as_json: AsJson = False) -> None:
    """Show the status of a project."""
    from backend.cli import reports, tables
    from backend.loop import project_status
    from backend.web.status_schemas import project_out

    current = project_status.status(open_context(), project)
    reports.show(project_out(current), tables.status(current), as_json=as_json)


@app.command()
def versions(project: Project, as_json: AsJson = False) -> None:
    """List a project's versions, and mark the one that serves."""
    from backend.cli import reports, tables
    from backend.loop.served_models import name_of, require_project

    context = open_context()
    serving = name_of(context, require_project(context, project))
    listed = context.store.versions(project)
    reports.show(reports.listed_versions(listed, serving), tables.versions(listed, serving), as_json=as_json)


@app.command()
def strategies(as_json: AsJson = False) -> None:
    """List the strategies: what each one asks, needs and costs, and when to use it."""
    from backend import acquisition
    from backend.cli import reports, tables

    listed = [acquisition.get(name) for name in acquisition.names()]
    reports.show(reports.listed_strategies(listed), tables.strategies(listed), as_json=as_json)


@app.command()
def rank(
    project: Project,
    strategy: Annotated[str, typer.Option(help="any of `yolo-backend strategies`")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the order; write nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the next 20 tasks in the order of a strategy."""
    from backend.cli import reports, tables
    from backend.loop.scoring import pool_ranking

    if not dry_run:
        raise typer.BadParameter(
            "add --dry-run; to use a strategy, set STRATEGY and run `yolo-backend score`", param_hint="--dry-run"
        )
    ranking = pool_ranking.preview(open_context(), project, strategy)
    reports.show(reports.places(ranking, 20), tables.order(ranking, 20), as_json=as_json)


@app.command()
def label_errors(project: Project, as_json: AsJson = False) -> None:
    """List the labels that look wrong to the serving version, at most 20, the worst first."""
    from backend.cli import reports, tables
    from backend.evaluation.label_quality import by_task, suspicious
    from backend.loop.review import label_review
    from backend.web.status_schemas import label_error_out

    issues = label_review.current_issues(open_context(), project)
    worst = suspicious(issues)[:20]
    table = tables.label_errors(worst, len(by_task(issues)))
    reports.show([label_error_out(issue) for issue in worst], table, as_json=as_json)


@app.command()
def frames(
    project: Project,
    task: Annotated[int, typer.Argument(help="id of a task that is a video")],
    as_json: AsJson = False,
) -> None:
    """List at most ten frames of a video to label first, the most uncertain one first."""
    from backend.cli import reports
    from backend.loop.scoring import frame_order

    numbers = frame_order.frames_to_label(open_context(), project, task)
    reports.show(numbers, ", ".join(map(str, numbers)), as_json=as_json)


@app.command()
def rollback(project: Project, number: Annotated[int, typer.Argument(help="version number to go back to")]) -> None:
    """Go back to an earlier version. The worker scores the pool with it, and then the queue changes."""
    from backend.queue.rq_queue import Jobs

    context = open_context()
    version = context.store.rollback(project, number)
    Jobs(context.redis).once("start_scoring", project)
    typer.echo(f"accepted {version.name} again; the queue changes when the worker has scored the pool with it")


app.command()(experiments.simulate)
app.command(hidden=True)(experiments.simulate_unit)
