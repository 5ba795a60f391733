"""A pool in shards: cut, predicted, stored. The last shard of a version in starts its ranking."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from backend import evidence, label_config, priorities, watched
from backend.context import Context
from backend.errors import MediaError
from backend.media import MediaFile
from backend.models import ServedModel, model_for, project_record
from backend.queues import Jobs
from backend.store import PoolShard, ProjectRecord
from backend.types import ControlTag, Prediction, Task

log = logging.getLogger(__name__)

SHARD_TASKS = 256
SHARD_VIDEOS = 4  # each takes as long as hundreds of images


def start(context: Context, jobs: Jobs, project_id: int) -> int:
    """Cut all tasks into shards for the accepted version, one job each; return the number of tasks.

    The unlabeled ones are the pool; what a trained version says of the labeled ones tells strategies what is known
    already, and reviewers which labels to doubt. Raises ModelError where the strategy needs a committee, and there is
    none to ask.
    """
    record = project_record(context, project_id)
    model, settings = model_for(context, record, accepted=True), context.project_settings(record)
    if model.number and evidence.asks_committee(priorities.candidates(settings)):
        evidence.jury(context, record, model)
    pool = [task.id for task in context.label_studio.unlabeled_tasks(project_id)]
    labeled = list(context.label_studio.labeled_task_ids(project_id)) if model.number else []
    size = shard_size(label_config.parse(record.label_config)[0])
    shards = [(ids, False) for ids in _cut(pool, size)] + [(ids, True) for ids in _cut(labeled, size)]
    context.store.clear_shards(project_id, model.number)
    context.progress.start_scoring(project_id, model.number, len(shards), len(pool) + len(labeled))
    for index, (task_ids, has_labels) in enumerate(shards):
        jobs.put("score_shard", project_id, model.number, index, int(has_labels), task_ids)
    if not shards:
        jobs.put("rank_and_push", project_id, model.number)
    return len(pool) + len(labeled)


def shard_size(tag: ControlTag) -> int:
    """Return how many tasks are predicted before the result is kept."""
    return SHARD_VIDEOS if tag.frame_rate else SHARD_TASKS


def _cut(task_ids: list[int], size: int) -> list[list[int]]:
    return [task_ids[begin : begin + size] for begin in range(0, len(task_ids), size)]


def score_shard(
    context: Context, project_id: int, number: int, index: int, labeled: bool, task_ids: Sequence[int]
) -> bool:
    """Predict one shard and store it; return True if it was the last one missing. Running it twice changes nothing."""
    record = project_record(context, project_id)
    model, settings = model_for(context, record, accepted=True), context.project_settings(record)
    if model.number != number:
        return False  # a newer version was accepted meanwhile
    tasks = context.label_studio.tasks(project_id, task_ids)
    shard = predict_shard(context, record, model, index, tasks)
    context.store.save_shard(project_id, number, shard, labeled=labeled)
    if number and not labeled and evidence.asks_committee(priorities.candidates(settings)):
        # A cached file may be damaged: what could not be predicted is not put to the vote either.
        seen = [task for task, found in zip(tasks, shard.predictions, strict=True) if found is not None]
        evidence.save_votes(context, record, model, index, seen)
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
    """Return a prediction per task in order, None where its file failed, and the reasons of those by task id."""
    answer = _of_videos if tag.frame_rate else _of_images
    results = list(answer(context, model, tag, tasks))
    reasons = {task.id: str(each) for task, each in zip(tasks, results, strict=True) if isinstance(each, MediaError)}
    for task_id, reason in reasons.items():
        log.warning("task %d has no prediction: %s", task_id, reason)
    return [None if isinstance(each, MediaError) else each for each in results], reasons


def _of_images(
    context: Context, model: ServedModel, tag: ControlTag, tasks: Sequence[Task]
) -> Iterator[Prediction | MediaError]:
    fetched = list(context.media.fetch_many([(task.data.get(tag.data_key), task.id) for task in tasks]))
    found = _each(model, [file for file in fetched if not isinstance(file, MediaError)])
    return (file if isinstance(file, MediaError) else next(found) for file in fetched)


def _of_videos(
    context: Context, model: ServedModel, tag: ControlTag, tasks: Sequence[Task]
) -> Iterator[Prediction | MediaError]:
    for task in tasks:
        try:
            yield watched.watch(context, model, tag, task)
        except MediaError as error:
            yield error


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
