"""Scores a pool in shards: cuts it, predicts each shard, stores the predictions. The last shard starts the ranking."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from backend.errors import MediaError
from backend.labelstudio import task_fields
from backend.loop.context import Context
from backend.loop.scoring import (
    box_answers,
    page_predictions,
    pool_ranking,
    stored_answers,
    strategy_inputs,
    video_predictions,
)
from backend.loop.served_models import ServedModel, models_for, project_record
from backend.media.cache import MediaFile
from backend.media.task_errors import answers_or_errors, task_error
from backend.queue.rq_queue import Jobs
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import PoolShard, ProjectRecord
from backend.types import Prediction, Task

log = logging.getLogger(__name__)

SHARD_VIDEOS = 4  # one video takes as long as hundreds of images


def start(context: Context, jobs: Jobs, project_id: int) -> int:
    """Cut all tasks into shards for the accepted version, and enqueue one job each; return the number of tasks.

    The unlabeled tasks are the pool. A trained version also predicts the labeled tasks, for strategies that compare the
    pool with them, and for the label review. Raises ModelError if the strategy needs a committee and there is none.
    """
    record = project_record(context, project_id)
    models, settings = models_for(context, record, accepted=True), context.project_settings(record)
    model = models[0]
    if strategy_inputs.needs_committee(pool_ranking.candidates(settings)):
        strategy_inputs.committees(context, record, models)
    pool = [task.id for task in context.label_studio.tasks.unlabeled(project_id)]
    labeled = list(context.label_studio.annotations.task_ids(project_id)) if model.number else []
    size = shard_size(models)
    shards = [(ids, False) for ids in _shards_of(pool, size)] + [(ids, True) for ids in _shards_of(labeled, size)]
    context.store.pools.clear(project_id, model.number)
    # After the old shards are deleted, because the pool keys so far describe them.
    stored_answers.of(context, models).begin(models)
    run = context.progress.start_scoring(project_id, model.number, len(shards), len(pool) + len(labeled))
    for index, (task_ids, has_labels) in enumerate(shards):
        jobs.put("score_shard", project_id, run, index, int(has_labels), task_ids)
    jobs.deal()
    if not shards:
        jobs.put("rank_and_push", project_id, run)
    return len(pool) + len(labeled)


def shard_size(models: Sequence[ServedModel]) -> int:
    """Return the number of tasks per shard."""
    return SHARD_TASKS if all(model.tag.one_image for model in models) else SHARD_VIDEOS


def _shards_of(task_ids: list[int], size: int) -> list[list[int]]:
    return [task_ids[begin : begin + size] for begin in range(0, len(task_ids), size)]


def score_shard(
    context: Context, project_id: int, run: int, index: int, labeled: bool, task_ids: Sequence[int]
) -> int | None:
    """Predict one shard and store it; return the version's number if all shards are scored, else None.

    It is safe to run twice. It does nothing once another run has begun, or a newer version is accepted. If the label
    config asks for other answers than when the run began, the run ends, and the reconcile starts another.
    """
    current = context.progress.scoring(project_id)
    record = project_record(context, project_id)
    models, settings = models_for(context, record, accepted=True), context.project_settings(record)
    if current is None or (current.run, current.number) != (run, models[0].number):
        return None
    if stored_answers.of(context, models).outdated(models):
        context.progress.end_scoring(project_id, run)
        return None
    tasks = context.label_studio.tasks.get_many(project_id, task_ids)
    shards = predict_shards(context, models, index, tasks, labeled=labeled)
    if not context.progress.renew_scoring(project_id, run):  # another run has begun, and uses the same shard names
        return None
    if not save_shards(context, models, shards, labeled=labeled):
        return None
    if not labeled and strategy_inputs.needs_committee(pool_ranking.candidates(settings)):
        save_committee_votes(context, record, models, shards, tasks)
    return current.number if context.progress.shard_done(project_id, run, index, len(task_ids)) else None


def save_committee_votes(
    context: Context,
    record: ProjectRecord,
    models: Sequence[ServedModel],
    shards: Sequence[PoolShard],
    tasks: Sequence[Task],
) -> None:
    """Ask each tag's committee about the tasks of a shard, and store the votes.

    Tasks that could not be predicted are left out, because their files may be damaged.
    """
    shard_of = {model.tag.from_name: shard for model, shard in zip(models, shards, strict=True)}
    for model, members in strategy_inputs.committees(context, record, models):
        shard = shard_of[model.tag.from_name]
        predicted = [task for task, prediction in zip(tasks, shard.predictions, strict=True) if prediction is not None]
        strategy_inputs.save_votes(context, members, model, shard.index, predicted)


def predict_shards(
    context: Context, models: Sequence[ServedModel], index: int, tasks: Sequence[Task], *, labeled: bool = False
) -> tuple[PoolShard, ...]:
    """Return one shard per model with its predictions of `tasks`; None stands for a task whose file failed.

    The reasons of the failures are stored for the status page.
    """
    predictions, reasons = predict_all(context, models, tasks)
    # The training has stored why it could not learn from labeled tasks, and that must stay.
    processed = [] if labeled else [task.id for task in tasks]
    context.progress.note_failures(models[0].project_id, processed, reasons)
    ids = np.array([task.id for task in tasks], dtype=np.int64)
    sources = (np.array([task_fields.source(model.tag, task) for task in tasks], dtype=np.int64) for model in models)
    return tuple(
        PoolShard(index, ids, tuple(by_task), hashes) for by_task, hashes in zip(predictions, sources, strict=True)
    )


def save_shards(
    context: Context, models: Sequence[ServedModel], shards: Sequence[PoolShard], *, labeled: bool = False
) -> bool:
    """Store each model's shard of the same tasks; return False if the label config asks for other answers by now."""
    if stored_answers.of(context, models).outdated(models):
        return False
    # The first model last: if its shard exists, all do.
    for model, shard in reversed(list(zip(models, shards, strict=True))):
        context.store.pools.save_shard(model.project_id, model.number, shard, labeled=labeled, tag=model.key)
    return True


