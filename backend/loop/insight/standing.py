"""Where the loop of a project stands: one sentence, its health in a word, and what needs a person's attention."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from backend.loop.context import Context, is_remote
from backend.loop.project_status import Status
from backend.queue import presence
from backend.queue.rq_queue import QUEUES

Severity = Literal["error", "warning", "note"]
HEALTH_WORDS = {"error": "broken", "warning": "needs attention", "note": "healthy"}
LEAST_FREE_GB = 5.0  # a training on a full disk loses its version
_STAGES = {
    "snapshot": "reading the labels",
    "images": "fetching the images",
    "train": "learning",
    "evaluate": "measuring the new model on held-out images",
    "publish": "storing the version",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should know: its severity, the problem, and what to do; "" if there is nothing to do."""

    severity: Severity
    problem: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the loop of a project stands."""

    sentence: str  # what the loop does or waits for
    health: str  # "healthy", "needs attention" or "broken"
    reason: str  # the problem behind the health; "" if it is healthy
    alerts: tuple[Alert, ...]  # the worst first


@dataclass(frozen=True, slots=True)
class Machines:
    """What all projects share on the machines of the backend."""

    free_gb: float | None = None  # free space of the disk with MODEL_DIR; None: not known
    unserved: tuple[str, ...] = ()  # queues whose jobs no worker takes


def machines(context: Context) -> Machines:
    """Return the state of the disk and of the workers."""
    alive = presence.workers(context.redis)
    return Machines(_free_disk_gb(context), tuple(name for name in QUEUES if not alive[name]))


def standing(status: Status, machines: Machines) -> Standing:
    """Return where a project stands."""
    order = list(HEALTH_WORDS)
    alerts = sorted(_alerts(status, machines), key=lambda alert: order.index(alert.severity))
    worst = alerts[0] if alerts and alerts[0].severity != "note" else None
    return Standing(
        sentence=_sentence(status),
        health=HEALTH_WORDS[worst.severity if worst else "note"],
        reason=worst.problem if worst else "",
        alerts=tuple(alerts),
    )


def _free_disk_gb(context: Context) -> float | None:
    """Return the free space of the disk with MODEL_DIR in gigabytes; None for a bucket, or if there is no such disk."""
    if is_remote(context.settings):
        return None
    try:
        return shutil.disk_usage(context.work_dir).free / 1e9
    except OSError:
        return None


def stage_in_words(stage: str) -> str:
    """Return what a training does at a stage.

    >>> stage_in_words("evaluate")
    'measuring the new model on held-out images'
    """
    return _STAGES.get(stage, stage)


def _sentence(status: Status) -> str:
    parts = [_activity(status)]
    if status.failures:
        parts.append(f"{_count(len(status.failures), 'task')} could not be used")
    return "; ".join(parts) + "."


def _activity(status: Status) -> str:
    training, run, counts = status.training, status.scoring, status.counts
    if training.state == "running":
        return f"A training is running: {stage_in_words(training.stage)}"
    if training.state == "queued":
        return "A training waits for a free worker"
    if run is not None:
        return f"{run.done} of {_count(run.total, 'task')} have predictions of the new version"
    if counts is None:
        return "The labels are not counted yet"
    newest = max((version.number for version in status.versions), default=0)
    if status.pause is not None:
        return f"The loop is paused by {status.pause.who}: {_count(counts.new, 'new label')}, and no training starts"
    if counts.new >= status.retrain_every:
        return f"{_count(counts.new, 'new label')}: the training of version {newest + 1} is due"
    undecided = f"; {_count(counts.waiting, 'undecided task')}" if counts.waiting else ""
    return f"{counts.new} of {_count(status.retrain_every, 'new label')} until version {newest + 1}{undecided}"


def _alerts(status: Status, machines: Machines) -> Iterator[Alert]:
    if machines.unserved:
        cure = "Start `yolo-backend run`, or `yolo-backend worker` beside `yolo-backend serve`."
        queues = ", ".join(machines.unserved)
        yield Alert(
            "error", f"No worker for the queues {queues}: nothing is learned, and no new task is predicted.", cure
        )
    if status.label_studio.error:
        cure = "Check LABEL_STUDIO_URL, LABEL_STUDIO_API_KEY and that Label Studio runs."
        yield Alert("error", f"Label Studio did not answer: {status.label_studio.error}", cure)
    if status.training.error:
        severity: Severity = "error" if status.training.state == "failed" else "warning"
        yield Alert(severity, f"The last training failed: {status.training.error}")
    if status.ranking_error:
        yield Alert("error", f"The pool could not be ranked, so the queue keeps its order: {status.ranking_error}")
    free_gb = machines.free_gb
    if free_gb is not None and free_gb < LEAST_FREE_GB:
        cure = "Free some space, or lower MEDIA_CACHE_GB."
        yield Alert("warning", f"The disk of MODEL_DIR has {free_gb:.1f} GB left.", cure)
    for problem in status.label_studio.warnings:
        if not (status.label_studio.error and status.label_studio.error in problem):
            text, _, cure = problem.partition(" Fix: ")
            yield Alert("warning", text, f"{cure[:1].upper()}{cure[1:]}")
    newest = status.versions[-1] if status.versions else None
    if newest is not None and not newest.promoted:
        cure = "Nothing to do: the version before stays in use, and the next labels start another training."
        yield Alert("note", f"{newest.name}: {newest.reason}", cure)
    for entry in status.prompts:
        if entry.is_off:
            cure = 'Nothing to do: the first training brings it back. Another prompt="…" on the label is tried at once.'
            yield Alert("note", entry.in_words(), cure)
    for problem in status.warnings:
        yield Alert("note", problem)


def _count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> _count(1, "task"), _count(31, "task")
    ('1 task', '31 tasks')
    """
    return f"{number} {noun}{'s' * (number != 1)}"
