"""A ranked pool into Label Studio: every prediction, then the flip in one write."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.errors import BackendError, BusyError
from backend.labelstudio import tags
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow, PredictionStamp
from backend.loop.context import Context
from backend.loop.scoring import stored_answers
from backend.loop.scoring.scoring import stored_predictions
from backend.loop.served_models import ServedModel, serving_number
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Prediction, Ranking, Region, Task

log = logging.getLogger(__name__)

Check = Callable[[], None]  # raises BusyError once somebody else may have written

LAST = 1.0  # the priority of a task that could not be scored


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one push wrote."""

    version: str
    created: int
    failed: int


def no_check() -> None:
    """Check nothing: for a caller beside whom nobody writes."""


def push(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel], order: Ranking, check: Check = no_check
) -> Pushed:
    """Write a prediction with its place in `order` for each unlabeled task of a version's pool.

    Tasks that have their prediction are left alone; but all are written anew where Label Studio may hold what was
    predicted under another label config. `check` runs right before each write to Label Studio.
    """
    model, project_id = models[0], record.project_id
    _, failed = context.store.load_pool(project_id, model.number, None, tag=model.key)
    answers = stored_answers.of(context, models)
    kept = answers.kept
    wanted = {task.id: task for task in context.label_studio.tasks.unlabeled(project_id)}
    present = context.label_studio.predictions.stamps(project_id, model.name)
    mine = prediction_rows(context, context.project_settings(record), models, order, wanted)
    created = write_predictions(context, model, mine, present, check, anew=kept.outdated)
    check()
    answers.end(kept)
    return Pushed(model.name, created, len(failed))


def activate(context: Context, model: ServedModel, check: Check = no_check) -> None:
    """Let a version serve whose predictions are all in Label Studio, and turn the queue to it in one write."""
    context.store.activate(model.project_id, model.number)
    flip(context, model.project_id, model.name, check)
    context.store.note_shown(model.project_id, model.number)


def accepted_only(context: Context, project_id: int, number: int, check: Check) -> Check:
    """Return a check that refuses a version which is not the accepted one (any more), too."""

    def checks() -> None:
        check()
        current = context.store.current(project_id)
        accepted = current.number if current else 0
        if accepted != number:
            raise BusyError(
                f"version {accepted} was accepted while version {number} was pushed",
                where=f"project {project_id}",
                fix="nothing to do: the push of the accepted version writes its own predictions",
            )

    return checks


def prediction_rows(
    context: Context, settings: Settings, models: Sequence[ServedModel], order: Ranking, tasks: Mapping[int, Task]
) -> Iterator[PredictionRow]:
    """Yield a row per stored task that is one of `tasks`, one shard's predictions in memory at a time.

    None of a task that shows something else by now: it is scored anew, as new tasks are.
    """
    priority = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    model = models[0]
    sources = [context.store.sources(each.project_id, each.number, tag=each.key) for each in models]
    for shard in context.store.shards(model.project_id, model.number, tag=model.key):
        for task_id, prediction in zip(shard.task_ids.tolist(), shard.predictions, strict=True):
            task = tasks.get(task_id)
            if task is not None and is_answered(models, sources, task):
                predictions = [prediction, *stored_predictions(context, models[1:], task)]
                regions = encode(settings, models, task_id, predictions)
                failed = all(one is None for one in predictions)
                yield PredictionRow(task_id, LAST if failed else priority.get(task_id, LAST), regions)


def is_answered(models: Sequence[ServedModel], sources: Sequence[Mapping[int, int]], task: Task) -> bool:
    """Return whether each model's answer to what a task shows now is stored; `sources` are what the store has of each.

    An answer of an earlier release does not tell of what it is, and counts as one.
    """
    return all(of.get(task.id, -1) in (0, model.tag.source(task)) for model, of in zip(models, sources, strict=True))


def encode(
    settings: Settings, models: Sequence[ServedModel], task_id: int, predictions: Iterable[Prediction | None]
) -> tuple[Region, ...]:
    """Return the regions of one task, tag by tag; region ids depend on task, version and tag only."""
    found: list[Region] = []
    for model, prediction in zip(models, predictions, strict=True):
        if prediction is not None:
            key, lowest = f"{task_id}/{model.name}", settings.model_score_threshold
            found += tags.encode(model.tag, prediction, model.classes, lowest, key)
    return tuple(found)


