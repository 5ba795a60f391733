"""How people steer the loop: pause it, pin tasks, choose a strategy or a version, call a label right.

The page and the command line call these functions. Each notes in the project's journal who did what.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend import acquisition
from backend.errors import LabelStudioError, NotFoundError, RequestError
from backend.evaluation.label_quality import LabelIssue
from backend.labelstudio.client.connection import COMPLETED
from backend.loop import demands
from backend.loop.context import Context
from backend.loop.extra_params import parsed_params
from backend.loop.review import label_review
from backend.loop.scoring import pool_ranking, strategy_inputs
from backend.loop.served_models import require_project, serving_number
from backend.loop.training import snapshot
from backend.model_versions import ModelVersion
from backend.queue.rq_queue import Jobs
from backend.sampling.pins import Pins, Place
from backend.store.records import AcceptedLabel, Pause

MAX_PINS = 500  # of a project; a list that is longer is a strategy
_LARGEST_ID = 2**63 - 1  # in Label Studio's database
_NAMED = 10  # ids in a message


@dataclass(frozen=True, slots=True)
class Pinned:
    """The pins of a project after a change, and which of the named tasks have no effect because they are labeled."""

    pins: Pins
    labeled: tuple[int, ...]


def pause(context: Context, project_id: int, who: str) -> bool:
    """Pause the loop: no training starts by itself; return whether that changed anything.

    A training that somebody starts works. Labels are counted, new tasks get their place, and labels are reviewed as
    before. Raises NotFoundError for a project that was never set up.
    """
    require_project(context, project_id)
    changed = context.store.steering.set_pause(project_id, Pause(who, datetime.now(UTC)))
    if changed:
        context.store.journal.append(project_id, who, "pause", "no training starts by itself")
    return changed


def resume(context: Context, jobs: Jobs, project_id: int, who: str) -> bool:
    """End the pause, and count the labels; return whether the loop was paused. Raises as `pause`."""
    require_project(context, project_id)
    changed = context.store.steering.set_pause(project_id, None)
    if changed:
        context.store.journal.append(project_id, who, "resume", "trainings start by themselves")
        jobs.once("check", project_id)
    return changed


def start_training(context: Context, jobs: Jobs, project_id: int, who: str) -> None:
    """Enqueue a training whatever the number of new labels is.

    Raises NotFoundError as `pause`, and TrainingError if there is nothing to learn from.
    """
    demands.require_labels(context, project_id)
    demands.enqueue_training(context, jobs, project_id, forced=True)
    context.store.journal.append(project_id, who, "train", "a training was started by hand")


def pin(context: Context, jobs: Jobs, project_id: int, task_ids: Sequence[int], place: Place, who: str) -> Pinned:
    """Put tasks at the front or the back of the queue, in this order, over all versions; "none" removes their pins.

    Pins of tasks that are labeled have no effect. Pins of tasks that are deleted, or that a training has learned from,
    are removed. Raises NotFoundError that names the tasks that are not in the project, and RequestError for no task or
    too many pins.
    """
    require_project(context, project_id)
    if not task_ids:
        raise RequestError("no task is named", where=f"project {project_id}", fix="name the ids of tasks")
    over = _obsolete(context, project_id)
    if place != "none":
        _require_tasks(context, project_id, task_ids)

    def moved(pins: Pins) -> Pins:
        """Return the pins with the tasks at their new place."""
        after = pins.without(over - set(task_ids)).moved(task_ids, place)
        if len(after) > MAX_PINS:
            problem = f"{len(after)} tasks would be pinned, and at most {MAX_PINS} can be"
            raise RequestError(problem, where=f"project {project_id}", fix="remove other pins first, with --to none")
        return after

    pins = context.store.steering.change_pins(project_id, moved)
    where = {"front": "to the front", "back": "to the back", "none": "nowhere"}[place]
    context.store.journal.append(project_id, who, "pin", f"{where}: task {_listed(task_ids)}")
    jobs.once("reorder", project_id, 0)
    completed = context.label_studio.tasks.get_many(project_id, task_ids, COMPLETED) if place != "none" else []
    return Pinned(pins, tuple(task.id for task in completed))


def _require_tasks(context: Context, project_id: int, task_ids: Sequence[int]) -> None:
    possible = [task_id for task_id in task_ids if 1 <= task_id <= _LARGEST_ID]
    present = {task.id for task in context.label_studio.tasks.get_many(project_id, possible)}
    if unknown := [task_id for task_id in task_ids if task_id not in present]:
        raise NotFoundError(
            f"project {project_id} has no task {_listed(unknown)}",
            fix="the Data Manager shows the ids of tasks in the column ID",
        )


def _obsolete(context: Context, project_id: int) -> frozenset[int]:
    """Return the pinned tasks that are deleted, or labeled and known to the newest version."""
    pinned = tuple(context.store.steering.pins(project_id))
    if not pinned:
        return frozenset()
    last = snapshot.last_snapshot(context, project_id)
    learned = {*last.train_tasks, *last.val_tasks} if last else set()
    tasks = context.label_studio.tasks
    present = {task.id for task in tasks.get_many(project_id, pinned)}
    labeled = {task.id for task in tasks.get_many(project_id, pinned, COMPLETED)}
    return frozenset(task_id for task_id in pinned if task_id not in present or task_id in labeled & learned)


def _listed(task_ids: Sequence[int]) -> str:
    """Return ids for a message.

    >>> _listed([3, 4]), _listed(range(1, 13))
    ('3, 4', '1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more')
    """
    shown = ", ".join(map(str, task_ids[:_NAMED]))
    return f"{shown} and {len(task_ids) - _NAMED} more" if len(task_ids) > _NAMED else shown


def use_strategy(context: Context, jobs: Jobs, project_id: int, strategy: str, who: str) -> None:
    """Make a strategy the project's, in the extra params of its model in Label Studio, and order the queue by it.

    A bandit, which would choose another one, is switched off. Raises SettingError for an unknown strategy, ModelError
    if the served model lacks what it needs, NotFoundError if the model is not attached in Label Studio, and
    LabelStudioError if Label Studio refuses.
    """
    acquisition.get(strategy)
    record = require_project(context, project_id)
    number = serving_number(context, project_id)
    if not strategy_inputs.needs_committee([strategy]) and context.store.pools.ranking(project_id, number) is not None:
        pool_ranking.preview(context, project_id, strategy)
    settings = context.project_settings(record)
    changes = {"STRATEGY": strategy} | ({"BANDIT": "off"} if settings.bandit != "off" else {})
    client, backend_url = context.label_studio.projects, record.backend_url
    attached = [backend for backend in client.backends(project_id) if backend.url.rstrip("/") == backend_url]
    if not attached:
        raise NotFoundError(
            f"Label Studio has no model at {backend_url or 'our address'}, so no place for the strategy",
            where=f"project {project_id}",
            fix=f"connect it in Settings > Model, or run `yolo-backend connect {project_id}`",
        )
    for backend in attached:
        params = with_params(backend.extra_params, changes)
        login = settings.basic_auth_user, settings.basic_auth_pass
        client.change_backend(project_id, backend, *login, extra_params=params)
    if context.project_settings(context.store.project(project_id)).strategy != strategy:
        raise LabelStudioError(
            "Label Studio stored the strategy, and did not call /setup of this backend",
            where=f"project {project_id}",
            fix="open Settings > Model in Label Studio; it then calls it",
        )
    context.store.journal.append(project_id, who, "strategy", f"{settings.strategy} -> {strategy}")
    jobs.once("reorder", project_id, 1)


def with_params(extra_params: str, changes: dict[str, Any]) -> str:
    """Return extra params with some settings changed. Raises SettingError if they are not a JSON object.

    >>> with_params('{"strategy": "random", "BATCH": 8}', {"STRATEGY": "entropy"})
    '{"BATCH": 8, "STRATEGY": "entropy"}'
    """
    params = parsed_params(extra_params)
    kept = {name: value for name, value in params.items() if name.upper() not in changes}
    return json.dumps(kept | changes)


def accept_version(context: Context, jobs: Jobs, project_id: int, number: int, who: str) -> ModelVersion:
    """Roll back to an earlier version or promote a later one, and enqueue its scoring; then the queue changes.

    Raises NotFoundError, or ModelError if the version cannot serve.
    """
    require_project(context, project_id)
    before = context.store.current(project_id)
    version = context.store.rollback(project_id, number)
    action = "rollback" if before and version.number <= before.number else "promote"
    text = f"{before.name if before else 'the base model'} -> {version.name}"
    context.store.journal.append(project_id, who, action, text)
    jobs.once("start_scoring", project_id)
    return version


def accept_label(context: Context, project_id: int, task_id: int, annotation_id: int, tag: str, who: str) -> LabelIssue:
    """Remember that a label which looks wrong is right, and return the issue that this settles.

    The label is not listed again, by no version, until its annotation changes. Raises NotFoundError if the last review
    has no such issue, or the annotation has changed since.
    """
    issues = label_review.current_issues(context, project_id)
    issue = next(
        (entry for entry in issues if entry.suspicion and _key(entry) == (task_id, annotation_id, tag)),
        None,
    )
    if issue is None:
        raise NotFoundError(
            f"no label of annotation {annotation_id} on task {task_id} looks wrong now",
            where=f"project {project_id}, tag {tag!r:.80}",
            fix="somebody changed or accepted it; load the list again",
        )
    current = context.label_studio.annotations.stamps(project_id)
    label = AcceptedLabel(annotation_id, issue.updated_at, tag)
    context.store.steering.accept_label(project_id, label, set(current.items()))
    context.store.journal.append(
        project_id, who, "accept label", f"task {task_id}, annotation {annotation_id}: {issue.suspicion} {issue.label}"
    )
    Jobs(context.redis).once("review_labels", project_id, serving_number(context, project_id))
    return issue


def _key(issue: LabelIssue) -> tuple[int, int, str]:
    return issue.task_id, issue.annotation_id, issue.tag
