"""The JSON files of the store: their content, how they are read, and the error for a damaged file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from backend.errors import ModelError
from backend.evaluation.annotators import TaskAgreement
from backend.evaluation.effort import AnnotationEffort
from backend.evaluation.held_out_report import EvaluationReport
from backend.evaluation.judged_images import PictureAnswers
from backend.evaluation.label_quality import LabelIssue, Thresholds
from backend.evaluation.prompt_precision import PromptPrecision
from backend.model_versions import Metrics, ModelVersion
from backend.sampling.bandit import Reward
from backend.sampling.pins import Pins
from backend.sampling.stream_admission import StreamState
from backend.storage import Files


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project as Label Studio described it in its last /setup request."""

    project_id: int
    label_config: str
    extra_params: str  # JSON text as LS sent it
    hostname: str
    backend_url: str
    configured: str  # hash of what `configure` last wrote into Label Studio, "" = nothing yet


@dataclass(frozen=True, slots=True)
class PoolSigns:
    """The signs of stopping from a version's scored pool, for one control tag; None: not measured."""

    version: int
    uncertainty: float | None
    stability: float | None
    tag: str  # name of the tag in the store


@dataclass(frozen=True, slots=True)
class PoolKeys:
    """Everything on which the stored predictions of a version depend, as a hash per tag, by its name in the store."""

    by_tag: Mapping[str, str]
    outdated: bool = False  # predictions in Label Studio may still have been made with other keys
    pushed: bool = True  # False: a scoring has begun since the last push


class _File(BaseModel):
    # NaN and infinity (a metric of an absent class) must survive the round trip.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def encode(self) -> bytes:
        """Return the content of the JSON file."""
        return self.model_dump_json(indent=1).encode()


class _FirstFormat(_File):
    format: Literal[1] = 1


class ManifestFile(_File):
    """The manifest of a version."""

    format: Literal[2] = 2  # 1: the first tag's model stood on the version itself, see `migration`
    version: ModelVersion

    def encode(self) -> bytes:
        """Return the content of the JSON file, without the names that tags have got since the training.

        Those depend on the label config, and a manifest never changes.
        """
        return self.model_dump_json(indent=1, exclude={"version": {"stored_names"}}).encode()


class ProjectFile(_FirstFormat):
    """The record of a project."""

    project: ProjectRecord


class PointerFile(_FirstFormat):
    """One state of a pointer to a version."""

    number: int
    chosen: bool = False  # somebody rolled back to it


class StreamFile(_FirstFormat):
    """The state of stream admission."""

    stream: StreamState


class RewardsFile(_FirstFormat):
    """The rewards of the bandit."""

    rewards: tuple[Reward, ...]


class SignsFile(_FirstFormat):
    """The signs of stopping."""

    signs: tuple[PoolSigns, ...]


class PoolKeysFile(_FirstFormat):
    """The keys of a version's stored predictions."""

    keys: PoolKeys


class ReviewFile(_FirstFormat):
    """A `Review`; files of earlier releases lack the fields that tell which labels need not be judged again."""

    doubts: tuple[LabelIssue, ...]
    reviewed: dict[int, str] | None = None
    shards: tuple[int, ...] = ()
    thresholds: dict[str, Thresholds] = {}
    rules: str = ""


class ReportFile(_FirstFormat):
    """The report of a model's evaluation."""

    report: EvaluationReport


class PicturesFile(_FirstFormat):
    """A model's answers on the held-out images."""

    pictures: tuple[PictureAnswers, ...]


class MarksFile(_FirstFormat):
    """The tasks whose prediction carries a label-quality score."""

    tasks: tuple[int, ...]


class PromptPrecisionFile(_FirstFormat):
    """How good the pre-annotations were that prompts made before the first training."""

    labels: tuple[PromptPrecision, ...]


class BlankTasksFile(_FirstFormat):
    """The tasks that a version hands out without its regions."""

    tasks: tuple[int, ...]


class EffortFile(_FirstFormat):
    """How the annotations of a project came about."""

    stamps: dict[int, str]
    efforts: tuple[AnnotationEffort, ...]
    agreements: tuple[TaskAgreement, ...] = ()


class AgreementsFile(_FirstFormat):
    """The agreements of an EffortFile alone, which is read in a quarter of the time."""

    model_config = ConfigDict(extra="ignore")

    agreements: tuple[TaskAgreement, ...] = ()


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One thing that a person did to a project."""

    key: str  # of this entry alone
    at: datetime  # in UTC
    who: str
    action: str  # "pause", "resume", "pin", "strategy", "promote", "rollback", "accept label", "train"
    project_id: int
    text: str


class JournalFile(_FirstFormat):
    """What people did, oldest first."""

    entries: tuple[JournalEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused the loop, and when (UTC)."""

    who: str
    since: datetime


class SteeringFile(_FirstFormat):
    """How people steer a project: whether the loop is paused, and which tasks are pinned."""

    pause: Pause | None = None
    pins: Pins = Pins()


@dataclass(frozen=True, slots=True)
class AcceptedLabel:
    """A label that somebody called right; another `updated_at` is another label."""

    annotation_id: int
    updated_at: str
    tag: str  # name of the control tag


class AcceptedLabelsFile(_FirstFormat):
    """The labels that people called right."""

    labels: tuple[AcceptedLabel, ...] = ()


F = TypeVar("F", bound=_File)


def with_basis(version: ModelVersion) -> ModelVersion:
    """Return the version with `held_out` set in all metrics; manifests of earlier releases lack the field."""
    snapshot = version.snapshot
    if snapshot.val_tasks and set(snapshot.val_tasks).isdisjoint(snapshot.train_tasks):
        return version

    def with_held_out(metrics: Metrics | None) -> Metrics | None:
        """Return the metrics with `held_out` set."""
        return metrics if metrics is None or metrics.held_out is not None else replace(metrics, held_out=False)

    models = tuple(replace(model, metrics=with_held_out(model.metrics)) for model in version.models)
    return replace(version, models=models)


def load(files: Files, kind: type[F], path: str, *, fix: str) -> F | None:
    """Return the content of a JSON file, None where there is none; raises ModelError for a damaged file."""
    try:
        with files.open(path) as file:
            data = file.read()
    except FileNotFoundError:
        return None
    return decode(kind, data, where=files.where(path), fix=fix)


def decode(kind: type[F], data: bytes, *, where: str, fix: str) -> F:
    """Return the content of a JSON file. Raises ModelError naming the file if it is damaged."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"damaged file: {place} {first['msg']}".replace("  ", " "), where=where, fix=fix) from error


def version_name(base_model: str, number: int) -> str:
    """Return the name of a version, the same string everywhere; number 0 is the base model.

    >>> version_name("yolo11n.pt", 3)
    'yolo11n-v3'
    """
    return f"{Path(base_model).stem}-v{number}"
