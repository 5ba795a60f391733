"""The status API's answers: pydantic models, and how they are made of a project's status."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from backend.evaluation import basis
from backend.evaluation.label_quality import LabelIssue, by_task
from backend.evaluation.prompt_precision import PromptPrecision
from backend.loop.project_status import Status
from backend.model_versions import Metrics, ModelVersion, TagModel
from backend.sampling.bandit import Reward


class CountsOut(BaseModel):
    """How many tasks a project has, how many are labeled, and how many of these wait for a ground truth."""

    tasks: int
    labeled: int
    new: int
    waiting: int


class TrainingOut(BaseModel):
    """The state of the current or last training."""

    state: str
    stage: str
    progress: float
    eta_s: float | None
    error: str
    epoch: int
    epochs: int
    losses: dict[str, float]


class JudgedOnOut(BaseModel):
    """The held-out images on which map50 and map50_95 were measured."""

    images: int
    boxes: int
    interval: tuple[float, float] | None  # of map50, 95%; null: not judged yet
    interval_50_95: tuple[float, float] | None  # of map50_95
    quality: str  # the same figures in words


class TagOut(BaseModel):
    """The model of one control tag in a version."""

    tag: str
    task: str
    map50: float | None  # null: there is no model yet, or it is not judged yet
    judged_on: JudgedOnOut
    temperature: float
    carried: bool
    reason: str


class VersionOut(BaseModel):
    """One published or rejected version."""

    version: str
    map50: float | None  # null: not judged yet
    map50_95: float | None
    judged_on: JudgedOnOut
    labels: int  # the tasks that it was trained and judged with
    images: int  # older name of `labels`
    boxes: int | None  # older name of `judged_on.boxes`
    temperature: float  # divides the logits of its confidences; 1 leaves them unchanged
    created: datetime
    promoted: bool
    reason: str
    tags: list[TagOut]


class ScoringOut(BaseModel):
    """The progress of scoring the pool."""

    done: int
    total: int


class SignOut(BaseModel):
    """One sign that labeling may stop."""

    name: str
    met: bool
    reason: str


class StoppingOut(BaseModel):
    """Whether labeling may stop, with all signs."""

    stop: bool
    signs: list[SignOut]


class ArmOut(BaseModel):
    """One strategy that the bandit chooses from."""

    strategy: str
    rounds: int
    mean: float


class RewardOut(BaseModel):
    """What the labels of one round gained."""

    version: int
    strategy: str
    images: int
    boxes: int
    gain: float | None  # null: judged on too few images, or on an unknown number
    disagreement: float | None
    judged_on: int
    interval: tuple[float, float] | None  # of gain, 95%


class BanditOut(BaseModel):
    """The bandit's method, its arms, and the rewards of all rounds."""

    method: str
    arms: list[ArmOut]
    history: list[RewardOut]


class LabelErrorsOut(BaseModel):
    """How many labeled tasks were reviewed, and how many look wrong."""

    judged: int
    suspicious: int


class PromptOut(BaseModel):
    """How good the pre-annotations of one label are that its prompt made."""

    tag: str
    label: str
    prompt: str
    shown: int
    right: int
    off: bool  # the label is switched off until the first training


class StudioOut(BaseModel):
    """What the last reconcile found in Label Studio."""

    reached: str
    error: str
    webhook: str
    sampling: str
    rivals: str
    title: str
    warnings: list[str]


class PausedOut(BaseModel):
    """Who paused the loop, and when."""

    who: str
    since: datetime


class PinnedOut(BaseModel):
    """The ids of pinned tasks, each side in the order of the queue."""

    front: list[int]
    back: list[int]


class ProjectOut(BaseModel):
    """The status of a project."""

    project: int
    version: str
    counts: CountsOut | None
    retrain_every: int
    strategy: str
    paused: PausedOut | None
    pinned: PinnedOut
    training: TrainingOut
    versions: list[VersionOut]
    scoring: ScoringOut
    failures: dict[int, str]
    ranking_error: str
    warnings: list[str]
    stopping: StoppingOut
    bandit: BanditOut
    label_errors: LabelErrorsOut
    prompts: list[PromptOut]
    label_studio: StudioOut


