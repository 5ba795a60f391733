"""In which order a stored pool is labeled: the strategy that the settings or the bandit choose, and its ranking."""

from __future__ import annotations

import logging

import numpy as np

from backend import acquisition, bandit, evidence, ranking
from backend.context import Context
from backend.errors import NotFoundError, SettingError
from backend.models import ServedModel, model_for, serving_number
from backend.settings import Settings
from backend.store import ProjectRecord
from backend.types import Ranking

log = logging.getLogger(__name__)


def rank_pool(context: Context, record: ProjectRecord, model: ServedModel) -> Ranking:
    """Rank the stored pool of a version under the project's settings, and keep the ranking.

    Before the first training nothing tells one image from another: the order is random and says so. Raises ModelError
    if the model lacks what the strategy needs.
    """
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
