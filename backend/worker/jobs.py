"""The jobs: functions that rq calls with ids and plain JSON. Each rebuilds what it needs and may run twice."""

from __future__ import annotations

import functools
import logging
import os
import time
from pathlib import Path

from backend import settings as settings_table
from backend.errors import BackendError, BusyError, ModelError, SettingError, TrainingError
from backend.evaluation.label_quality import by_task
from backend.loop import absent, demands, projects, rests, served_models, studio_state
from backend.loop.context import Context, build
from backend.loop.review import label_marks, label_review, round_value
from backend.loop.scoring import late_tasks, old_versions, push, scoring
from backend.loop.training import retraining, scratch
from backend.queue.rq_queue import Jobs, hint
from backend.queue.run_state import TrainingProgress
from backend.simulate import unit_process

log = logging.getLogger(__name__)

TRAINING_PAUSE_S = 30.0
BUSY_PAUSE_S = 5.0  # until a job that found another one at work looks again


@functools.cache
def _open() -> tuple[Context, Jobs]:
    """Build the context once per process, from the environment: a job's entry point."""
    context = build(settings_table.from_env(os.environ))
    return context, Jobs(context.redis)


_of_project = absent.jobs_of(lambda: _open()[0])


@_of_project
def check(project_id: int) -> None:
    """Count new labels through Label Studio and start a training when there are enough."""
    context, jobs = _open()
    context.progress.unclaim(hint("check", project_id))
    demands.check(context, jobs, project_id)


@_of_project
def retrain(project_id: int, forced: int) -> None:
    """Train and publish; then score the pool if the version was accepted.

    Counts once more unless `forced`: a check that ran while a training did may have asked for labels already in it.
    """
    context, jobs = _open()
    context.progress.unclaim(hint("retrain", project_id, forced))
    if rests.after_death(context, project_id):
        return
    if not forced and (context.progress.rests(project_id, "training") or not demands.is_due(context, project_id)):
        context.progress.set_training(project_id, TrainingProgress("idle"))
        return
    context.progress.remember(project_id, "forced", str(forced))
    with rests.training(context, project_id, forced):
        _train(context, jobs, project_id, forced)


def _train(context: Context, jobs: Jobs, project_id: int, forced: int) -> None:
    try:
        version = retraining.retrain(context, project_id, forced=bool(forced))
    except BusyError as busy:
        log.info("project %d: %s", project_id, busy)
        if forced:  # nobody asks again; labels that are due are found by the next check
            jobs.once("retrain", project_id, forced, delay_s=TRAINING_PAUSE_S)
        return
    except TrainingError as error:
        # The labels do not allow it: trying again makes sense only once they change, or what is asked of them.
        context.progress.remember(project_id, "failed_labels", demands.labels_fingerprint(context, project_id))
        context.progress.forget_fault(project_id, "training")  # or a training that was asked for would come for ever
        log.warning("project %d: no training: %s", project_id, error)
        return
    if version.promoted:
        jobs.once("start_scoring", project_id)
    try:
        round_value.reward(context, version)
    except (BackendError, OSError) as error:  # only the bandit's history lacks it; a job that raised would train again
        log.warning("project %d: the gain of %s is not kept: %s", project_id, version.name, error)
    scratch.clear(context.work_dir)
    jobs.once("check", project_id)  # labels may have come in while we trained


@_of_project
def start_scoring(project_id: int) -> None:
    """Cut the pool into shards, one job each."""
    context, jobs = _open()
    context.progress.unclaim(hint("start_scoring", project_id))
    with rests.scoring(context, jobs, project_id):
        _start_scoring(context, jobs, project_id)


def _start_scoring(context: Context, jobs: Jobs, project_id: int) -> None:
    try:
        with context.lock(project_id, "push"):  # what is being pushed or placed is of the pool that goes
            total = scoring.start(context, jobs, project_id)
    except BusyError:
        jobs.once("start_scoring", project_id, delay_s=BUSY_PAUSE_S)
        return
    except (ModelError, SettingError) as error:
        push.give_up(context, project_id, error)
        return
    log.info("project %d: scoring %d tasks", project_id, total)


@_of_project
def score_shard(project_id: int, run: int, index: int, labeled: int, task_ids: list[int]) -> None:
    """Score one shard of the pool or of the labeled tasks; the last one in starts the ranking."""
    context, jobs = _open()
    with rests.scoring(context, jobs, project_id, run):
        _score_shard(context, jobs, project_id, run, index, labeled, task_ids)


def _score_shard(
    context: Context, jobs: Jobs, project_id: int, run: int, index: int, labeled: int, task_ids: list[int]
) -> None:
    try:
        number = scoring.score_shard(context, project_id, run, index, bool(labeled), task_ids)
    except (ModelError, SettingError) as error:  # the other shards would fail alike
        push.give_up(context, project_id, error)
        context.progress.end_scoring(project_id, run)
        return
    if number is not None:
        jobs.put("rank_and_push", project_id, run)


@_of_project
def rank_and_push(project_id: int, run: int) -> None:
    """Rank, import, flip; then look after tasks that arrived meanwhile and versions that are now old.

    Moot once another run has begun: its shards take the place of this one's.
    """
    context, jobs = _open()
    with rests.scoring(context, jobs, project_id, run):
        _rank_and_push(context, jobs, project_id, run)


