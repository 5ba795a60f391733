"""The commands by which a person steers the loop. As in app, heavy modules are imported inside the commands."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from backend.cli.startup import open_context


def somebody() -> str:
    """Return who runs this command, for the journal."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a container may run under a number without a name
        return "command line"


def pin(
    project: Annotated[int, typer.Argument(help="id of the Label Studio project")],
    tasks: Annotated[list[int], typer.Argument(help="ids of tasks, in the order in which they should come")],
    to: Annotated[str, typer.Option(help="front: next; back: last; none: where the strategy puts them")],
) -> None:
    """Put tasks at the front or at the back of the queue. A pin stays over all versions."""
    from backend.loop import steering
    from backend.queue.rq_queue import Jobs
    from backend.sampling.pins import PLACES, as_place

    if to not in PLACES:
        raise typer.BadParameter(f"use one of {', '.join(PLACES)}", param_hint="--to")
    context = open_context()
    pinned = steering.pin(context, Jobs(context.redis), project, tasks, as_place(to), somebody())
    for name, side in (("front", pinned.pins.front), ("back", pinned.pins.back)):
        if side:
            typer.echo(f"{name}: {', '.join(map(str, side))}")
    if not pinned.pins:
        typer.echo("no task is pinned")
    for task_id in pinned.labeled:
        typer.echo(f"task {task_id} is labeled, so its pin has no effect")


def rollback(
    project: Annotated[int, typer.Argument(help="id of the Label Studio project")],
    number: Annotated[int, typer.Argument(help="version number to go back to")],
) -> None:
    """Go back to an earlier version. The worker scores the pool with it, and then the queue changes."""
    from backend.loop import steering
    from backend.queue.rq_queue import Jobs

    context = open_context()
    version = steering.accept_version(context, Jobs(context.redis), project, number, somebody())
    typer.echo(f"accepted {version.name} again; the queue changes when the worker has scored the pool with it")
