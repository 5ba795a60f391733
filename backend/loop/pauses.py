"""What becomes of a job where the machine fails: it runs again after a growing pause, and the status tells why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import BackendError, LabelStudioError, MachineError
from backend.faults import machine_fault
from backend.loop.context import Context
from backend.queue.rq_queue import Jobs
from backend.queue.run_state import TrainingProgress

log = logging.getLogger(__name__)


@contextmanager
def training(context: Context, project_id: int, forced: int) -> Iterator[None]:
    """Keep a fault of the machine or of Label Studio in the block: the check trains again after a pause.

    The labels are not to blame.
    """
    try:
        yield
    except (MachineError, LabelStudioError, OSError, MemoryError, RuntimeError) as error:
        cause = error if isinstance(error, LabelStudioError) else machine_fault(error)
        if cause is None:
            raise
        _note(context, project_id, bool(forced), cause)


def after_killed_training(context: Context, project_id: int) -> bool:
    """Keep that a training was killed, if one was: at once it may be killed again, so the check waits for a while."""
    if not context.progress.is_dead(project_id):
        return False
    error = MachineError(
        "the training was killed: by a restart, or because the machine ran out of memory",
        fix="if it happens again, lower BATCH or IMGSZ, or give the worker more memory",
    )
    _note(context, project_id, context.progress.recall(project_id, "forced") == "1", error)
    return True


def _note(context: Context, project_id: int, forced: bool, cause: BackendError) -> None:
    fault = context.progress.note_fault(project_id, "training", str(cause), forced=forced)
    log.error("project %d: no training: %s", project_id, fault)
    context.progress.set_training(project_id, TrainingProgress("failed", error=str(cause)))


@contextmanager
def scoring(context: Context, jobs: Jobs, project_id: int, run: int | None = None) -> Iterator[None]:
    """Score again from the start, after a pause, where the machine fails in the block; `run` is then over.

    So it is where Label Studio does not even list the tasks. Later, with a `run`, rq tries the job again instead, and
    what is scored stays.
    """
    try:
        yield
    except (MachineError, LabelStudioError, OSError, MemoryError, RuntimeError) as error:
        cause = error if isinstance(error, LabelStudioError) and run is None else machine_fault(error)
        if cause is None:
            raise
        if run is not None:
            context.progress.end_scoring(project_id, run)
        fault = context.progress.note_fault(project_id, "scoring", str(cause))
        log.error("project %d: no scoring: %s", project_id, fault)
        context.progress.remember(project_id, "ranking_error", str(fault))
        jobs.once("start_scoring", project_id, delay_s=fault.pause_s)
