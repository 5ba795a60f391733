"""The ranking of a stored pool, by the strategy that the settings or the bandit choose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from backend import acquisition
from backend.errors import ModelError, NotFoundError, SettingError
from backend.loop.context import Context
from backend.loop.scoring import strategy_inputs
from backend.loop.served_models import ServedModel, models_for, serving_number
from backend.policy import queue_order
from backend.sampling import bandit, ranking
from backend.sampling.late_places import STAND_IN
from backend.sampling.pins import pinned
from backend.sampling.ranking import Protocol
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Ranking

log = logging.getLogger(__name__)


def rank_pool(context: Context, record: ProjectRecord, models: Sequence[ServedModel]) -> Ranking:
    """Rank the stored pool of a version under the project's settings, and store the ranking.

    Before the first training FIRST_BATCH decides. Raises ModelError if the model lacks what the strategy needs.
    """
    models = [model for model in models if model.tag.ranks]
    model, settings = models[0], context.project_settings(record)
    strategy, explore = (strategy_for(context, settings, model), settings.explore_share)
    if not any(served.trained for served in models):
        strategy, explore = settings.first_batch, 1.0 if settings.first_batch == "random" else settings.explore_share
    order, parts = _order(context, record, models, strategy, explore)
    for tag, part in parts.items():
        context.store.pools.save_ranking(model.project_id, model.number, part, tag=tag)
    context.store.pools.save_ranking(model.project_id, model.number, order)
    return order


def _order(
    context: Context, record: ProjectRecord, models: Sequence[ServedModel], strategy: str, explore: float
) -> tuple[Ranking, Mapping[str, Ranking]]:
    """Return the ranking of a version's pool and, if there are several tags, each tag's own ranking by its key."""
    model, settings = models[0], context.project_settings(record)
    protocol, rng = queue_order.protocol(settings), queue_order.chance(settings, model.project_id, model.number)
    parts: dict[str, Ranking] = {}
    if len(models) == 1:
        pool = strategy_inputs.pool_for(context, record, model, strategy)
        order = ranking.rank(pool, strategy, explore_share=explore, rng=rng, protocol=protocol)
    else:
        whole = replace(protocol, uncertain=1.0)  # the random share of a batch is drawn once, in the joint ranking
        for tag_model in [candidate for candidate in models if candidate.trained] or models:
            instead = None if tag_model is model else STAND_IN
            parts[tag_model.key] = _part(context, record, tag_model, strategy, whole, instead)
        order = ranking.rank_jointly(list(parts.values()), strategy, explore_share=explore, rng=rng, protocol=protocol)
    count = len(order.task_ids)
    if count and (warning := ranking.crowding_warning(protocol.batch, protocol.size(count))):
        log.warning("project %d: %s", model.project_id, warning)
    return order, parts


def _part(
    context: Context, record: ProjectRecord, model: ServedModel, strategy: str, protocol: Protocol, instead: str | None
) -> Ranking:
    """Return one tag's own ranking of the pool: by `strategy`, or by `instead` if the model lacks what it needs."""
    settings = context.project_settings(record)

    def ranked(strategy: str) -> Ranking:
        """Return the ranking by a strategy."""
        pool = strategy_inputs.pool_for(context, record, model, strategy)
        # The same for all tags, so that they draw the same candidates.
        rng = queue_order.chance(settings, model.project_id, model.number)
        return ranking.rank(pool, strategy, explore_share=0.0, rng=rng, protocol=protocol)

    try:
        return ranked(strategy)
    except ModelError as error:
        if instead is None or instead == strategy:
            raise
        log.info("project %d: %s ranks by %s: %s", model.project_id, model.tag.from_name, instead, error)
    return ranked(instead)


def arms(settings: Settings) -> tuple[str, ...]:
    """Return the strategies that the bandit chooses from; raises SettingError if BANDIT_ARMS is empty."""
    names = tuple(dict.fromkeys(name.strip() for name in settings.bandit_arms.split(",") if name.strip()))
    if not names:
        raise SettingError("BANDIT_ARMS names no strategy", where="BANDIT_ARMS", fix="name some, with commas between")
    return names


def candidates(settings: Settings) -> tuple[str, ...]:
    """Return the strategies that the next ranking may use."""
    return (settings.strategy,) if settings.bandit == "off" else arms(settings)


def strategy_for(context: Context, settings: Settings, model: ServedModel) -> str:
    """Return the strategy of the next ranking: STRATEGY, or the bandit's choice."""
    if settings.bandit == "off":
        return settings.strategy
    rng = np.random.default_rng((settings.seed, model.project_id, model.number, 1))
    chosen = bandit.choose(context.store.state.rewards(model.project_id), arms(settings), settings.bandit, rng)
    log.info("project %d: the bandit chose %s for %s", model.project_id, chosen, model.name)
    return chosen


def preview(context: Context, project_id: int, strategy: str) -> Ranking:
    """Return the ranking by `strategy` of the served version's stored pool, with the pins; writes nothing.

    Raises SettingError for an unknown strategy, ModelError if the model lacks what it needs, NotFoundError for a
    project that has no scored pool.
    """
    acquisition.get(strategy)
    record = context.store.project(project_id)
    if record is None or context.store.pools.ranking(project_id, serving_number(context, project_id)) is None:
        raise NotFoundError(f"project {project_id} has no scored pool", fix=f"run `yolo-backend score {project_id}`")
    explore = context.project_settings(record).explore_share
    models = [model for model in models_for(context, record, accepted=False) if model.tag.ranks]
    order, _ = _order(context, record, models, strategy, explore)
    return pinned(order, context.store.steering.pins(project_id))
