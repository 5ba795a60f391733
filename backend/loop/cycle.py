"""The steps of a project, from new labels to a new order of its queue: the whole sequence on one page.

    check           enough new labels?                                      demands
    retrain         snapshot of the labels, train, judge, publish           training/
    start_scoring   cut the pool of the accepted version into shards        scoring/scoring
    score_shard     predict a shard, and ask the committee about it         scoring/scoring
    rank_and_push   rank, push every prediction, flip the queue, prune      scoring/pool_ranking, scoring/push
    reorder         write the scores of another order: pins, a strategy     scoring/rescoring
    score_new       score tasks that were added after the ranking           scoring/late_tasks
    review_labels   mark the labels that look wrong                         review/
    delete_old      delete predictions of earlier versions                  scoring/old_versions
    map_pool        maps of the pool for people                              insight/pool_drawing
    measure_effort  how annotations came about; disputed tasks again        insight/effort, review/disputes

Each step is a separate job. It gets ids, finds out what there is to do, may run twice, and enqueues the next step.
Label Studio holds the labels, the store versions and pools. So `reconcile` finds a lost step. A picture: docs/loop.md.
"""

from __future__ import annotations

import logging
import time

from backend.errors import BackendError, BusyError, ModelError, SettingError, TrainingError
from backend.evaluation.label_quality import by_task
from backend.loop import absent, demands, pauses, project_setup, served_models, studio_state
from backend.loop.context import Context
from backend.loop.insight import effort, pool_drawing
from backend.loop.review import disputes, label_marks, label_review, round_value, round_zero
from backend.loop.scoring import expiring_media, late_tasks, old_versions, pool_ranking, push, rescoring, scoring
from backend.loop.scoring.push import Check, Pushed, no_check
from backend.loop.training import retraining, scratch
from backend.queue import presence
from backend.queue.rq_queue import Jobs, hint
from backend.queue.run_state import TrainingProgress

log = logging.getLogger(__name__)

TRAINING_PAUSE_S = 30.0
BUSY_PAUSE_S = 5.0  # before a step that found the lock taken is tried again


