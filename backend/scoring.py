"""From a version to a new queue: score the pool in shards, rank it, push it to Label Studio, flip, delete the old."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import acquisition, bandit, evidence, label_config, ranking, tags
from backend.context import Context
from backend.errors import BackendError, MediaError, NotFoundError, SettingError
from backend.label_studio import LabelStudioClient, PredictionRow, PredictionStamp
from backend.media import MediaFile
from backend.models import ServedModel, base_model, committee_for, model_for, name_of
from backend.queues import Jobs
from backend.settings import Settings
from backend.store import PoolShard, ProjectRecord, version_name
from backend.types import ControlTag, Prediction, Ranking, Region, Task

log = logging.getLogger(__name__)

SHARD_TASKS = 256
LAST = 1.0  # the priority of a task that could not be scored


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one push wrote."""

    version: str
    created: int
    failed: int


def project_record(context: Context, project_id: int) -> ProjectRecord:
    """Return the project as Label Studio has it now, with the settings its last /setup brought."""
    record = context.store.project(project_id)
    if record is None:
        raise NotFoundError(f"project {project_id} was never set up", fix="add the backend in LS: Settings → Model")
    return replace(record, label_config=context.label_studio.project(project_id).label_config)


def start(context: Context, jobs: Jobs, project_id: int) -> int:
    """Cut all tasks into shards for the accepted version, one job each; return the number of tasks.

    The unlabeled ones are the pool; what a trained version says of the labeled ones tells strategies what is known
    already, and reviewers which labels to doubt. Raises ModelError where the strategy needs a committee, and there is
    none to ask.
    """
    record = project_record(context, project_id)
    model, settings = model_for(context, record, accepted=True), context.project_settings(record)
    if model.number and evidence.asks_committee(candidates(settings)):
        committee_for(context, settings, model)
    pool = [task.id for task in context.label_studio.unlabeled_tasks(project_id)]
    labeled = list(context.label_studio.labeled_task_ids(project_id)) if model.number else []
    shards = [(ids, False) for ids in _cut(pool)] + [(ids, True) for ids in _cut(labeled)]
    context.store.clear_shards(project_id, model.number)
    context.progress.start_scoring(project_id, model.number, len(shards), len(pool) + len(labeled))
    for index, (task_ids, has_labels) in enumerate(shards):
        jobs.put("score_shard", project_id, model.number, index, int(has_labels), task_ids)
    if not shards:
        jobs.put("rank_and_push", project_id, model.number)
    return len(pool) + len(labeled)


def _cut(task_ids: list[int]) -> list[list[int]]:
    return [task_ids[begin : begin + SHARD_TASKS] for begin in range(0, len(task_ids), SHARD_TASKS)]


def score_shard(
    context: Context, project_id: int, number: int, index: int, labeled: bool, task_ids: Sequence[int]
) -> bool:
    """Predict one shard and store it; return True if it was the last one missing. Running it twice changes nothing."""
    record = project_record(context, project_id)
    model, settings = model_for(context, record, accepted=True), context.project_settings(record)
    if model.number != number:
        return False  # a newer version was accepted meanwhile
    tasks = context.label_studio.tasks(project_id, task_ids)
    context.store.save_shard(project_id, number, predict_shard(context, record, model, index, tasks), labeled=labeled)
    if number and not labeled and evidence.asks_committee(candidates(settings)):
        evidence.save_votes(context, record, model, index, tasks)
    return context.progress.shard_done(project_id, number, index, len(task_ids))


def predict_shard(
    context: Context, record: ProjectRecord, model: ServedModel, index: int, tasks: Sequence[Task]
) -> PoolShard:
    """Return the predictions of `tasks`; None marks a task whose image failed, with its reason recorded."""
    tag = label_config.parse(record.label_config)[0]
    predictions, reasons = predict(context, model, tag, tasks)
    context.progress.note_failures(record.project_id, [task.id for task in tasks], reasons)
    return PoolShard(index, np.array([task.id for task in tasks], dtype=np.int64), tuple(predictions))


def predict(
    context: Context, model: ServedModel, tag: ControlTag, tasks: Sequence[Task]
) -> tuple[list[Prediction | None], dict[int, str]]:
    """Return a prediction per task in order, None where the image failed, and the reasons of those by task id."""
    fetched = list(context.media.fetch_many([(task.data.get(tag.data_key), task.id) for task in tasks]))
    found = _each(model, [file for file in fetched if not isinstance(file, MediaError)])
    results = [file if isinstance(file, MediaError) else next(found) for file in fetched]
    reasons = {task.id: str(each) for task, each in zip(tasks, results, strict=True) if isinstance(each, MediaError)}
    for task_id, reason in reasons.items():
        log.warning("task %d has no prediction: %s", task_id, reason)
    return [None if isinstance(each, MediaError) else each for each in results], reasons


