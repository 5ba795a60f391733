"""Jobs at which the machine fails: they run again after a growing pause, and the status shows the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import BackendError, LabelStudioError, MachineError, machine_fault
from backend.loop.context import Context
from backend.queue.rq_queue import Jobs
from backend.queue.run_state import TrainingProgress

log = logging.getLogger(__name__)


@contextmanager
def training(context: Context, project_id: int, forced: int) -> Iterator[None]:
    """Store a fault of the machine or of Label Studio in the block, so that the check trains again after a pause.

    Other errors are raised: their cause is in the labels or in the program.
    """
    try:
        yield
    except (MachineError, LabelStudioError, OSError, MemoryError, RuntimeError) as error:
        cause = error if isinstance(error, LabelStudioError) else machine_fault(error)
        if cause is None:
            raise
        _note(context, project_id, bool(forced), cause)


def after_killed_training(context: Context, project_id: int) -> bool:
    """Store a fault if the last training was killed, and return whether it was.

    It may be killed again at once, so the next training waits for the pause.
    """
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
    """If the machine fails in the block, end the run and enqueue a new scoring after a pause.

    A fault of Label Studio does the same as long as there is no `run`, while it lists the tasks. Later the error is
    raised: rq tries the job again, and the scored shards stay.
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
