"""Writes a ranked pool to Label Studio: first all predictions, then the switch of the queue in one write."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.errors import BackendError, BusyError
from backend.labelstudio import region_choices, tags, task_fields, task_labels, visibility
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow, PredictionStamp
from backend.loop.context import Context
from backend.loop.scoring import control_tasks, stored_answers
from backend.loop.scoring.scoring import stored_predictions
from backend.loop.served_models import ServedModel, serving_number
from backend.sampling.pins import pinned_places
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Prediction, Ranking, Region, Task

log = logging.getLogger(__name__)

Check = Callable[[], None]  # raises BusyError once another job may have written

LAST = 1.0  # the priority of a task that could not be scored


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of a push."""

    version: str
    created: int  # predictions that were written
    failed: int  # tasks of the pool without a prediction


def no_check() -> None:
    """Do nothing: the `check` of a caller that has no other writer beside it."""


def push(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel], order: Ranking, check: Check = no_check
) -> Pushed:
    """Write a prediction for each unlabeled task of a version's pool, with its place in `order` or where it is pinned.

    Existing predictions with the right score stay. If Label Studio may hold predictions that were made under another
    label config, all are written again. `check` runs right before each write to Label Studio.
    """
    model, project_id = models[0], record.project_id
    _, failed = context.store.pools.load_pool(project_id, model.number, None, tag=model.key)
    answers = stored_answers.of(context, models)
    pool_keys = answers.pool_keys
    unlabeled = {task.id: task for task in context.label_studio.tasks.unlabeled(project_id)}
    present, settings = (
        list(context.label_studio.predictions.stamps(project_id, model.name)),
        context.project_settings(record),
    )
    blanks = control_tasks.draw(context, settings, model, order, {stamp.task_id for stamp in present})
    rows = prediction_rows(context, settings, models, order, unlabeled, blanks)
    created = write_predictions(context, model, rows, present, check, overwrite=pool_keys.outdated)
    check()
    answers.end(pool_keys)
    return Pushed(model.name, created, len(failed))


def activate(context: Context, model: ServedModel, check: Check = no_check) -> None:
    """Make a version the served one once its predictions are in Label Studio, and switch the queue in one write."""
    context.store.activate(model.project_id, model.number)
    flip(context, model.project_id, model.name, check)
    context.store.note_shown(model.project_id, model.number)


def accepted_only(context: Context, project_id: int, number: int, check: Check) -> Check:
    """Return a check that also raises BusyError if the version is not the accepted one."""

    def accepted_check() -> None:
        """Run `check`, then compare the version with the accepted one."""
        check()
        current = context.store.current(project_id)
        accepted = current.number if current else 0
        if accepted != number:
            raise BusyError(
                f"version {accepted} was accepted while version {number} was pushed",
                where=f"project {project_id}",
                fix="nothing to do: the push of the accepted version writes its own predictions",
            )

    return accepted_check


def prediction_rows(
    context: Context,
    settings: Settings,
    models: Sequence[ServedModel],
    order: Ranking,
    tasks: Mapping[int, Task],
    blanks: frozenset[int] = frozenset(),
) -> Iterator[PredictionRow]:
    """Yield one row per stored task that is in `tasks`; one shard at a time is in memory.

    A task that shows other media by now has no row: it is scored again as a new task. The rows of `blanks` have no
    regions.
    """
    model = models[0]
    priority = queue_places(context, model.project_id, order)
    sources = [context.store.pools.sources(served.project_id, served.number, tag=served.key) for served in models]
    for shard in context.store.pools.shards(model.project_id, model.number, tag=model.key):
        for task_id, prediction in zip(shard.task_ids.tolist(), shard.predictions, strict=True):
            task = tasks.get(task_id)
            if task is not None and is_answered(models, sources, task):
                predictions = [prediction, *stored_predictions(context, models[1:], task)]
                regions = () if task_id in blanks else encode(settings, models, task_id, predictions, task)
                failed = all(by_model is None for by_model in predictions)
                yield PredictionRow(task_id, LAST if failed else priority.get(task_id, LAST), regions)


def is_answered(models: Sequence[ServedModel], sources: Sequence[Mapping[int, int]], task: Task) -> bool:
    """Return whether the store has each model's prediction of the media that a task shows now.

    `sources` are, per model, the hashes of the predicted media by task id. An earlier release stored none (0), and its
    predictions count.
    """
    return all(
        hashes.get(task.id, -1) in (0, task_fields.source(model.tag, task))
        for model, hashes in zip(models, sources, strict=True)
    )


def queue_places(context: Context, project_id: int, order: Ranking) -> dict[int, float]:
    """Return the score of each ranked task in Label Studio, by task id: its place in `order`, or where it is pinned."""
    return pinned_places(order, context.store.steering.pins(project_id))


def encode(
    settings: Settings,
    models: Sequence[ServedModel],
    task_id: int,
    predictions: Iterable[Prediction | None],
    task: Task | None = None,
) -> tuple[Region, ...]:
    """Return the regions of one task, tag by tag; their ids depend only on task, version and tag.

    With `task` they have only labels that the task names, where tasks name their own.
    It leaves out the regions of control tags that the answers of trained models hide.
    """
    answers: list[tuple[Region, ...]] = []
    for model, prediction in zip(models, predictions, strict=True):
        key, lowest = f"{task_id}/{model.name}", settings.model_score_threshold
        tag = task_labels.of_task(model.tag, task)
        if prediction is None:
            answers.append(())
        elif tag.regions_of:
            boxes = [region for of_tag in answers for region in of_tag]
            answers.append(tuple(region_choices.encode(tag, boxes, prediction, model.classes, lowest)))
        else:
            answers.append(tags.encode(tag, prediction, model.classes, lowest, key))
    deciding = {model.tag.from_name for model in models if model.trained}
    return visibility.visible([model.tag for model in models], deciding, answers)