def _each(model: ServedModel, files: Sequence[MediaFile]) -> Iterator[Prediction | MediaError]:
    """Yield a prediction per file, or why there is none: a cached file may be damaged or gone by now."""
    done = 0
    while done < len(files):
        try:
            for prediction in model.predict(files[done:]):
                yield prediction
                done += 1
        except MediaError:  # of any file of this batch: the next one is predicted alone, then the others together
            yield _alone(model, files[done])
            done += 1


def _alone(model: ServedModel, file: MediaFile) -> Prediction | MediaError:
    try:
        return next(iter(model.predict([file])))
    except MediaError as error:
        return error


def rank_and_push(context: Context, project_id: int, number: int) -> Pushed:
    """Rank the scored pool, import every prediction, then flip the queue in one write.

    Safe to run again: a ranking once made is kept, tasks that have their prediction are left alone.
    """
    record = project_record(context, project_id)
    model = model_for(context, record, accepted=True)
    if model.number != number:
        return Pushed(model.name, 0, 0)
    settings = context.project_settings(record)
    order = context.store.ranking(project_id, number) or _rank(context, record, model)
    tag = label_config.parse(record.label_config)[0]
    _, failed = context.store.load_pool(project_id, number, None)
    created = _import(context, project_id, model, _rows(context, settings, model, tag, order))
    context.store.activate(project_id, number)
    flip(context, project_id, model.name)
    context.progress.end_scoring(project_id)
    return Pushed(model.name, created, len(failed))


def _rank(context: Context, record: ProjectRecord, model: ServedModel) -> Ranking:
    # Before the first training nothing tells one image from another: the order is random and says so.
    settings = context.project_settings(record)
    strategy, explore = (strategy_for(context, settings, model), settings.explore_share)
    if not model.number:
        strategy, explore = "random", 1.0
    order = _order(context, record, model, strategy, explore)
    context.store.save_ranking(model.project_id, model.number, order)
    return order


def _order(context: Context, record: ProjectRecord, model: ServedModel, strategy: str, explore: float) -> Ranking:
    pool, settings = evidence.pool_for(context, record, model, strategy), context.project_settings(record)
    protocol = ranking.protocol(
        settings.protocol,
        batch=settings.retrain_every,
        uncertain_share=settings.uncertain_share,
        pool_limit=settings.pool_limit,
    )
    warning = ranking.crowded(protocol.batch, protocol.size(len(pool)))
    if warning and len(pool):
        log.warning("project %d: %s", model.project_id, warning)
    rng = np.random.default_rng((settings.seed, model.project_id, model.number))
    return ranking.rank(pool, strategy, explore_share=explore, rng=rng, protocol=protocol)


def arms(settings: Settings) -> tuple[str, ...]:
    """Return the strategies the bandit chooses from; raises SettingError if none is named."""
    names = tuple(dict.fromkeys(name.strip() for name in settings.bandit_arms.split(",") if name.strip()))
    if not names:
        raise SettingError("BANDIT_ARMS names no strategy", where="BANDIT_ARMS", fix="name some, with commas between")
    return names


def candidates(settings: Settings) -> tuple[str, ...]:
    """Return the strategies that the next ranking may use."""
    return (settings.strategy,) if settings.bandit == "off" else arms(settings)


def strategy_for(context: Context, settings: Settings, model: ServedModel) -> str:
    """Return the strategy of the next ranking: STRATEGY, or what the bandit chooses."""
    if settings.bandit == "off":
        return settings.strategy
    rng = np.random.default_rng((settings.seed, model.project_id, model.number, 1))
    chosen = bandit.choose(context.store.rewards(model.project_id), arms(settings), settings.bandit, rng)
    log.info("project %d: the bandit chose %s for %s", model.project_id, chosen, model.name)
    return chosen


def preview(context: Context, project_id: int, strategy: str) -> Ranking:
    """Return the ranking that `strategy` would make of the stored pool of the served version; writes nothing.

    Raises SettingError for an unknown strategy, ModelError if the model lacks what it needs, NotFoundError for a
    project that has no scored pool.
    """
    acquisition.get(strategy)
    record = context.store.project(project_id)
    if record is None or context.store.ranking(project_id, serving_number(context, project_id)) is None:
        raise NotFoundError(f"project {project_id} has no scored pool", fix=f"run `yolo-backend score {project_id}`")
    explore = context.project_settings(record).explore_share
    return _order(context, record, model_for(context, record, accepted=False), strategy, explore)


def _rows(
    context: Context, settings: Settings, model: ServedModel, tag: ControlTag, order: Ranking
) -> Iterator[PredictionRow]:
    """Yield a row per task, one shard's predictions in memory at a time."""
    priority = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    for shard in context.store.shards(model.project_id, model.number):
        for task_id, prediction in zip(shard.task_ids.tolist(), shard.predictions, strict=True):
            regions = encode(settings, model, tag, task_id, prediction)
            yield PredictionRow(task_id, LAST if prediction is None else priority.get(task_id, LAST), regions)


