"""What a project needs now: a training, a scoring, a review of its labels, or nothing until something changes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from backend.errors import LabelStudioError, NotFoundError, TrainingError
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import ProjectInfo, WebhookInfo
from backend.loop import pauses, project_setup, served_models
from backend.loop.context import Context
from backend.loop.insight import pool_drawing
from backend.loop.review import label_marks, label_review, round_value
from backend.loop.scoring import old_versions, push, stored_answers
from backend.loop.training import label_counts
from backend.queue.rq_queue import Jobs
from backend.queue.run_state import TrainingProgress
from backend.settings import versions_kept

log = logging.getLogger(__name__)

EFFORT_PAUSE_S = 20.0  # before annotations are measured, so that a burst of them is measured at once
MIN_LABELED = 2  # one task to train on, and one to validate
TRUSTED_S = 3600  # for this long a project that was found in order is not checked again, unless it has changed


def reconcile(
    context: Context, jobs: Jobs, project_id: int, infos: Mapping[int, ProjectInfo], hooks: Sequence[WebhookInfo]
) -> None:
    """Enqueue the steps that one project lacks; a project that was found in order is checked again after a change.

    `infos` are the projects of Label Studio by id, `hooks` the webhooks of all projects.
    """
    now, stored = fingerprint(context, infos, project_id), context.store.project(project_id)
    if stored is None:
        return
    info = infos[project_id]
    record = replace(stored, label_config=served_models.completed_config(context, stored, info.label_config))
    project_setup.note_studio_state(context, record, info, hooks)
    failed = context.progress.is_dead(project_id) or context.progress.fault(project_id, "training") is not None
    changed = failed or context.progress.recall(project_id, "checked") != now
    misdirected = changed and project_setup.is_misdirected(context, record, info.model_version)
    if misdirected or project_setup.is_drifted(context, record, hooks):
        jobs.once("configure", project_id)
    # Not with `record`, because its label config may be newer than the last /setup.
    stored_answers.of_accepted(context, project_id).adopt(stored)
    if push.is_pending(context, record):
        jobs.once("start_scoring", project_id)
    marks_missing = changed and label_marks.are_missing(context, project_id)
    if marks_missing:
        jobs.once("review_labels", project_id, served_models.serving_number(context, project_id))
    if changed and check(context, jobs, project_id) and not misdirected and not marks_missing:
        context.progress.remember(project_id, "checked", now, for_s=TRUSTED_S)
    if context.progress.recall(project_id, "placed") != now:  # `score_new` stores the fingerprint that it has handled
        jobs.once("score_new", project_id)
    if changed:
        _end_push(context, jobs, project_id)
    project_setup.revive_webhook(context, record, hooks)


def _end_push(context: Context, jobs: Jobs, project_id: int) -> None:
    """Do what follows a push, if the store or Label Studio shows that it was lost with redis."""
    if old_versions.are_left(context, project_id):
        jobs.once("delete_old", project_id)
    number = served_models.serving_number(context, project_id)
    if context.progress.scoring(project_id) is None and pool_drawing.is_missing(context, project_id, number):
        jobs.once("map_pool", project_id, number)
    closed = round_value.is_observed(context, project_id) or not push.is_ranked(context, project_id)
    if not closed and context.progress.scoring(project_id) is None:  # during a scoring its push does it
        close_push(context, project_id, served_models.serving_number(context, project_id))


def close_push(context: Context, project_id: int, number: int) -> None:
    """Store the stopping signs of a scored pool, show its version in Label Studio, and remove old versions."""
    round_value.observe(context, project_id, number)
    project_setup.show_version(context, project_id)
    settings = context.project_settings(context.store.project(project_id))
    context.store.prune(project_id, keep=versions_kept(settings))


def fingerprint(context: Context, infos: Mapping[int, ProjectInfo], project_id: int) -> str:
    """Return a text that changes with each change of a project in Label Studio, its served version or our rules."""
    if project_id not in infos:
        raise NotFoundError(f"no project {project_id} in Label Studio")
    changed = context.label_studio.tasks.latest_change(project_id)
    settings = context.project_settings(context.store.project(project_id))
    pins = context.store.steering.pins(project_id)
    ours = [served_models.serving_number(context, project_id), settings.retrain_every, pins.front, pins.back]
    return json.dumps([infos[project_id].counts, changed, *ours])


def check(context: Context, jobs: Jobs, project_id: int) -> bool:
    """Enqueue what the labels require; return whether there is nothing to do until they change."""
    unreviewed = label_review.outdated(context, project_id)
    enough = _has_enough(context, project_id)
    if unreviewed:
        jobs.once("review_labels", project_id, served_models.serving_number(context, project_id))
    jobs.once("measure_effort", project_id, delay_s=EFFORT_PAUSE_S)
    pauses.after_killed_training(context, project_id)
    fault = context.progress.fault(project_id, "training")
    forced = fault is not None and fault.forced
    due = enough and not has_failed_on_these_labels(context, project_id) and not is_awaited(context, project_id)
    if (due or forced) and not context.progress.is_paused(project_id, "training"):
        enqueue_training(context, jobs, project_id, forced=forced)
    return not (unreviewed or enough or forced)


def is_due(context: Context, project_id: int) -> bool:
    """Return whether a training is due.

    There are enough new labels, no training has failed on them, and the accepted version is in the queue.
    """
    if is_awaited(context, project_id):
        return False
    return _has_enough(context, project_id) and not has_failed_on_these_labels(context, project_id)


def is_awaited(context: Context, project_id: int) -> bool:
    """Return whether the accepted version is not in the queue yet: the next training waits until it is.

    If people label faster than the pool is scored, each training would void the scoring before it, and the queue would
    never change. A training does not wait for a scoring that failed.
    """
    record, accepted = context.store.project(project_id), context.store.current(project_id)
    if record is None or accepted is None or accepted == context.store.serving(project_id):
        return False
    if context.progress.fault(project_id, "scoring") is not None:
        return False
    run = context.progress.scoring(project_id)
    return (run is not None and run.number == accepted.number) or push.is_pending(context, record)


def _has_enough(context: Context, project_id: int) -> bool:
    """Count the labels, and return whether a training should start by their number; never while the loop is paused."""
    counts = label_counts.count(context, project_id)
    record = context.store.project(project_id)
    if context.store.steering.pause(project_id) is not None:
        return False
    if record is not None and not any(tag.trainable for tag in label_config.parse(record.label_config)):
        return False
    return counts.new >= context.project_settings(record).retrain_every


def require_labels(context: Context, project_id: int) -> None:
    """Raise TrainingError with the reason if a training would have nothing to learn from.

    If Label Studio does not answer, that is not known: it may be waiting for our own answer. Raises NotFoundError for a
    project that was never set up.
    """
    record, where = served_models.require_project(context, project_id), f"project {project_id}"
    tags = label_config.parse(record.label_config)
    if not any(tag.trainable for tag in tags):
        names = ", ".join(tag.from_name for tag in tags)
        raise TrainingError(
            f'nothing to train: model_trainable="false" is set on {names}',
            where=where,
            fix="remove it from the control tags that should learn",
        )
    try:
        labels = label_counts.current(context, project_id)
    except LabelStudioError as error:
        log.info("project %d: the labels are not counted before the training: %s", project_id, error)
        return
    decided = labels.tasks - labels.waiting
    if decided < MIN_LABELED:
        fix = "label and submit some tasks first; skipped tasks and drafts do not count"
        if labels.waiting:
            fix += f"; {labels.waiting} tasks wait for a ground truth: mark an annotation of each with the star"
        raise TrainingError(
            f"nothing to learn yet: {decided} tasks are labeled, and a training needs {MIN_LABELED}",
            where=where,
            fix=fix,
        )


def enqueue_training(context: Context, jobs: Jobs, project_id: int, *, forced: bool) -> None:
    """Enqueue a training, and show in the status that it waits."""
    if jobs.once("retrain", project_id, int(forced)) and context.progress.training(project_id).state != "running":
        context.progress.set_training(project_id, TrainingProgress("queued"))


def give_up_training(context: Context, project_id: int, error: TrainingError) -> None:
    """Store that the labels do not allow a training: the next one waits until they or the label config change."""
    context.progress.remember(project_id, "failed_labels", labels_fingerprint(context, project_id))
    context.progress.forget_fault(project_id, "training")  # a forced training would be tried again for ever
    log.warning("project %d: no training: %s", project_id, error)


def labels_fingerprint(context: Context, project_id: int) -> str:
    """Return a hash that changes with the labels that a training reads, and with the label config."""
    read, record = label_counts.current(context, project_id).read, context.store.project(project_id)
    text = json.dumps([sorted(read.items()), record.label_config if record else ""])
    return hashlib.sha256(text.encode()).hexdigest()


def has_failed_on_these_labels(context: Context, project_id: int) -> bool:
    """Return whether the last training failed on the labels as they are now."""
    failed = context.progress.recall(project_id, "failed_labels")
    return bool(failed) and failed == labels_fingerprint(context, project_id)
