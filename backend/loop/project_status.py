"""The status of a project, from the store and redis alone."""

from __future__ import annotations

from dataclasses import dataclass

from backend.evaluation.label_quality import LabelIssue
from backend.evaluation.prompt_precision import PromptPrecision
from backend.evaluation.stopping import Recommendation
from backend.labelstudio import label_config
from backend.loop import studio_state
from backend.loop.context import Context
from backend.loop.review import round_value, round_zero
from backend.loop.scoring.pool_ranking import arms
from backend.loop.served_models import name_of, require_project, serving_number
from backend.loop.studio_state import StudioState
from backend.model_versions import ModelVersion
from backend.policy import tiling
from backend.queue.run_state import LabelCounts, ScoringRun, TrainingProgress
from backend.sampling import bandit
from backend.sampling.bandit import Arm, Reward
from backend.sampling.pins import Pins
from backend.store.records import Pause


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a project, as GET /api/projects/{id} shows it."""

    project_id: int
    version: str
    counts: LabelCounts | None  # None: not counted yet
    retrain_every: int
    strategy: str
    pause: Pause | None  # who paused the loop, and when; None: it is not paused
    pins: Pins
    training: TrainingProgress
    versions: tuple[ModelVersion, ...]
    scoring: ScoringRun | None
    failures: dict[int, str]  # task id -> why it has no prediction or no label
    ranking_error: str  # why the accepted version could not be ranked, and the queue kept its order; "" if it could
    stopping: Recommendation
    bandit: str  # "off", "ucb1" or "thompson"
    arms: tuple[Arm, ...]  # the bandit's strategies and their gains
    rewards: tuple[Reward, ...]
    label_studio: StudioState  # as the last reconcile saw it
    warnings: tuple[str, ...]  # the parts of the label config that are ignored, and why
    label_issues: tuple[LabelIssue, ...]  # the served version's review of the labels, worst first
    prompts: tuple[PromptPrecision, ...]  # how good pre-annotations from prompts were, before the first training


def status(context: Context, project_id: int) -> Status:
    """Return a project's status from the store and redis alone; raises NotFoundError if it was never set up."""
    record = require_project(context, project_id)
    settings = context.project_settings(record)
    rewards = context.store.state.rewards(project_id)
    return Status(
        project_id=project_id,
        version=name_of(context, record),
        counts=context.progress.counts(project_id),
        retrain_every=settings.retrain_every,
        strategy=settings.strategy,
        pause=context.store.steering.pause(project_id),
        pins=context.store.steering.pins(project_id),
        training=context.progress.training(project_id),
        versions=context.store.versions(project_id),
        scoring=context.progress.scoring(project_id),
        failures=context.progress.failures(project_id),
        ranking_error=context.progress.recall(project_id, "ranking_error"),
        stopping=round_value.recommendation(context, project_id, settings.budget),
        bandit=settings.bandit,
        arms=bandit.arms(rewards, arms(settings)) if settings.bandit != "off" else (),
        rewards=rewards,
        label_studio=studio_state.last(context, project_id),
        warnings=(
            *label_config.warnings(record.label_config),
            *tiling.warnings(settings, label_config.parse(record.label_config)),
        ),
        label_issues=context.store.state.label_issues(project_id, serving_number(context, project_id)),
        prompts=round_zero.results(context, record),
    )
