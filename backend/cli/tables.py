"""How the terminal shows a project: rich tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from backend.acquisition import Acquisition
from backend.evaluation import basis
from backend.evaluation.label_quality import LabelIssue, by_task
from backend.loop.projects import Status
from backend.model_versions import ModelVersion
from backend.types import Ranking

_REWARDS = 5  # the newest rounds whose gain is shown


def versions(found: Sequence[ModelVersion]) -> Table:
    """Return a table of versions, newest last."""
    table = Table("version", "labels", "mAP50 [95% interval]", "created", "published", "reason")
    for version in found:
        table.add_row(
            version.name,
            str(version.snapshot.learned_tasks),
            "-" if version.models[0].metrics is None else basis.in_words(version.models[0].metrics),
            f"{version.created:%Y-%m-%d %H:%M}",
            "yes" if version.promoted else "no",
            version.reason,
        )
    return table


def strategies(found: Sequence[Acquisition]) -> Table:
    """Return a table of strategies: what each asks of an image, needs and costs, and when to use it."""
    table = Table(Column("name", no_wrap=True), "what it asks, needs and costs, and when to use it", show_lines=True)
    for one in found:
        facts = {"needs": ", ".join(sorted(one.needs)), "costs": one.cost, "use it when": one.when, "paper": one.paper}
        lines = [one.asks, *(f"{name}: {fact}" for name, fact in facts.items() if fact)]
        table.add_row(one.name, Text("\n".join(lines)))
    return table


def label_errors(found: Sequence[LabelIssue]) -> Table:
    """Return a table of labels that look wrong, each with the box it is about; worst first."""
    table = Table("task", "tag", "score", "suspicion", "label", "left, top, right, bottom (%)", "trained on")
    for issue in found:
        box = ", ".join(f"{side:.0f}" for side in issue.box or ())
        table.add_row(
            *(str(issue.task_id), issue.tag, f"{issue.score:.3f}", issue.suspicion, issue.label, box),
            "yes" if issue.learned else "no",
        )
    return table


def order(found: Ranking, count: int) -> Table:
    """Return the head of a queue."""
    table = Table("place", "task", f"value of {found.strategy}", "explored")
    for place, row in enumerate(np.argsort(found.priority, kind="stable")[:count].tolist(), 1):
        table.add_row(
            str(place), str(found.task_ids[row]), f"{found.acquisition[row]:.4g}", "yes" if found.explored[row] else ""
        )
    return table


def status(found: Status) -> Group:
    """Return a project's status: what serves, what is labeled, what runs, what failed."""
    table = Table(show_header=False)
    counts, training, run = found.counts, found.training, found.scoring
    table.add_row("serves", found.version)
    if counts:
        table.add_row("labeled", f"{counts.labeled} of {counts.tasks} tasks")
        table.add_row("new labels", f"{counts.new} of {found.retrain_every} until the next training")
    table.add_row("strategy", found.strategy)
    table.add_row("Label Studio", f"answered at {found.label_studio.reached}" if found.label_studio.reached else "")
    for warning in found.label_studio.warnings:
        table.add_row("warning", warning)
    eta = f", {training.eta_s:.0f} s left" if training.eta_s is not None else ""
    stage = f" {training.stage} {training.progress:.0%}{eta}" if training.state == "running" else ""
    table.add_row("training", f"{training.state}{stage} {training.error}".strip())
    if run:
        table.add_row("scoring", f"{run.done} of {run.total} tasks")
    if found.ranking_error:
        table.add_row("not ranked", found.ranking_error)
    for warning in found.warnings:
        table.add_row("label config", warning)
    met = "; ".join(sign.reason for sign in found.stopping.signs if sign.met)
    table.add_row("more labels?", f"{'you may stop' if found.stopping.stop else 'continue'}{': ' if met else ''}{met}")
    for arm in found.arms:
        table.add_row(f"{found.bandit} arm", f"{arm.strategy}: {arm.rounds} rounds, mean {arm.mean:.2f}")
    for reward in found.rewards[-_REWARDS:]:
        gained = basis.change(reward.gain, reward.interval, reward.judged_on)
        if reward.judged_on >= basis.MIN_JUDGED_IMAGES:
            gained = f"mAP50 {gained}, {reward.boxes} labels by {reward.strategy}"
        table.add_row("gain", f"version {reward.version}: {gained}")
    if judged := by_task(found.label_issues):
        suspicious = sum(issue.suspicious for issue in judged)
        table.add_row("label errors?", f"{suspicious} of {len(judged)} labeled tasks look wrong")
    for task_id, reason in list(found.failures.items())[:20]:
        table.add_row(f"task {task_id}", reason)
    return Group(table, versions(found.versions))