class Cycle:
    """The steps of a project. `context` is what they work with, `jobs` the queue for the next steps."""

    def __init__(self, context: Context, jobs: Jobs) -> None:
        self.context = context
        self.jobs = jobs

    # New labels -> a version

    @absent.tolerant
    def check(self, project_id: int) -> None:
        """Count new labels in Label Studio, and enqueue a training if there are enough."""
        self._begin("check", project_id)
        demands.check(self.context, self.jobs, project_id)

    @absent.tolerant
    def retrain(self, project_id: int, forced: int) -> None:
        """Train and publish a version; then enqueue the scoring of the pool if the version was accepted.

        Without `forced` the labels are counted again: the check may have counted labels that a training then learned.
        """
        self._begin("retrain", project_id, forced)
        if pauses.after_killed_training(self.context, project_id):
            return
        progress = self.context.progress
        if not forced and (progress.is_paused(project_id, "training") or not demands.is_due(self.context, project_id)):
            progress.set_training(project_id, TrainingProgress("idle"))
            return
        progress.remember(project_id, "forced", str(forced))
        with pauses.training(self.context, project_id, forced):
            self._train(project_id, forced)

    def _train(self, project_id: int, forced: int) -> None:
        try:
            version = retraining.retrain(self.context, project_id, forced=bool(forced))
        except BusyError as busy:
            log.info("project %d: %s", project_id, busy)
            if forced:  # a person asked for it once; a training that is due by its labels is found by the next check
                self.jobs.once("retrain", project_id, forced, delay_s=TRAINING_PAUSE_S)
            return
        except TrainingError as error:  # the labels do not allow it
            demands.give_up_training(self.context, project_id, error)
            return
        if version.promoted:
            self.jobs.once("start_scoring", project_id)
        try:
            round_value.reward(self.context, version)
        except (BackendError, OSError) as error:  # only the bandit's history lacks it, and raising would train again
            log.warning("project %d: the gain of %s is not kept: %s", project_id, version.name, error)
        scratch.clear(self.context.work_dir)
        self.jobs.once("check", project_id)  # labels may have come in while we trained

    # A version -> its pool in Label Studio

    @absent.tolerant
    def start_scoring(self, project_id: int) -> None:
        """Cut the pool into shards, one job each."""
        self._begin("start_scoring", project_id)
        with pauses.scoring(self.context, self.jobs, project_id):
            try:
                # A push at this moment would read the pool that is replaced.
                with self.context.lock(project_id, "push"):
                    total = scoring.start(self.context, self.jobs, project_id)
            except BusyError:
                self.jobs.once("start_scoring", project_id, delay_s=BUSY_PAUSE_S)
                return
            except (ModelError, SettingError) as error:
                push.note_ranking_error(self.context, project_id, error)
                return
            log.info("project %d: scoring %d tasks", project_id, total)

    @absent.tolerant
    def score_shard(self, project_id: int, run: int, index: int, labeled: int, task_ids: list[int]) -> None:
        """Score one shard of the pool or of the labeled tasks; the last shard enqueues the ranking."""
        with pauses.scoring(self.context, self.jobs, project_id, run):
            try:
                number = scoring.score_shard(self.context, project_id, run, index, bool(labeled), task_ids)
            except (ModelError, SettingError) as error:  # the other shards would fail for the same reason
                push.note_ranking_error(self.context, project_id, error)
                self.context.progress.end_scoring(project_id, run)
                return
            if number is not None:
                self.jobs.put("rank_and_push", project_id, run)

    @absent.tolerant
    def rank_and_push(self, project_id: int, run: int) -> None:
        """Rank the pool, write all predictions, and switch the queue to the version; then enqueue what follows.

        It does nothing once another run has begun, because the shards of that run replace the shards of this one.
        """
        with pauses.scoring(self.context, self.jobs, project_id, run):
            self._rank_and_push(project_id, run)

    def _rank_and_push(self, project_id: int, run: int) -> None:
        context, progress = self.context, self.context.progress
        try:
            with context.lock(project_id, "push") as fence:
                current = progress.scoring(project_id)
                if current is None or current.run != run:
                    return
                pushed = rank_push_and_flip(context, project_id, current.number, fence.check)
        except BusyError:
            if progress.renew_scoring(project_id, run):
                self.jobs.put("rank_and_push", project_id, run, delay_s=BUSY_PAUSE_S)
            return
        except (ModelError, SettingError) as error:  # nothing was written
            push.note_ranking_error(context, project_id, error)
            progress.end_scoring(project_id, run)
            return
        if pushed is not None:  # otherwise another version was accepted meanwhile, and has its own scoring
            self._follow_up(project_id, current.number, pushed)
        progress.end_scoring(project_id, run)  # last, so that the next try finds the run if this job dies

    def _follow_up(self, project_id: int, number: int, pushed: Pushed) -> None:
        """Enqueue what follows a push, and prune the store."""
        push.forget_ranking_error(self.context, project_id)
        log.info(
            "project %d: the predictions of %s are in Label Studio; %d were not there before",
            *(project_id, pushed.version, pushed.created),
        )
        if push.is_ranked(self.context, project_id):  # with an empty pool it would start the same scoring for ever
            self.jobs.once("score_new", project_id)
        self.jobs.once("delete_old", project_id)
        self.jobs.once("review_labels", project_id, number)
        self.jobs.once("map_pool", project_id, number)
        self.jobs.once("check", project_id)  # for labels that came during the scoring, see demands.is_awaited
        demands.close_push(self.context, project_id, number)

    @absent.tolerant
    def reorder(self, project_id: int, rank_again: int) -> None:
        """Write the scores of a new order: tasks were pinned, or with `rank_again` the pool is ranked again before."""
        self._begin("reorder", project_id, rank_again)
        rescoring.reorder(self.context, self.jobs, project_id, rank=bool(rank_again))

    # What follows a push

    @absent.tolerant
    def score_new(self, project_id: int) -> None:
        """Write predictions and scores that tasks in the queue lack."""
        context, jobs = self.context, self.jobs
        self._begin("score_new", project_id)
        infos = context.label_studio.projects.get_many([project_id])
        fingerprint = demands.fingerprint(context, infos, project_id)  # before any task is read
        if expiring_media.fetch(context, project_id):  # other projects have their turn first
            jobs.once("score_new", project_id)
            return
        if not push.is_ranked(context, project_id):
            if context.progress.scoring(project_id) is None:
                jobs.once("start_scoring", project_id)
                context.progress.remember(project_id, "placed", fingerprint, for_s=demands.TRUSTED_S)
            return
        try:
            with context.lock(project_id, "push") as fence:
                created = late_tasks.score_new(context, project_id, fence.check)
                outdated = late_tasks.score_outdated(context, project_id, fence.check)
        except BusyError:
            jobs.once("score_new", project_id, delay_s=BUSY_PAUSE_S)
            return
        if created >= late_tasks.AT_ONCE:  # more may be left; other projects have their turn first
            jobs.once("score_new", project_id)
        else:
            context.progress.remember(project_id, "placed", fingerprint, for_s=demands.TRUSTED_S)
        if outdated:
            jobs.once("review_labels", project_id, served_models.serving_number(context, project_id))
        if created:
            log.info("project %d: wrote %d predictions that the queue lacked", project_id, created)

    @absent.tolerant
    def review_labels(self, project_id: int, number: int) -> None:
        """Look for wrong labels with version `number`, and mark them in Label Studio.

        It does nothing if another version serves now.
        """
        self._begin("review_labels", project_id, number)
        if not number or number != served_models.serving_number(self.context, project_id):
            return
        begun = time.monotonic()
        try:
            with self.context.lock(project_id, "push") as fence:
                issues = label_review.examine(self.context, project_id)
                fence.check()  # a review of many labels takes long, and the lock may be lost meanwhile
                written = label_marks.mark(self.context, project_id, issues)
        except BusyError:
            self.jobs.once("review_labels", project_id, number, delay_s=BUSY_PAUSE_S)
            return
        log.info(
            "project %d: %d tasks have verdicts on their labels, wrote %d marks in %.1f s",
            *(project_id, len(by_task(issues)), written, time.monotonic() - begun),
        )

    @absent.tolerant
    def delete_old(self, project_id: int) -> None:
        """Delete a few predictions of old versions, but none while people annotate."""
        self._begin("delete_old", project_id)
        pause_s = old_versions.delete_some(self.context, project_id)
        if pause_s is not None:
            self.jobs.once("delete_old", project_id, delay_s=pause_s)

    @absent.tolerant
    def map_pool(self, project_id: int, number: int) -> None:
        """Draw the maps of the pool of version `number`, unless another version serves now."""
        self._begin("map_pool", project_id, number)
        pool_drawing.draw(self.context, project_id, number)

    @absent.tolerant
    def measure_effort(self, project_id: int) -> None:
        """Measure how new and changed annotations came about, and offer tasks again on which people disagree."""
        self._begin("measure_effort", project_id)
        if effort.measure(self.context, project_id):
            self.jobs.once("measure_effort", project_id)
        else:
            disputes.offer_again(self.context, project_id)
        if round_zero.measure(self.context, project_id):
            self.jobs.once("start_scoring", project_id)  # without the labels that were switched off

    # What keeps the loop running

    @absent.tolerant
    def configure(self, project_id: int) -> None:
        """Set the project up in Label Studio."""
        self._begin("configure", project_id)
        project_setup.configure(self.context, self.jobs, project_id)
        self.jobs.once("check", project_id)

    def reconcile(self) -> None:
        """Find the steps that are missing after a lost webhook, a lost redis or a dead worker, in every project."""
        context = self.context
        self._begin("reconcile")
        client, project_ids = context.label_studio, context.store.project_ids()
        try:
            infos, hooks = client.projects.get_many(project_ids), client.projects.webhooks()
        except BackendError as error:
            log.warning("no reconcile: %s", error)
            for project_id in project_ids:
                studio_state.note_error(context, project_id, str(error))
            return
        project_setup.recover_lost_projects(context, hooks)
        for project_id in project_ids:
            try:
                with absent.tolerated(context, project_id, "reconcile"):
                    demands.reconcile(context, self.jobs, project_id, infos, hooks)
            except BackendError as error:  # the other projects are reconciled nevertheless
                log.warning("project %d: %s", project_id, error)
                studio_state.note_error(context, project_id, str(error))
        presence.note_reconcile(context.redis)

    def _begin(self, step: str, *args: int) -> None:
        """Let the same step be enqueued again, because this run may not see what changes from now on."""
        self.context.progress.unclaim(hint(step, *args))


def rank_push_and_flip(context: Context, project_id: int, number: int, check: Check = no_check) -> Pushed | None:
    """Rank the scored pool of version `number`, write all predictions, then switch the queue in one write.

    Returns None if another version is accepted by now. It is safe to run again: the ranking is the same, and existing
    predictions stay. `check` runs right before each write to Label Studio. So does the check that the version is still
    the accepted one.
    """
    check = push.accepted_only(context, project_id, number, check)
    record = served_models.project_record(context, project_id)
    models = served_models.models_for(context, record, accepted=True)
    if models[0].number != number:
        return None
    order = pool_ranking.rank_pool(context, record, models)  # a stored ranking may be of another pool
    pushed = push.push(context, record, models, order, check)
    push.activate(context, models[0], check)
    return pushed