def write_predictions(
    context: Context,
    model: ServedModel,
    rows: Iterator[PredictionRow],
    present: Iterable[PredictionStamp],
    check: Check,
    *,
    anew: bool = False,
) -> int:
    """Write a version's rows; return how many were written. `present`, `check` and `anew` as in `import_or_update`.

    A task whose prediction Label Studio refuses gets one without regions, and its reason is on the status page.
    """
    client, project_id = context.label_studio, model.project_id
    refused: dict[int, str] = {}
    created = import_or_update(
        client, project_id, model.name, rows, present, refused.__setitem__, anew=anew, check=check
    )
    note_refused(context, project_id, refused)
    return created


def note_refused(context: Context, project_id: int, refused: Mapping[int, str]) -> None:
    """Keep why Label Studio refused predictions, for the log and the status page."""
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
    anew: bool = False,
    check: Check = no_check,
) -> int:
    """Import the rows, but for tasks that have a prediction of this version already; return how many were written.

    Such a one (of an earlier scoring, or asked of /predict by Label Studio itself) is mended if its score is another,
    or in any case if `anew`: its regions may be others. Of several (Label Studio and we wrote at the same time) the
    first is kept and the others are deleted, as the queue would go by any of them. `check` runs before each write.
    `refused` as in `import_predictions`.
    """
    known: dict[int, PredictionStamp] = {}
    for stamp in present:
        if known.setdefault(stamp.task_id, stamp) is not stamp:
            check()
            client.predictions.delete(stamp.id)
    mended = 0

    def fresh() -> Iterator[PredictionRow]:
        nonlocal mended
        for row in rows:
            stamp = known.get(row.task_id)
            if stamp is None:
                yield row
            elif anew or not is_same_score(stamp.score, row.score):
                check()
                client.predictions.update(stamp.id, version, row, refused)
                mended += 1

    return client.prediction_import.run(project_id, version, fresh(), refused, check) + mended


def is_same_score(stored: float | None, score: float) -> bool:
    """Return whether Label Studio holds this score already."""
    return stored is not None and math.isclose(stored, score, abs_tol=1e-6)


def flip(context: Context, project_id: int, version: str, check: Check = no_check) -> bool:
    """Point the project's queue at `version`; True if that changed it.

    It stays as it is where no task holds a prediction of the version yet: Label Studio would refuse. `check` runs right
    before the write. A process that stood still between the two wrote over what came later, so it looks once more.
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
    """Return whether there is a ranking that new tasks can be placed in; one of an empty pool tells nothing."""
    order = context.store.ranking(project_id, serving_number(context, project_id))
    return order is not None and len(order.task_ids) > 0


def is_pending(context: Context, record: ProjectRecord) -> bool:
    """Return whether the accepted version's scores are not in Label Studio yet, and something can be done about it.

    Scores of answers that are not those the label config asks for are none. Nothing is to be done while a scoring of
    that version is at work, or after one has failed and the settings are still those that it failed under.
    """
    project_id = record.project_id
    accepted, serving = context.store.current(project_id), context.store.serving(project_id)
    ranked = context.store.ranking(project_id, serving_number(context, project_id)) is not None
    run = context.progress.scoring(project_id)
    if run is not None and run.number == (accepted.number if accepted else 0):
        return False
    if accepted == serving and ranked and not stored_answers.of_accepted(context, project_id).are_due(record):
        return False
    return context.progress.recall(project_id, "failed_ranking") != _attempt(context, project_id)


def note_ranking_error(context: Context, project_id: int, error: BackendError) -> None:
    """Keep why the accepted version cannot be ranked; the queue keeps its order, and other settings are tried again."""
    log.warning("project %d: the queue keeps its order: %s", project_id, error)
    context.progress.remember(project_id, "ranking_error", str(error))
    context.progress.remember(project_id, "failed_ranking", _attempt(context, project_id))


def forget_ranking_error(context: Context, project_id: int) -> None:
    """Forget that a ranking failed."""
    for memo in ("ranking_error", "failed_ranking"):
        context.progress.remember(project_id, memo, "")
    context.progress.forget_fault(project_id, "scoring")


def _attempt(context: Context, project_id: int) -> str:
    """Return what decides whether a ranking succeeds: the version and the settings."""
    accepted = context.store.current(project_id)
    settings = context.project_settings(context.store.project(project_id))
    return f"{accepted.number if accepted else 0} {settings.model_dump_json()}"
