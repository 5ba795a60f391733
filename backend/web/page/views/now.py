"""The view Now: where the loop stands, the running training, and what needs a person's attention."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import NotFoundError
from backend.loop import project_status, steering
from backend.loop.insight.standing import Standing, machines, stage_in_words, standing
from backend.loop.project_status import Status
from backend.queue.rq_queue import Jobs
from backend.store.records import JournalEntry
from backend.web.page import rendering
from backend.web.page.view import Form, Parts, View, Visit

MOST_ENTRIES = 20  # of the journal


@dataclass(frozen=True, slots=True)
class Now:
    """The state of a project's loop."""

    status: Status
    standing: Standing
    stage: str  # of the running training, in words
    journal: tuple[JournalEntry, ...]  # what people did, newest first


def read(visit: Visit) -> Now:
    """Return the state of the loop now."""
    status = project_status.status(visit.context, visit.project_id)
    return Now(
        status=status,
        standing=standing(status, machines(visit.context)),
        stage=stage_in_words(status.training.stage),
        journal=visit.context.store.journal.entries(visit.project_id)[:MOST_ENTRIES],
    )


def train(visit: Visit, jobs: Jobs, form: Form) -> str:
    """Queue a training now. Raises NotFoundError while one is running, TrainingError without labels."""
    if visit.context.progress.training(visit.project_id).state == "running":
        raise NotFoundError("a training is running already", fix="wait until it ends")
    steering.start_training(visit.context, jobs, visit.project_id, form.who)
    return "The training is queued. It starts as soon as a worker is free."


def pause(visit: Visit, _jobs: Jobs, form: Form) -> str:
    """Pause the loop."""
    steering.pause(visit.context, visit.project_id, form.who)
    return "The loop is paused. No training starts by itself; Train now still works."


def resume(visit: Visit, jobs: Jobs, form: Form) -> str:
    """End the pause."""
    steering.resume(visit.context, jobs, visit.project_id, form.who)
    return "The loop goes on. Enough new labels start a training."


def live(visit: Visit) -> Parts:
    """Return the part above the buttons as it is now."""
    return {"live": rendering.fragment("now_live.html.j2", shown=read(visit))}


ACTIONS = {"train": train, "pause": pause, "resume": resume}
VIEW = View("now", "Now", "Where does the loop stand, and what does it wait for?", read, ACTIONS, live=live)
