"""The tables that commands print, made with rich."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from backend.acquisition import Acquisition
from backend.evaluation import basis
from backend.evaluation.label_quality import LabelIssue, by_task
from backend.loop.project_status import Status
from backend.model_versions import ModelVersion
from backend.types import Ranking

_BAR_WIDTH = 40  # characters
_REWARDS = 5  # the newest rounds whose gain is shown


def versions(project_versions: Sequence[ModelVersion], serving: str) -> Group:
    """Return a table of versions, newest last, which marks the serving one, and a line with the reason of each."""
    table = Table("version", "labels", "mAP50 [95% interval]", "created", "published", "serves")
    for version in project_versions:
        table.add_row(
            version.name,
            str(version.snapshot.learned_tasks),
            "-" if version.models[0].metrics is None else basis.in_words(version.models[0].metrics),
            f"{version.created:%Y-%m-%d %H:%M}",
            "yes" if version.promoted else "no",
            "yes" if version.name == serving else "",
        )
    return Group(table, *(Text(f"{version.name}: {version.reason}") for version in project_versions))


def strategies(acquisitions: Sequence[Acquisition]) -> Table:
    """Return a table of strategies: the question each asks, its needs and costs, and when to use it."""
    table = Table(Column("name", no_wrap=True), "what it asks, needs and costs, and when to use it", show_lines=True)
    for acquisition in acquisitions:
        facts = {
            "needs": ", ".join(sorted(acquisition.needs)),
            "costs": acquisition.cost,
            "use it when": acquisition.when,
            "paper": acquisition.paper,
        }
        lines = [acquisition.asks, *(f"{name}: {fact}" for name, fact in facts.items() if fact)]
        table.add_row(acquisition.name, Text("\n".join(lines)))
    return table


def label_errors(issues: Sequence[LabelIssue], reviewed: int) -> Table | str:
    """Return a table of label issues, each with its box, worst first; without one, how many tasks were reviewed."""
    if not issues:
        return f"no label looks wrong; reviewed tasks: {reviewed}"
    table = Table("task", "tag", "score", "suspicion", "label", "left, top, right, bottom (%)", "trained on")
    for issue in issues:
        box = ", ".join(f"{side:.0f}" for side in issue.box or ())
        table.add_row(
            *(str(issue.task_id), issue.tag, f"{issue.score:.3f}", issue.suspicion, issue.label, box),
            "yes" if issue.learned else "no",
        )
    return table


def order(ranking: Ranking, count: int) -> Table:
    """Return a table of the first `count` tasks of a ranking."""
    table = Table("place", "task", f"value of {ranking.strategy}", "explored")
    for place, row in enumerate(np.argsort(ranking.priority, kind="stable")[:count].tolist(), 1):
        table.add_row(
            str(place),
            str(ranking.task_ids[row]),
            f"{ranking.acquisition[row]:.4g}",
            "yes" if ranking.explored[row] else "",
        )
    return table


def status(project: Status) -> Group:
    """Return tables of a project's status: serving version, labels, running jobs, failures, and all versions."""
    table = Table(show_header=False)
    counts, training, run = project.counts, project.training, project.scoring
    table.add_row("serves", project.version)
    if counts:
        table.add_row("labeled", f"{counts.labeled} of {counts.tasks} tasks")
        table.add_row("new labels", f"{counts.new} of {project.retrain_every} until the next training")
        if counts.waiting:
            table.add_row("undecided", f"{counts.waiting} tasks wait for a ground truth")
    table.add_row("strategy", project.strategy)
    if project.pause:
        table.add_row("paused", f"by {project.pause.who} since {project.pause.since:%Y-%m-%d %H:%M} UTC")
    for name, side in (("pinned to the front", project.pins.front), ("pinned to the back", project.pins.back)):
        if side:
            table.add_row(name, ", ".join(map(str, side)))
    table.add_row("Label Studio", f"answered at {project.label_studio.reached}" if project.label_studio.reached else "")
    for warning in project.label_studio.warnings:
        table.add_row("warning", warning)
    details = f", {training.details}" if training.details else ""
    stage = f" {training.stage} {training.progress:.0%}{details}" if training.state == "running" else ""
    table.add_row("training", f"{training.state}{stage} {training.error}".strip())
    if training.state == "running":
        table.add_row("", ProgressBar(1.0, training.progress, width=_BAR_WIDTH))
    if run:
        table.add_row("scoring", f"{run.done} of {run.total} tasks")
    if project.ranking_error:
        table.add_row("not ranked", project.ranking_error)
    for warning in project.warnings:
        table.add_row("label config", warning)
    met = "; ".join(sign.reason for sign in project.stopping.signs if sign.met)
    table.add_row(
        "more labels?", f"{'you may stop' if project.stopping.stop else 'continue'}{': ' if met else ''}{met}"
    )
    for arm in project.arms:
        table.add_row(f"{project.bandit} arm", f"{arm.strategy}: {arm.rounds} rounds, mean {arm.mean:.2f}")
    for reward in project.rewards[-_REWARDS:]:
        gained = basis.change(reward.gain, reward.interval, reward.judged_on)
        if reward.judged_on >= basis.MIN_JUDGED_IMAGES:
            gained = f"mAP50 {gained}, {reward.boxes} labels by {reward.strategy}"
        table.add_row("gain", f"version {reward.version}: {gained}")
    if judged := by_task(project.label_issues):
        suspicious = sum(issue.suspicious for issue in judged)
        table.add_row("label errors?", f"{suspicious} of {len(judged)} labeled tasks look wrong")
    for task_id, reason in list(project.failures.items())[:20]:
        table.add_row(f"task {task_id}", reason)
    return Group(table, versions(project.versions, project.version))


def live(draw: Callable[[], RenderableType], every_s: float) -> None:
    """Show what `draw` returns on a screen of its own, anew every `every_s` seconds, until Ctrl-C."""
    with suppress(KeyboardInterrupt), Live(draw(), screen=True, auto_refresh=False) as screen:
        while True:
            time.sleep(every_s)
            screen.update(draw(), refresh=True)
