"""The commands that change a project. As in app, heavy modules are imported inside the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from backend.cli.arguments import AsJson, Project, Yes
from backend.cli.startup import open_context


def connect(
    project: Project,
    url: Annotated[
        str, typer.Option(help="the backend's address as Label Studio reaches it")
    ] = "http://localhost:9090",
) -> None:
    """Connect the backend to a project, set up the queue, and print what was done."""
    from backend.cli.progress import progress
    from backend.loop import project_setup
    from backend.settings import require_web_address

    require_web_address("--url", url, "http://localhost:9090")
    context = open_context()
    with progress("setting up the project in Label Studio"):
        lines = project_setup.connect(context, project, url)
    for line in lines:
        typer.echo(line)


def disconnect(project: Project, yes: Yes = False) -> None:
    """Remove the backend's model and webhook from a project, after asking. Labels and versions stay."""
    from backend.loop import project_setup

    context = open_context()
    attached = project_setup.attachments(context, project)
    lines = attached.lines or ("nothing: no model and no webhook of this backend is there",)
    typer.echo(f"In project {project} of {context.label_studio.url} this removes:")
    for line in lines:
        typer.echo(f"- {line}")
    if not yes:
        typer.confirm("Remove it, and stop working on this project?", abort=True)
    project_setup.disconnect(context, project, attached)
    typer.echo(
        f"removed. Labels, predictions, the Data Manager tabs and the versions in MODEL_DIR stay; "
        f"`yolo-backend connect {project}` takes the project up again"
    )


def train(project: Project) -> None:
    """Train all tags now, in this process. If the version is published, the worker scores the pool."""
    from backend.cli.progress import progress
    from backend.loop.review import round_value
    from backend.loop.training import retraining
    from backend.queue.rq_queue import Jobs

    context = open_context()
    with progress("training") as show:
        version = retraining.retrain(
            context, project, forced=True, watch=lambda now: show(now.stage, now.details, now.progress)
        )
    round_value.reward(context, version)
    typer.echo(f"{version.name}: {version.reason}")
    if version.promoted:
        Jobs(context.redis).once("start_scoring", project)
        typer.echo("scoring of the unlabeled tasks is queued")


def score(project: Project) -> None:
    """Let the worker predict and rank the unlabeled tasks again with the accepted version."""
    from backend.loop.served_models import require_project
    from backend.queue.rq_queue import Jobs

    context = open_context()
    require_project(context, project)
    Jobs(context.redis).once("start_scoring", project)
    typer.echo("scoring is queued; `yolo-backend status` shows how far it is")


def rank(
    project: Project,
    strategy: Annotated[str, typer.Option(help="any of `yolo-backend strategies`")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the order; write nothing")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show the next 20 tasks in the order of a strategy and, after asking, make it the project's."""
    from backend.cli import reports, tables
    from backend.cli.progress import progress
    from backend.cli.steer import somebody
    from backend.loop import steering
    from backend.loop.scoring import pool_ranking
    from backend.queue.rq_queue import Jobs

    context = open_context()
    with progress("ranking") as show:
        show("", f"by {strategy}", None)
        ranking = pool_ranking.preview(context, project, strategy)
    reports.show(reports.places(ranking, 20), tables.order(ranking, 20), as_json=as_json)
    if dry_run:
        return
    if not yes:
        typer.confirm(f"Order the queue of project {project} by {strategy} from now on?", abort=True, err=True)
    steering.use_strategy(context, Jobs(context.redis), project, strategy, somebody())
    typer.echo(f"{strategy} orders the queue of project {project}; the worker writes the new places", err=True)