def encode(
    settings: Settings, model: ServedModel, tag: ControlTag, task_id: int, prediction: Prediction | None
) -> tuple[Region, ...]:
    """Return the regions of one task; region ids depend on task and version only, so twice gives the same."""
    if prediction is None:
        return ()
    key = f"{task_id}/{model.name}"
    return tags.encode(tag, prediction, model.classes, settings.model_score_threshold, key)


def _import(context: Context, project_id: int, model: ServedModel, rows: Iterator[PredictionRow]) -> int:
    """Import the rows of tasks that are still unlabeled; return how many were written."""
    client = context.label_studio
    wanted = {task.id for task in client.unlabeled_tasks(project_id)}
    present = client.prediction_stamps(project_id, model.name)
    return write(client, project_id, model.name, (row for row in rows if row.task_id in wanted), present)


def write(
    client: LabelStudioClient,
    project_id: int,
    version: str,
    rows: Iterator[PredictionRow],
    present: Iterable[PredictionStamp],
) -> int:
    """Import the rows, but for tasks that have a prediction of this version already; return how many were written.

    Such a one (of an earlier scoring, or asked of /predict by Label Studio itself) is mended if its score is another,
    so that no task ever has two.
    """
    known = {stamp.task_id: stamp for stamp in present}
    mended = 0

    def fresh() -> Iterator[PredictionRow]:
        nonlocal mended
        for row in rows:
            stamp = known.get(row.task_id)
            if stamp is None:
                yield row
            elif not same(stamp.score, row.score):
                client.update_prediction(stamp.id, version, row)
                mended += 1

    return client.import_predictions(project_id, version, fresh()) + mended


def same(stored: float | None, score: float) -> bool:
    """Return whether Label Studio holds this score already."""
    return stored is not None and math.isclose(stored, score, abs_tol=1e-6)


def flip(context: Context, project_id: int, version: str) -> bool:
    """Point the project's queue at `version`; True if that changed it.

    It stays as it is where no task holds a prediction of the version yet: Label Studio would refuse.
    """
    client = context.label_studio
    if client.project(project_id).model_version == version or version not in client.prediction_versions(project_id):
        return False
    client.set_model_version(project_id, version)
    return True


def serving_number(context: Context, project_id: int) -> int:
    """Return the number of the version that serves; 0 is the base model."""
    serving = context.store.serving(project_id)
    return serving.number if serving else 0


def is_ranked(context: Context, project_id: int) -> bool:
    """Return whether there is a ranking that new tasks can be placed in; one of an empty pool tells nothing."""
    order = context.store.ranking(project_id, serving_number(context, project_id))
    return order is not None and len(order.task_ids) > 0


def is_pending(context: Context, project_id: int) -> bool:
    """Return whether the accepted version's scores are not in Label Studio yet, and something can be done about it.

    That is so unless a scoring is at work, or one has failed and the settings are still those that it failed under.
    """
    accepted, serving = context.store.current(project_id), context.store.serving(project_id)
    ranked = context.store.ranking(project_id, serving_number(context, project_id)) is not None
    if (accepted == serving and ranked) or context.progress.scoring(project_id) is not None:
        return False
    return context.progress.recall(project_id, "failed_ranking") != _attempt(context, project_id)


def give_up(context: Context, project_id: int, error: BackendError) -> None:
    """Keep why the accepted version cannot be ranked; the queue keeps its order, and other settings are tried again."""
    log.warning("project %d: the queue keeps its order: %s", project_id, error)
    context.progress.remember(project_id, "ranking_error", str(error))
    context.progress.remember(project_id, "failed_ranking", _attempt(context, project_id))
    context.progress.end_scoring(project_id)


def succeed(context: Context, project_id: int) -> None:
    """Forget that a ranking failed."""
    for memo in ("ranking_error", "failed_ranking"):
        context.progress.remember(project_id, memo, "")


def _attempt(context: Context, project_id: int) -> str:
    """Return what decides whether a ranking succeeds: the version and the settings."""
    accepted = context.store.current(project_id)
    settings = context.project_settings(context.store.project(project_id))
    return f"{accepted.number if accepted else 0} {settings.model_dump_json()}"


def delete_old(context: Context, project_id: int, at_most: int) -> bool:
    """Delete up to `at_most` predictions of versions that are ours and no longer served; True if more may be left."""
    record = project_record(context, project_id)
    ours = {version.name for version in context.store.versions(project_id)} | {
        version_name(base_model(context, record), 0)
    }
    kept = {name_of(context, record), name_of(context, record, accepted=True)}
    kept.add(context.label_studio.project(project_id).model_version)
    present = context.label_studio.prediction_versions(project_id)
    for version in sorted((ours - kept) & set(present)):
        ids = context.label_studio.prediction_ids(project_id, version, at_most)
        for prediction_id in ids:
            context.label_studio.delete_prediction(prediction_id)
        if ids:
            return True
    return False
