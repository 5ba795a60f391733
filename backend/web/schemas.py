"""What Label Studio and people send and get: pydantic models; unknown fields are ignored, missing ones named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from backend.evaluation import basis
from backend.evaluation.label_quality import LabelIssue, by_task
from backend.loop.projects import Status
from backend.model_versions import Metrics, ModelVersion, TagModel
from backend.sampling.bandit import Reward
from backend.types import Json

MAX_TASKS = 10_000  # LS's largest request is "Retrieve predictions" on all tasks of a project
LARGEST_ID = 2**63 - 1  # of an id in a database


def _project_id(value: object) -> object:
    """Label Studio names a project "<id>.<created timestamp>", or gives its whole object."""
    if isinstance(value, dict):
        value = value.get("id")
    return value.split(".")[0] or None if isinstance(value, str) else value


ProjectId = Annotated[int, Field(ge=1, le=LARGEST_ID), BeforeValidator(_project_id)]
MaybeProjectId = Annotated[ProjectId | None, BeforeValidator(_project_id)]


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore")


class SetupRequest(_Incoming):
    project: ProjectId
    schema_: str = Field(alias="schema")  # the label config
    hostname: str = ""
    extra_params: str | Json | None = None

    @property
    def extra_text(self) -> str:
        """The extra params as text; Label Studio sends text or an object, by the way they were written."""
        return json.dumps(self.extra_params) if isinstance(self.extra_params, dict) else self.extra_params or ""


class PredictTask(_Incoming):
    id: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = None
    data: Json | None  # null fails for its own task alone


class PredictRequest(_Incoming):
    tasks: Annotated[list[PredictTask], Field(max_length=MAX_TASKS)]
    label_config: str
    project: MaybeProjectId = None


class WebhookRequest(_Incoming):
    action: str
    project: ProjectId


class TrainRequest(_Incoming):
    project: ProjectId


class PredictionOut(BaseModel):
    result: list[Json]
    score: float
    model_version: str


class PredictResponse(BaseModel):
    results: list[PredictionOut]
    model_version: str


class CountsOut(BaseModel):
    tasks: int
    labeled: int
    new: int


class TrainingOut(BaseModel):
    state: str
    stage: str
    progress: float
    eta_s: float | None
    error: str
    epoch: int
    epochs: int
    losses: dict[str, float]


class JudgedOnOut(BaseModel):
    """What map50 and map50_95 were measured on."""

    images: int  # that the model has not learned from
    boxes: int
    interval: tuple[float, float] | None  # of map50, 95%; null: it is not judged yet
    interval_50_95: tuple[float, float] | None  # of map50_95
    quality: str  # all of it in words


class TagOut(BaseModel):
    tag: str
    task: str
    map50: float | None  # null: it has no model yet, or one that is not judged
    judged_on: JudgedOnOut
    temperature: float
    carried: bool
    reason: str


class VersionOut(BaseModel):
    version: str
    map50: float | None  # null: it is not judged yet
    map50_95: float | None
    judged_on: JudgedOnOut
    labels: int  # the tasks that it was trained and judged with
    images: int  # the same, as it was called before
    boxes: int | None  # judged_on.boxes, as it was called before
    temperature: float  # of its confidences, 1: as they are
    created: datetime
    promoted: bool
    reason: str
    tags: list[TagOut]


class ScoringOut(BaseModel):
    done: int
    total: int


class SignOut(BaseModel):
    name: str
    met: bool
    reason: str


class StoppingOut(BaseModel):
    stop: bool
    signs: list[SignOut]


class ArmOut(BaseModel):
    strategy: str
    rounds: int
    mean: float


class RewardOut(BaseModel):
    version: int
    strategy: str
    images: int
    boxes: int
    gain: float | None  # null: it is not known to be judged on enough images
    disagreement: float | None
    judged_on: int
    interval: tuple[float, float] | None  # of gain, 95%


class BanditOut(BaseModel):
    method: str
    arms: list[ArmOut]
    history: list[RewardOut]


class LabelErrorsOut(BaseModel):
    judged: int
    suspicious: int


class LabelErrorOut(BaseModel):
    task: int
    tag: str
    annotation: int
    score: float
    suspicious: bool
    suspicion: str
    label: str
    box: tuple[float, float, float, float] | None
    learned: bool


class StudioOut(BaseModel):
    reached: str
    error: str
    webhook: str
    sampling: str
    rivals: str
    warnings: list[str]


class ProjectOut(BaseModel):
    project: int
    version: str
    counts: CountsOut | None
    retrain_every: int
    strategy: str
    training: TrainingOut
    versions: list[VersionOut]
    scoring: ScoringOut
    failures: dict[int, str]
    ranking_error: str
    warnings: list[str]
    stopping: StoppingOut
    bandit: BanditOut
    label_errors: LabelErrorsOut
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
        label_studio=StudioOut(**_fields(status.label_studio), warnings=list(status.label_studio.warnings)),
    )


def _reward_out(reward: Reward) -> RewardOut:
    judged = reward.judged_on >= basis.MIN_JUDGED_IMAGES
    return RewardOut(**_fields(reward) | ({} if judged else {"gain": None, "interval": None}))


def _label_errors_out(issues: Sequence[LabelIssue]) -> LabelErrorsOut:
    tasks = by_task(issues)
    return LabelErrorsOut(judged=len(tasks), suspicious=sum(issue.suspicious for issue in tasks))


def label_error_out(issue: LabelIssue) -> LabelErrorOut:
    """Return a verdict as GET /api/projects/{id}/label-errors shows it."""
    return LabelErrorOut(
        task=issue.task_id,
        tag=issue.tag,
        annotation=issue.annotation_id,
        score=issue.score,
        suspicious=issue.suspicious,
        suspicion=issue.suspicion,
        label=issue.label,
        box=issue.box,
        learned=issue.learned,
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