def write_predictions(
    context: Context,
    model: ServedModel,
    rows: Iterator[PredictionRow],
    present: Iterable[PredictionStamp],
    check: Check,
    *,
    overwrite: bool = False,
) -> int:
    """Write a version's rows; return how many were written.

    `present`, `check` and `overwrite` are explained at `import_or_update`. If Label Studio refuses a prediction, the
    task gets one without regions, and the status page shows the reason.
    """
    client, project_id = context.label_studio, model.project_id
    refused: dict[int, str] = {}
    created = import_or_update(
        client, project_id, model.name, rows, present, refused.__setitem__, overwrite=overwrite, check=check
    )
    note_refused(context, project_id, refused)
    return created


def note_refused(context: Context, project_id: int, refused: Mapping[int, str]) -> None:
    """Log why Label Studio refused predictions, and store it for the status page."""
    for task_id, reason in refused.items():
        log.warning("project %d: task %d: %s", project_id, task_id, reason)
    context.progress.note_failures(project_id, list(refused), refused)


def import_or_update(
    client: LabelStudioClient,
    project_id: int,
    version: str,
    rows: Iterator[PredictionRow],
    present: Iterable[PredictionStamp],
    refused: Callable[[int, str], None] | None = None,
    *,
    overwrite: bool = False,
    check: Check = no_check,
) -> int:
    """Import rows for tasks without a prediction of this version, update the others; return how many were written.

    `present` are the version's predictions in Label Studio, of an earlier scoring or of Label Studio's own call of
    /predict. One is updated if its score differs, or in any case with `overwrite`, because its regions may differ. If a
    task has several (Label Studio and we wrote at the same time), the first stays and the others are deleted, because
    the queue could go by any of them. `check` runs before each write. `refused` gets the id of each task whose
    prediction Label Studio refuses, and the reason.
    """
    stamps: dict[int, PredictionStamp] = {}
    for stamp in present:
        if stamps.setdefault(stamp.task_id, stamp) is not stamp:
            check()
            client.predictions.delete(stamp.id)
    updated = 0

    def new_rows() -> Iterator[PredictionRow]:
        """Yield the rows of tasks without a prediction, and update the others meanwhile."""
        nonlocal updated
        for row in rows:
            stamp = stamps.get(row.task_id)
            if stamp is None:
                yield row
            elif overwrite or not is_same_score(stamp.score, row.score):
                check()
                client.predictions.update(stamp.id, version, row, refused)
                updated += 1

    return client.prediction_import.run(project_id, version, new_rows(), refused, check) + updated


def is_same_score(stored: float | None, score: float) -> bool:
    """Return whether the score that Label Studio holds is `score`; pinned tasks lie close together."""
    return stored is not None and math.isclose(stored, score, rel_tol=1e-9, abs_tol=1e-12)


def flip(context: Context, project_id: int, version: str, check: Check = no_check) -> bool:
    """Switch the project's queue to `version`; return whether that changed it.

    Nothing changes if no task has a prediction of the version yet, because Label Studio would refuse. `check` runs
    right before the write. If this process stalls between the two, it may overwrite a later switch. So it compares the
    queue with the served version afterwards, and corrects it.
    """
    client = context.label_studio
    if client.projects.get(project_id).model_version == version or version not in client.predictions.versions(
        project_id
    ):
        return False
    check()
    client.projects.set_model_version(project_id, version)
    serving = context.store.serving(project_id)
    if serving is not None and serving.name != version and serving.name in client.predictions.versions(project_id):
        client.projects.set_model_version(project_id, serving.name)
    return True


def is_ranked(context: Context, project_id: int) -> bool:
    """Return whether there is a ranking that new tasks can be placed in; an empty one does not count."""
    order = context.store.pools.ranking(project_id, serving_number(context, project_id))
    return order is not None and len(order.task_ids) > 0


def is_pending(context: Context, record: ProjectRecord) -> bool:
    """Return whether a scoring of the accepted version should start.

    It should if Label Studio lacks the version's scores, or has those of answers that the label config no longer asks
    for. It should not while a scoring of that version runs, nor after one has failed under the current settings.
    """
    project_id = record.project_id
    accepted, serving = context.store.current(project_id), context.store.serving(project_id)
    ranked = context.store.pools.ranking(project_id, serving_number(context, project_id)) is not None
    run = context.progress.scoring(project_id)
    if run is not None and run.number == (accepted.number if accepted else 0):
        return False
    if accepted == serving and ranked and not stored_answers.of_accepted(context, project_id).are_due(record):
        return False
    return context.progress.recall(project_id, "failed_ranking") != _attempt(context, project_id)


def note_ranking_error(context: Context, project_id: int, error: BackendError) -> None:
    """Store why the accepted version cannot be ranked; the queue keeps its order until the settings change."""
    log.warning("project %d: the queue keeps its order: %s", project_id, error)
    context.progress.remember(project_id, "ranking_error", str(error))
    context.progress.remember(project_id, "failed_ranking", _attempt(context, project_id))


def forget_ranking_error(context: Context, project_id: int) -> None:
    """Remove the stored error of a failed ranking."""
    for memo in ("ranking_error", "failed_ranking"):
        context.progress.remember(project_id, memo, "")
    context.progress.forget_fault(project_id, "scoring")


def _attempt(context: Context, project_id: int) -> str:
    """Return a text of what decides whether a ranking succeeds: the version and the settings."""
    accepted = context.store.current(project_id)
    settings = context.project_settings(context.store.project(project_id))
    return f"{accepted.number if accepted else 0} {settings.model_dump_json()}"