def project_out(status: Status) -> ProjectOut:
    """Return a status as GET /api/projects/{id} shows it."""
    training, run = status.training, status.scoring
    return ProjectOut(
        project=status.project_id,
        version=status.version,
        counts=None if status.counts is None else CountsOut(**_fields(status.counts)),
        retrain_every=status.retrain_every,
        strategy=status.strategy,
        paused=PausedOut(who=status.pause.who, since=status.pause.since) if status.pause else None,
        pinned=PinnedOut(front=list(status.pins.front), back=list(status.pins.back)),
        training=TrainingOut(**_fields(training)),
        versions=[version_out(version) for version in status.versions],
        scoring=ScoringOut(done=run.done, total=run.total) if run else ScoringOut(done=0, total=0),
        failures=status.failures,
        ranking_error=status.ranking_error,
        warnings=list(status.warnings),
        stopping=StoppingOut(
            stop=status.stopping.stop, signs=[SignOut(**_fields(sign)) for sign in status.stopping.signs]
        ),
        bandit=BanditOut(
            method=status.bandit,
            arms=[ArmOut(**_fields(arm)) for arm in status.arms],
            history=[_reward_out(reward) for reward in status.rewards],
        ),
        label_errors=_label_errors_out(status.label_issues),
        prompts=[_prompt_out(entry) for entry in status.prompts],
        label_studio=StudioOut(**_fields(status.label_studio), warnings=list(status.label_studio.warnings)),
    )


def _reward_out(reward: Reward) -> RewardOut:
    judged = reward.judged_on >= basis.MIN_JUDGED_IMAGES
    return RewardOut(**_fields(reward) | ({} if judged else {"gain": None, "interval": None}))


def _label_errors_out(issues: Sequence[LabelIssue]) -> LabelErrorsOut:
    tasks = by_task(issues)
    return LabelErrorsOut(judged=len(tasks), suspicious=sum(issue.suspicious for issue in tasks))


def _prompt_out(entry: PromptPrecision) -> PromptOut:
    return PromptOut(
        tag=entry.tag, label=entry.label, prompt=entry.prompt, shown=entry.shown, right=entry.right, off=entry.is_off
    )


def version_out(version: ModelVersion) -> VersionOut:
    """Return a version as GET /api/projects/{id} shows it."""
    metrics = version.models[0].metrics
    judged_on = _judged_on(metrics)
    return VersionOut(
        version=version.name,
        map50=_judged(metrics, "map50"),
        map50_95=_judged(metrics, "map50_95"),
        judged_on=judged_on,
        labels=version.snapshot.learned_tasks,
        images=version.snapshot.learned_tasks,
        boxes=judged_on.boxes if metrics else None,
        temperature=version.models[0].temperature,
        created=version.created,
        promoted=version.promoted,
        reason=version.reason,
        tags=[_tag_out(model) for model in version.models],
    )


def _tag_out(model: TagModel) -> TagOut:
    return TagOut(
        tag=model.from_name,
        task=model.task,
        map50=_judged(model.metrics, "map50"),
        judged_on=_judged_on(model.metrics),
        temperature=model.temperature,
        carried=model.carried,
        reason=model.reason,
    )


def _judged(metrics: Metrics | None, name: str) -> Any:
    """Return a quality or an interval, None where too few images were held out."""
    return getattr(metrics, name) if basis.is_judged(metrics) else None


def _judged_on(metrics: Metrics | None) -> JudgedOnOut:
    images = basis.held_out_images(metrics)
    return JudgedOnOut(
        images=images,
        boxes=metrics.boxes if metrics and images else 0,
        interval=_judged(metrics, "interval"),
        interval_50_95=_judged(metrics, "interval_50_95"),
        quality=basis.in_words(metrics),
    )


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
