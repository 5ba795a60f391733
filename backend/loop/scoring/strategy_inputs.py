"""What a strategy may look at beside the boxes of a scored pool: quality, labeled images, their losses, a committee."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from backend import acquisition
from backend.acquisition.parts import committee_part
from backend.acquisition.pool import Committee, Pool
from backend.errors import MediaError, ModelError
from backend.labelstudio import tags
from backend.loop.context import Context
from backend.loop.scoring.past_predictions import PastModel, fair_predictions, past_models
from backend.loop.served_models import ServedModel, committee_for
from backend.media.task_errors import answers_or_errors
from backend.policy import strategy_pool
from backend.policy.fair_losses import prediction_loss
from backend.policy.strategy_pool import LabeledImages
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import ProjectRecord
from backend.types import ControlTag, FloatArray, IntArray, LabeledBox, Task
from backend.yolo import ensemble
from backend.yolo.ensemble import Member, Votes

log = logging.getLogger(__name__)


def pool_for(context: Context, record: ProjectRecord, model: ServedModel, strategy: str) -> Pool:
    """Return the stored pool of a version's model with all that `strategy` asks for.

    What it asks for and was not gathered when the pool was scored is gathered now. Raises ModelError where the model
    cannot give it.
    """
    needs, settings = acquisition.get(strategy).needs, context.project_settings(record)
    pool, _ = context.store.load_pool(
        *(model.project_id, model.number, model.class_weights),
        needs=needs,
        tag=model.key,
    )
    labeled, _ = context.store.load_pool(model.project_id, model.number, None, labeled=True, tag=model.key)
    return strategy_pool.pool_for(
        *(strategy, settings, pool),
        LabeledImages(labeled.columns.get("embeddings"), labeled.columns.get("thumbnails")),
        metrics=model.metrics,
        temperature=model.temperature,
        outcomes=model.tag.outcomes,
        losses=lambda: fair_losses(context, model, labeled.task_ids),
        committee=lambda: _votes(context, record, model, pool.task_ids),
    )


def fair_losses(context: Context, model: ServedModel, task_ids: IntArray) -> FloatArray:
    """Return how badly images were predicted (l,) by the newest version that had not learned from them, else NaN.

    That is this version for validation images, and an earlier one, whose pool they were in, for the others.
    """
    wanted = set(task_ids.tolist())
    annotated = [task for task in context.annotated_tasks(model.project_id) if task.task.id in wanted]
    readings = {task.task.id: tags.read(model.tag, task.result) for task in annotated}
    labels = {task_id: reading.objects(model.tag) for task_id, reading in readings.items() if not reading.unreadable}
    sources = {task.task.id: model.tag.source(task.task) for task in annotated if task.task.id in labels}
    known = losses_of_labels(context, past_models(context, model), labels, sources)
    return np.array([known.get(task_id, math.nan) for task_id in task_ids.tolist()], dtype=np.float32)


def losses_of_labels(
    context: Context, pasts: Sequence[PastModel], labels: Mapping[int, Sequence[LabeledBox]], sources: Mapping[int, int]
) -> dict[int, float]:
    """Return how badly the images of these tasks were predicted, of those that somebody predicted."""
    predictions = fair_predictions(context, pasts, sources)
    return {
        task_id: prediction_loss(prediction, labels[task_id], past.classes) for task_id, past, prediction in predictions
    }


def needs_committee(strategies: Iterable[str]) -> bool:
    """Return whether one of these strategies needs a committee."""
    return any("committee" in acquisition.get(name).needs for name in strategies)


def committees(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel]
) -> list[tuple[ServedModel, tuple[Member, ...]]]:
    """Return the trained models whose pools are put to a committee, each with its own.

    Raises ModelError as `committee` for the first tag; a further one without a committee is ranked by something else.
    """
    found = []
    for model in [each for each in models if each.trained]:
        try:
            found.append((model, committee(context, record, model)))
        except ModelError as error:
            if model is models[0]:
                raise
            log.info("project %d: no committee on %s: %s", model.project_id, model.tag.from_name, error)
    return found


def committee(context: Context, record: ProjectRecord, model: ServedModel) -> tuple[Member, ...]:
    """Return who votes on a tag's pool. Raises ModelError for a pool of videos, and as `models.committee_for`."""
    if model.tag.frame_rate:
        raise ModelError(
            "a committee compares predictions of images, and this project's tasks are videos",
            fix="choose a strategy without one: `yolo-backend strategies` lists what each needs",
        )
    return committee_for(context, context.project_settings(record), model)


