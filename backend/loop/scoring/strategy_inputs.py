"""The inputs of a strategy beside the scored pool: model quality, labeled images, their losses, committee votes."""

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
from backend.labelstudio import tags, task_fields, visibility
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
    """Return the stored pool of a version's model with the inputs that `strategy` needs.

    Inputs that were not gathered when the pool was scored are gathered now. Raises ModelError if the model cannot
    provide them.
    """
    needs, settings = acquisition.get(strategy).needs, context.project_settings(record)
    pool, _ = context.store.pools.load_pool(
        *(model.project_id, model.number, model.class_weights),
        needs=needs,
        tag=model.key,
    )
    labeled, _ = context.store.pools.load_pool(model.project_id, model.number, None, labeled=True, tag=model.key)
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
    """Return the losses (l,) of the newest version that had not learned from the task, NaN if there is none.

    For validation images that is this version. For the others it is an earlier version that had them in its pool.
    """
    wanted = set(task_ids.tolist())
    annotated = [
        task
        for task in context.annotated_tasks(model.project_id)
        if task.task.id in wanted and not visibility.is_hidden(model.tag, task.result)
    ]
    readings = {task.task.id: tags.read(model.tag, task.result) for task in annotated}
    labels = {task_id: reading.objects(model.tag) for task_id, reading in readings.items() if not reading.unreadable}
    sources = {task.task.id: task_fields.source(model.tag, task.task) for task in annotated if task.task.id in labels}
    losses = losses_of_labels(context, past_models(context, model), labels, sources)
    return np.array([losses.get(task_id, math.nan) for task_id in task_ids.tolist()], dtype=np.float32)


def losses_of_labels(
    context: Context, pasts: Sequence[PastModel], labels: Mapping[int, Sequence[LabeledBox]], sources: Mapping[int, int]
) -> dict[int, float]:
    """Return the loss of each task's fair prediction by task id; tasks without one are left out.

    `sources` is explained at `past_predictions.latest_predictions`.
    """
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
    """Return each trained model that ranks, with its committee.

    Raises ModelError as `committee` does for the first tag. A further tag without a committee is left out, and ranked
    by another strategy.
    """
    pairs = []
    for model in [candidate for candidate in models if candidate.trained and candidate.tag.ranks]:
        try:
            pairs.append((model, committee(context, record, model)))
        except ModelError as error:
            if model is models[0]:
                raise
            log.info("project %d: no committee on %s: %s", model.project_id, model.tag.from_name, error)
    return pairs


def committee(context: Context, record: ProjectRecord, model: ServedModel) -> tuple[Member, ...]:
    """Return the committee of a tag's pool. Raises ModelError for videos, pages, and as `committee_for`."""
    if not model.tag.one_image:
        raise ModelError(
            f"a committee compares predictions of images, and this project's tasks are {_kind(model.tag)}",
            fix="choose a strategy without one: `yolo-backend strategies` lists what each needs",
        )
    return committee_for(context, context.project_settings(record), model)


def _kind(tag: ControlTag) -> str:
    return "lists of pages" if tag.pages else "videos"


def save_votes(
    context: Context, members: Sequence[Member], model: ServedModel, index: int, tasks: Sequence[Task]
) -> None:
    """Ask a tag's committee about one shard of the pool, and store the votes."""
    ids, votes = _ask(context, members, model.tag, tasks)
    context.store.pools.save_votes(
        model.project_id, model.number, index, ids, ensemble.committee_of(votes), tag=model.key
    )


def _ask(
    context: Context, members: Sequence[Member], tag: ControlTag, tasks: Sequence[Task]
) -> tuple[IntArray, list[Votes]]:
    """Return the ids of the tasks whose image can be read, and the votes on them."""
    media = context.media.fetch_many([(task_fields.shown(task, tag.data_key), task.id) for task in tasks])
    fetched = [
        (task.id, file.path) for task, file in zip(tasks, media, strict=True) if not isinstance(file, MediaError)
    ]
    answers = answers_or_errors([path for _, path in fetched], partial(ensemble.consult, members))
    votes = {
        task_id: answer
        for (task_id, _), answer in zip(fetched, answers, strict=True)
        if not isinstance(answer, MediaError)
    }
    return np.array(list(votes), dtype=np.int64), list(votes.values())


def _votes(context: Context, record: ProjectRecord, model: ServedModel, task_ids: IntArray) -> Committee:
    """Return the votes on the pool's images, row by row; images that were added or failed since have none."""
    stored = list(context.store.pools.votes(model.project_id, model.number, tag=model.key))
    if not stored:
        stored = list(_ask_now(context, record, model, task_ids))
    if len({votes.member_probs.shape[::2] for _, votes in stored if votes.offsets[-1]}) > 1:
        raise ModelError(
            "parts of the pool were scored by different committees", fix=f"run `yolo-backend score {model.project_id}`"
        )
    return joined_votes(stored, task_ids)


def _ask_now(
    context: Context, record: ProjectRecord, model: ServedModel, task_ids: IntArray
) -> Iterator[tuple[IntArray, Committee]]:
    """Ask the committee about the whole pool, because the pool was scored under another strategy."""
    members = committee(context, record, model)
    for begin in range(0, len(task_ids), SHARD_TASKS):
        tasks = context.label_studio.tasks.get_many(model.project_id, task_ids[begin : begin + SHARD_TASKS].tolist())
        ids, votes = _ask(context, members, model.tag, tasks)
        yield ids, ensemble.committee_of(votes)


def joined_votes(stored: Sequence[tuple[IntArray, Committee]], task_ids: IntArray) -> Committee:
    """Return the votes of all shards in the order of `task_ids` (n,)."""
    shards = [votes for _, votes in stored if votes.offsets[-1]]
    if not shards:
        return ensemble.nobody(len(task_ids))
    voted_ids = np.concatenate([ids for ids, votes in stored if votes.offsets[-1]])
    counts = np.concatenate([*(np.diff(votes.offsets) for votes in shards), [0]])  # the last row has no votes
    variances = [votes.member_variance for votes in shards if votes.member_variance is not None]
    together = Committee(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([votes.member_probs for votes in shards], axis=1),
        np.concatenate([votes.member_boxes for votes in shards], axis=1),
        np.concatenate(variances, axis=1) if len(variances) == len(shards) else None,
    )
    row_of = {task_id: row for row, task_id in enumerate(voted_ids.tolist())}
    no_votes = len(voted_ids)
    rows = [row_of.get(task_id, no_votes) for task_id in task_ids.tolist()]
    return committee_part(together, np.array(rows, dtype=np.int64))
