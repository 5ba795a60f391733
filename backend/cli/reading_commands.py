"""The commands that only read. As in app, heavy modules are imported inside the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from backend.cli.arguments import AsJson, Project
from backend.cli.startup import open_context, read_settings

WATCH_S = 1.0  # between two looks at the status


def status(
    project: Project,
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help=f"show it anew every {WATCH_S:g} s until Ctrl-C; needs a terminal")
    ] = False,
) -> None:
    """Show the status of a project."""
    from backend.cli import reports, tables
    from backend.loop import project_status
    from backend.web.status_schemas import project_out

    if watch and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter("it needs a terminal, and no --json", param_hint="--watch")
    context = open_context()
    current = project_status.status(context, project)
    if watch:
        tables.live(lambda: tables.status(project_status.status(context, project)), WATCH_S)
    else:
        reports.show(project_out(current), tables.status(current), as_json=as_json)


def versions(project: Project, as_json: AsJson = False) -> None:
    """List a project's versions, and mark the one that serves."""
    from backend.cli import reports, tables
    from backend.loop.served_models import name_of, require_project

    context = open_context()
    serving = name_of(context, require_project(context, project))
    listed = context.store.versions(project)
    reports.show(reports.listed_versions(listed, serving), tables.versions(listed, serving), as_json=as_json)


def strategies(as_json: AsJson = False) -> None:
    """List the strategies: what each one asks, needs and costs, and when to use it."""
    from backend import acquisition
    from backend.cli import reports, tables

    listed = [acquisition.get(name) for name in acquisition.names()]
    reports.show(reports.listed_strategies(listed), tables.strategies(listed), as_json=as_json)


def label_errors(project: Project, as_json: AsJson = False) -> None:
    """List the labels that look wrong to the serving version, at most 20, the worst first."""
    from backend.cli import reports, tables
    from backend.cli.progress import progress
    from backend.evaluation.label_quality import by_task, suspicious
    from backend.loop.review import label_review
    from backend.web.label_schemas import label_error_out

    context = open_context()
    with progress("reading the labels in Label Studio"):
        issues = label_review.current_issues(context, project)
    worst = suspicious(issues)[:20]
    table = tables.label_errors(worst, len(by_task(issues)))
    reports.show([label_error_out(issue) for issue in worst], table, as_json=as_json)


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


def doctor(as_json: AsJson = False) -> None:
    """Check Label Studio, redis, workers, disk, GPU, weights and the clock; exit status 1 if something is to do.

    It makes a project in Label Studio for a moment, to see whether a webhook comes back.
    """
    from rich.console import Console

    from backend.cli import doctor, reports

    console, all_findings = Console(), []
    for finding in doctor.findings(read_settings()):
        all_findings.append(finding)
        if not as_json:
            console.print(doctor.draw(finding))
    if as_json:
        reports.show(reports.findings(all_findings), "", as_json=True)
    if not all(finding.ok for finding in all_findings):
        raise typer.Exit(1)