def _rank_and_push(context: Context, jobs: Jobs, project_id: int, run: int) -> None:
    try:
        with context.lock(project_id, "push") as fence:
            current = context.progress.scoring(project_id)
            if current is None or current.run != run:
                return
            number, pushed = current.number, push.rank_and_push(context, project_id, current.number, fence.check)
    except BusyError:
        if context.progress.renew_scoring(project_id, run):
            jobs.put("rank_and_push", project_id, run, delay_s=BUSY_PAUSE_S)
        return
    except (ModelError, SettingError) as error:  # nothing was written
        push.give_up(context, project_id, error)
        context.progress.end_scoring(project_id, run)
        return
    if pushed is None:  # another version was accepted meanwhile, and has a scoring of its own
        context.progress.end_scoring(project_id, run)
        return
    push.succeed(context, project_id)
    log.info(
        "project %d: the predictions of %s are in Label Studio; %d were not there before",
        project_id,
        pushed.version,
        pushed.created,
    )
    if push.is_ranked(context, project_id):  # else it would start this scoring of an empty pool over and over
        jobs.once("score_new", project_id)
    jobs.once("delete_old", project_id)
    jobs.once("review_labels", project_id, number)
    jobs.once("check", project_id)  # labels that came in meanwhile had to wait, see demands.is_awaited
    demands.close_push(context, project_id, number)
    context.progress.end_scoring(project_id, run)  # the last: if this job dies, the next try is not moot


@_of_project
def score_new(project_id: int) -> None:
    """Give the tasks of the queue the prediction and the place that they lack."""
    context, jobs = _open()
    context.progress.unclaim(hint("score_new", project_id))
    mark = demands.fingerprint(
        context, context.label_studio.projects([project_id]), project_id
    )  # before any task is looked at
    if not push.is_ranked(context, project_id):
        if context.progress.scoring(project_id) is None:
            jobs.once("start_scoring", project_id)
            context.progress.remember(project_id, "placed", mark, for_s=demands.TRUSTED_S)
        return
    try:
        with context.lock(project_id, "push") as fence:
            created = late_tasks.score_new(context, project_id, fence.check)
            outdated = late_tasks.score_outdated(context, project_id, fence.check)
    except BusyError:
        jobs.once("score_new", project_id, delay_s=BUSY_PAUSE_S)
        return
    if created >= late_tasks.AT_ONCE:  # others may be left: those of other projects come first
        jobs.once("score_new", project_id)
    else:
        context.progress.remember(project_id, "placed", mark, for_s=demands.TRUSTED_S)
    if outdated:
        jobs.once("review_labels", project_id, served_models.serving_number(context, project_id))
    if created:
        log.info("project %d: wrote %d predictions that the queue lacked", project_id, created)


@_of_project
def review_labels(project_id: int, number: int) -> None:
    """Look for wrong labels with version `number`, and mark them in Label Studio; moot once another one serves."""
    context, jobs = _open()
    context.progress.unclaim(hint("review_labels", project_id, number))
    if not number or number != served_models.serving_number(context, project_id):
        return
    begun = time.monotonic()
    try:
        with context.lock(project_id, "push") as fence:
            doubts = label_review.examine(context, project_id)
            fence.check()  # a review takes as long as there are labels
            written = label_marks.mark(context, project_id, doubts)
    except BusyError:
        jobs.once("review_labels", project_id, number, delay_s=BUSY_PAUSE_S)
        return
    took_s = time.monotonic() - begun
    log.info(
        "project %d: %d tasks have verdicts on their labels, wrote %d marks in %.1f s",
        *(project_id, len(by_task(doubts)), written, took_s),
    )


@_of_project
def delete_old(project_id: int) -> None:
    """Delete a few predictions of old versions, or wait while people annotate."""
    context, jobs = _open()
    context.progress.unclaim(hint("delete_old", project_id))
    pause_s = old_versions.delete_some(context, project_id)
    if pause_s is not None:
        jobs.once("delete_old", project_id, delay_s=pause_s)


@_of_project
def configure(project_id: int) -> None:
    """Set the project up in Label Studio."""
    context, jobs = _open()
    context.progress.unclaim(hint("configure", project_id))
    projects.configure(context, jobs, project_id)
    jobs.once("check", project_id)


def reconcile() -> None:
    """Find what lost webhooks, a lost redis or a dead worker left undone, in every project."""
    context, jobs = _open()
    context.progress.unclaim(hint("reconcile"))
    client, project_ids = context.label_studio, context.store.project_ids()
    try:
        found, hooks = client.projects(project_ids), client.webhooks()
    except BackendError as error:
        log.warning("no reconcile: %s", error)
        for project_id in project_ids:
            studio_state.note_error(context, project_id, str(error))
        return
    projects.take_up_lost(context, hooks)
    for project_id in project_ids:
        try:
            with absent.tolerated(context, project_id, "reconcile"):
                demands.reconcile(context, jobs, project_id, found, hooks)
        except BackendError as error:  # the other projects are looked after all the same
            log.warning("project %d: %s", project_id, error)
            studio_state.note_error(context, project_id, str(error))


def simulate(folder: str, strategy: str, seed: int) -> None:
    """Run what is missing of one strategy with one seed of an experiment, in a process like those without redis."""
    unit_process.run_queued(Path(folder), strategy, seed)