def stored_predictions(
    context: Context, models: Sequence[ServedModel], task: Task, *, labeled: bool = False
) -> list[Prediction | None]:
    """Return each model's stored prediction of a task, None if there is none of the media that it shows now."""
    return [
        context.store.pools.prediction(
            *(model.project_id, model.number, task.id, task_fields.source(model.tag, task)),
            labeled=labeled,
            tag=model.key,
        )
        for model in models
    ]


def predict_all(
    context: Context, models: Sequence[ServedModel], tasks: Sequence[Task]
) -> tuple[list[list[Prediction | None]], dict[int, str]]:
    """Return each model's predictions of the tasks in order, None where a file failed, and the reasons by task id.

    Models with the same weights and the same images share one pass over them.
    """
    fetched = functools.cache(lambda data_key: _fetched(context, data_key, tasks))
    passes: dict[tuple[object, ...], list[Prediction | MediaError]] = {}
    pass_of_tag = {model.tag.from_name: _pass(model) for model in models}
    for model in models:
        if _pass(model) not in passes:
            if model.tag.frame_rate:
                answers = _video_predictions(context, model, tasks)
            elif model.tag.regions_of:  # boxes come before questions about them
                boxes = passes[pass_of_tag[model.tag.regions_of]]
                answers = box_answers.predict(model, tasks, fetched(model.tag.data_key), boxes)
            elif model.tag.pages:
                answers = page_predictions.predict(context, model, tasks)
            else:
                answers = _image_predictions(model, tasks, fetched(model.tag.data_key))
            passes[_pass(model)] = list(answers)
    reasons = {}
    for row, task in enumerate(tasks):
        errors = [str(answers[row]) for answers in passes.values() if isinstance(answers[row], MediaError)]
        if errors:
            reasons[task.id] = "; ".join(dict.fromkeys(errors))
            log.warning("task %d lacks a prediction: %s", task.id, reasons[task.id])
    by_model = (passes[_pass(model)] for model in models)
    predictions = [[None if isinstance(answer, MediaError) else answer for answer in answers] for answers in by_model]
    return predictions, reasons


def _pass(model: ServedModel) -> tuple[object, ...]:
    """Return what a model's predictions depend on; those of videos and of boxes depend on all attributes of the tag."""
    tag = model.tag
    return model.weights, tag.data_key, tag.pages, tag.from_name if tag.frame_rate or tag.regions_of else ""


def _fetched(context: Context, data_key: str, tasks: Sequence[Task]) -> list[MediaFile | MediaError]:
    return list(context.media.fetch_many([(task_fields.shown(task, data_key), task.id) for task in tasks]))


def _image_predictions(
    model: ServedModel, tasks: Sequence[Task], fetched: Sequence[MediaFile | MediaError]
) -> Iterator[Prediction | MediaError]:
    answers = answers_or_errors([file for file in fetched if not isinstance(file, MediaError)], model.predict)
    for task, file in zip(tasks, fetched, strict=True):
        answer = file if isinstance(file, MediaError) else next(answers)
        # A model's error names the cached file, whose path clients need not know.
        uri = task_fields.shown(task, model.tag.data_key)
        yield task_error(answer, uri, task.id) if isinstance(answer, MediaError) else answer


def _video_predictions(
    context: Context, model: ServedModel, tasks: Sequence[Task]
) -> Iterator[Prediction | MediaError]:
    for task in tasks:
        try:
            yield video_predictions.predict_video(context, model, model.tag, task)
        except MediaError as error:
            yield task_error(error, task_fields.shown(task, model.tag.data_key), task.id)
