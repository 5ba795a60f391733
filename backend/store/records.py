"""The JSON files of the store: what they hold, how they are read, and what is said when one is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from backend.errors import ModelError
from backend.evaluation.label_quality import LabelIssue, Thresholds
from backend.model_versions import Metrics, ModelVersion
from backend.sampling.bandit import Reward
from backend.sampling.stream_admission import StreamState
from backend.storage import Files


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """What Label Studio told us of a project with its last /setup."""

    project_id: int
    label_config: str
    extra_params: str  # JSON text as LS sent it
    hostname: str
    backend_url: str
    configured: str  # hash of what `configure` last did, "" = not yet


@dataclass(frozen=True, slots=True)
class PoolSigns:
    """What the pool, as one tag of a version has scored it, says of stopping; None: not measured."""

    version: int
    uncertainty: float | None
    stability: float | None
    tag: str  # its name in the store


@dataclass(frozen=True, slots=True)
class PoolKeys:
    """What the stored answers of a version depend on, a hash for each tag by its name in the store."""

    by_tag: Mapping[str, str]
    outdated: bool = False  # predictions in Label Studio may still be those made with other keys
    pushed: bool = True  # False: a scoring has begun since the last push


class _File(BaseModel):
    # NaN and infinity (a metric of an absent class) must survive the round trip.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def encode(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


class _FirstFormat(_File):
    format: Literal[1] = 1


class ManifestFile(_File):
    format: Literal[2] = 2  # 1: the first tag's model stood on the version itself, see `migration`
    version: ModelVersion

    def encode(self) -> bytes:
        # What a tag is called today depends on the label config, and a manifest never changes.
        return self.model_dump_json(indent=1, exclude={"version": {"stored_names"}}).encode()


class ProjectFile(_FirstFormat):
    project: ProjectRecord


class PointerFile(_FirstFormat):
    number: int
    chosen: bool = False  # somebody rolled back to it


class StreamFile(_FirstFormat):
    stream: StreamState


class RewardsFile(_FirstFormat):
    rewards: tuple[Reward, ...]


class SignsFile(_FirstFormat):
    signs: tuple[PoolSigns, ...]


class PoolKeysFile(_FirstFormat):
    keys: PoolKeys


class ReviewFile(_FirstFormat):
    """A `Review`; files of earlier releases lack what tells which labels need not be judged again."""

    doubts: tuple[LabelIssue, ...]
    reviewed: dict[int, str] | None = None
    shards: tuple[int, ...] = ()
    thresholds: dict[str, Thresholds] = {}
    rules: str = ""


class MarksFile(_FirstFormat):
    tasks: tuple[int, ...]


F = TypeVar("F", bound=_File)


def with_basis(version: ModelVersion) -> ModelVersion:
    """Return a version whose metrics say where they are of learned images; manifests from before do not."""
    snapshot = version.snapshot
    if snapshot.val_tasks and set(snapshot.val_tasks).isdisjoint(snapshot.train_tasks):
        return version

    def told(metrics: Metrics | None) -> Metrics | None:
        return metrics if metrics is None or metrics.held_out is not None else replace(metrics, held_out=False)

    return replace(version, models=tuple(replace(model, metrics=told(model.metrics)) for model in version.models))


def load(files: Files, kind: type[F], path: str, *, fix: str) -> F | None:
    """Return the content of a JSON file, None where there is none; raises ModelError for a damaged file."""
    try:
        with files.open(path) as file:
            data = file.read()
    except FileNotFoundError:
        return None
    return decode(kind, data, where=files.where(path), fix=fix)


def decode(kind: type[F], data: bytes, *, where: str, fix: str) -> F:
    """Return the content of a JSON file; raises ModelError naming the file if it is not what it should be."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"damaged file: {place} {first['msg']}".replace("  ", " "), where=where, fix=fix) from error


def version_name(base_model: str, number: int) -> str:
    """Return a version's name, the same string everywhere; number 0 is the base model itself.

    >>> version_name("yolo11n.pt", 3)
    'yolo11n-v3'
    """
    return f"{Path(base_model).stem}-v{number}"