def save_votes(
    context: Context, members: Sequence[Member], model: ServedModel, index: int, tasks: Sequence[Task]
) -> None:
    """Ask a tag's committee about one shard of the pool, and keep what it says."""
    ids, votes = _ask(context, members, model.tag, tasks)
    said = ensemble.committee_of(votes)
    context.store.save_votes(model.project_id, model.number, index, ids, said, tag=model.key)


def _ask(
    context: Context, members: Sequence[Member], tag: ControlTag, tasks: Sequence[Task]
) -> tuple[IntArray, list[Votes]]:
    """Return the votes on the tasks whose image can be read, and their ids."""
    media = context.media.fetch_many([(task.shown(tag.data_key), task.id) for task in tasks])
    fetched = [
        (task.id, file.path) for task, file in zip(tasks, media, strict=True) if not isinstance(file, MediaError)
    ]
    answers = answers_or_errors([path for _, path in fetched], partial(ensemble.consult, members))
    votes = {task_id: answer for (task_id, _), answer in zip(fetched, answers, strict=True)}
    asked = {task_id: answer for task_id, answer in votes.items() if not isinstance(answer, MediaError)}
    return np.array(list(asked), dtype=np.int64), list(asked.values())


def _votes(context: Context, record: ProjectRecord, model: ServedModel, task_ids: IntArray) -> Committee:
    """Return the votes on the pool's images, row by row; on an image that came or failed since there are none."""
    stored = list(context.store.votes(model.project_id, model.number, tag=model.key))
    if not stored:
        stored = list(_ask_now(context, record, model, task_ids))
    if len({each.member_probs.shape[::2] for _, each in stored if each.offsets[-1]}) > 1:
        raise ModelError(
            "parts of the pool were scored by different committees", fix=f"run `yolo-backend score {model.project_id}`"
        )
    return joined_votes(stored, task_ids)


def _ask_now(
    context: Context, record: ProjectRecord, model: ServedModel, task_ids: IntArray
) -> Iterator[tuple[IntArray, Committee]]:
    """Ask the committee about the whole pool, where the strategy was another when it was scored."""
    members = committee(context, record, model)
    for begin in range(0, len(task_ids), SHARD_TASKS):
        tasks = context.label_studio.tasks.get_many(model.project_id, task_ids[begin : begin + SHARD_TASKS].tolist())
        ids, votes = _ask(context, members, model.tag, tasks)
        yield ids, ensemble.committee_of(votes)


def joined_votes(stored: Sequence[tuple[IntArray, Committee]], task_ids: IntArray) -> Committee:
    """Return the votes of all shards in the order of `task_ids` (n,)."""
    voted = [(ids, each) for ids, each in stored if each.offsets[-1]]
    if not voted:
        return ensemble.nobody(len(task_ids))
    known = np.concatenate([ids for ids, _ in voted])
    counts = np.concatenate([*(np.diff(each.offsets) for _, each in voted), [0]])  # the last stands for no votes
    variances = [each.member_variance for _, each in voted if each.member_variance is not None]
    together = Committee(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([each.member_probs for _, each in voted], axis=1),
        np.concatenate([each.member_boxes for _, each in voted], axis=1),
        np.concatenate(variances, axis=1) if len(variances) == len(voted) else None,
    )
    row = {task_id: index for index, task_id in enumerate(known.tolist())}
    return committee_part(together, np.array([row.get(one, len(known)) for one in task_ids.tolist()], dtype=np.int64))
