"""The model store: projects, their versions, scored pools and rankings, under a folder or an fsspec URL.

secret                                   shared by webhooks and our own calls
projects/<id>/project.json               what Label Studio told us
projects/<id>/current.json               the newest accepted version, or the one rolled back to
projects/<id>/serving.json               the version whose predictions Label Studio's queue shows
projects/<id>/stream.json                what the stream rule remembers
projects/<id>/rewards.json               what each round of labels gained, for the bandit
projects/<id>/signs.json                 what each scored pool says of stopping
projects/<id>/versions/<n>/reserved      makes a number ours; stays, so that no number is used twice
projects/<id>/versions/<n>/{weights.pt, manifest.json, pool-*.npz, ranking.npz}
projects/<id>/versions/<n>/votes-*.npz   what a committee says of the pool
projects/<id>/versions/<n>/labeled/      what the version says of images that have labels
projects/<id>/versions/<n>/label_errors.json  which of those labels it doubts

A version without a manifest does not exist: the manifest is written last.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import TypeVar

from backend import manifest
from backend.bandit import Reward
from backend.errors import ModelError, NotFoundError
from backend.files import file_sha256, open_files
from backend.label_errors import LabelDoubt
from backend.manifest import (
    DoubtsFile,
    ManifestFile,
    PointerFile,
    PoolSigns,
    ProjectFile,
    ProjectRecord,
    RewardsFile,
    SignsFile,
    StreamFile,
    version_name,
)
from backend.pool_store import PoolStore
from backend.shards import PoolShard
from backend.stream import StreamState
from backend.types import Committee, FloatArray, IntArray, ModelVersion, Pool, Prediction, Ranking

__all__ = ["PoolShard", "PoolSigns", "ProjectRecord", "Store", "version_name"]

_RESTORE = "restore the file from a backup, or delete it"
_FORGET = "delete the file: what it tells is then forgotten, and gathered anew"
_LABELED = "labeled"
_ROLL_BACK = "roll back to another version (yolo-backend rollback), or restore the file from a backup"

F = TypeVar("F", ManifestFile, PointerFile, ProjectFile, StreamFile, RewardsFile, SignsFile, DoubtsFile)


class Store:
    """Everything that outlives a process, but labels (Label Studio's) and jobs (redis's)."""

    def __init__(self, root: str, cache: Path | None = None) -> None:
        """Open the store under `root`; `cache` is where weights of a remote root are kept for loading."""
        self._files = open_files(root, cache or Path.home() / ".cache" / "yolo-backend")
        self._pools = PoolStore(self._files)
        self._manifests: dict[tuple[int, int], ModelVersion] = {}  # a manifest never changes

    def secret(self) -> str:
        """Return this installation's secret, made at the first call; the same for all processes."""
        try:
            return self._read_secret()
        except FileNotFoundError:  # asked for at every webhook, so only the first call pays for a write to disk
            self._files.create("secret", secrets.token_urlsafe(32).encode())
            return self._read_secret()

    def _read_secret(self) -> str:
        with self._files.open("secret") as file:
            return file.read().decode()

    # Projects

    def save_project(self, record: ProjectRecord) -> None:
        self._files.write(f"{_project(record.project_id)}/project.json", ProjectFile(project=record).encode())

    def project(self, project_id: int) -> ProjectRecord | None:
        """Return what is known of a project, None if it was never set up; raises ModelError for a damaged file."""
        found = self._read(ProjectFile, f"{_project(project_id)}/project.json", fix=_RESTORE)
        return found.project if found else None

    def project_ids(self) -> tuple[int, ...]:
        """Return the projects that were set up, ascending."""
        return tuple(n for n in self._numbers("projects") if "project.json" in self._files.entries(_project(n)))

    # Versions

    def reserve_number(self, project_id: int) -> int:
        """Return a version number, from 1, that nobody had before and nobody else will get."""
        number = max(self._numbers(f"{_project(project_id)}/versions"), default=0) + 1
        while not self._files.create(f"{_version(project_id, number)}/reserved", b""):
            number += 1
        return number

    def publish(self, version: ModelVersion, weights: Path) -> None:
        """Keep a version, and make it the current one if it was promoted; of a rejected one only the manifest is kept.

        Publishing the same version twice changes nothing. Raises ModelError if the weights are not the manifest's, or
        if the number holds another version.
        """
        version = replace(version, created=version.created.astimezone(UTC))
        folder = _version(version.project_id, version.number)
        data = ManifestFile(version=version).encode()
        known = self._manifest(version.project_id, version.number)
        if known is not None and ManifestFile(version=known).encode() != data:  # as text: NaN is not equal to itself
            raise ModelError(f"{known.name} is published already", where=folder, fix="reserve another number")
        if file_sha256(weights) != version.sha256:
            raise ModelError("weights do not have the sha256 of their manifest", where=str(weights), fix="train again")
        if version.promoted:
            self._files.put(weights, f"{folder}/weights.pt")
        self._files.write(f"{folder}/manifest.json", data)
        if version.promoted:
            self._point("current", version.project_id, version.number)

    def versions(self, project_id: int) -> tuple[ModelVersion, ...]:
        """Return all published versions, rejected ones too, by number; raises ModelError for a damaged manifest."""
        numbers = self._numbers(f"{_project(project_id)}/versions")
        found = (self._manifest(project_id, number) for number in numbers)
        return tuple(version for version in found if version is not None)

    def version(self, project_id: int, number: int) -> ModelVersion:
        """Return a published version; raises NotFoundError, or ModelError for a damaged manifest."""
        found = self._manifest(project_id, number)
        if found is None:
            known = ", ".join(str(version.number) for version in self.versions(project_id)) or "none yet"
            raise NotFoundError(f"project {project_id} has no version {number}", fix=f"published versions: {known}")
        return found

    def current(self, project_id: int) -> ModelVersion | None:
        """Return the version that the next training competes with: the newest promoted, or the one rolled back to."""
        number = self._pointed("current", project_id)
        return self.version(project_id, number) if number else None

    def rollback(self, project_id: int, number: int) -> ModelVersion:
        """Make an earlier version the current one; raises NotFoundError, or ModelError if it cannot serve."""
        version = self.version(project_id, number)
        if not version.promoted:
            raise ModelError(
                f"{version.name} was never promoted: {version.reason}", fix="roll back to a promoted version"
            )
        self.weights(version)
        self._point("current", project_id, number)
        return version

    def serving(self, project_id: int) -> ModelVersion | None:
        """Return the version whose predictions the queue shows, None: the base model."""
        number = self._pointed("serving", project_id)
        return self.version(project_id, number) if number else None

    def activate(self, project_id: int, number: int) -> None:
        """Make a version (0: the base model) the serving one; raises NotFoundError for one that is not published."""
        if number:
            self.version(project_id, number)
        self._point("serving", project_id, number)

    def weights(self, version: ModelVersion) -> Path:
        """Return a local file of a version's weights, checked against the manifest; raises ModelError."""
        expected = self.version(version.project_id, version.number).sha256
        path = f"{_version(version.project_id, version.number)}/weights.pt"
        where = self._files.where(path)
        try:
            local = self._files.local(path, expected)
        except FileNotFoundError as error:
            raise ModelError(f"weights of {version.name} are missing", where=where, fix=_ROLL_BACK) from error
        if file_sha256(local) != expected:
            raise ModelError(f"weights of {version.name} are damaged: wrong sha256", where=where, fix=_ROLL_BACK)
        return local

    def prune(self, project_id: int, keep: int) -> None:
        """Delete weights, pools and rankings of all but the newest `keep` promoted versions.

        Manifests stay, and so does all of the current and of the serving version.
        """
        versions = self.versions(project_id)
        promoted = [version.number for version in versions if version.promoted]
        pointers = {self._pointed(name, project_id) for name in ("current", "serving")}
        kept = pointers | set(promoted[max(len(promoted) - keep, 0) :])
        newest = max((version.number for version in versions), default=0)
        for number in self._numbers(f"{_project(project_id)}/versions"):
            if number not in kept and number < newest:  # a higher number is a training under way
                folder = _version(project_id, number)
                self._pools.clear(f"{folder}/{_LABELED}")
                for name in self._files.entries(folder):
                    if name not in ("manifest.json", "reserved", _LABELED):
                        self._files.remove(f"{folder}/{name}")

    # Scored pools and rankings; number 0 is the base model

    def save_shard(self, project_id: int, number: int, shard: PoolShard, *, labeled: bool = False) -> None:
        """Keep one scored shard of the pool or of the labeled tasks, replacing the one with the same index."""
        self._pools.save_shard(_scored(project_id, number, labeled), shard)

    def save_votes(self, project_id: int, number: int, index: int, task_ids: IntArray, votes: Committee) -> None:
        """Keep what a committee says of one shard of the pool."""
        self._pools.save_votes(_version(project_id, number), index, task_ids, votes)

    def votes(self, project_id: int, number: int) -> Iterator[tuple[IntArray, Committee]]:
        """Yield the tasks (k,) and the votes of each shard; raises ModelError naming a damaged file."""
        return self._pools.votes(_version(project_id, number))

    def next_shard(self, project_id: int, number: int) -> int:
        """Return an index above those of all stored shards."""
        return self._pools.next_shard(_version(project_id, number))

    def clear_shards(self, project_id: int, number: int) -> None:
        """Delete what a version said of the pool and of labeled tasks, and the ranking made of it."""
        for labeled in (False, True):
            self._pools.clear(_scored(project_id, number, labeled))

    def load_pool(
        self,
        project_id: int,
        number: int,
        class_weights: FloatArray | None,
        *,
        box_embeddings: bool = False,
        labeled: bool = False,
    ) -> tuple[Pool, tuple[int, ...]]:
        """Return the scored pool, or the labeled tasks, each task once, and the tasks that failed.

        Of a task in several shards the one written last counts. Raises ModelError naming a damaged shard, BusyError if
        the pool is rewritten meanwhile.
        """
        folder = _scored(project_id, number, labeled)
        return self._pools.load_pool(folder, class_weights, box_embeddings=box_embeddings)

    def shards(self, project_id: int, number: int, *, labeled: bool = False) -> Iterator[PoolShard]:
        """Yield the scored pool, or the labeled tasks, each once, a shard at a time; raises as `load_pool`."""
        return self._pools.shards(_scored(project_id, number, labeled))

    def prediction(self, project_id: int, number: int, task_id: int, *, labeled: bool = False) -> Prediction | None:
        """Return what a version predicted for a task, None if it was not scored or failed; raises as `load_pool`.

        `labeled` asks for what it predicted when the task had labels already.
        """
        found = self._pools.find(_scored(project_id, number, labeled), task_id)
        return found[0].prediction(found[1]) if found else None

    def save_ranking(self, project_id: int, number: int, ranking: Ranking) -> None:
        """Keep a version's ranking, replacing the one before."""
        self._pools.save_ranking(_version(project_id, number), ranking)

    def ranking(self, project_id: int, number: int) -> Ranking | None:
        """Return a version's ranking, None if there is none; raises ModelError for a damaged file."""
        return self._pools.ranking(_version(project_id, number))

    # What the rounds so far taught; small files, each written by one job at a time

    def stream(self, project_id: int) -> StreamState:
        """Return what the stream rule remembers, a fresh state if nothing."""
        found = self._read(StreamFile, f"{_project(project_id)}/stream.json", fix=_FORGET)
        return found.stream if found else StreamState()

    def save_stream(self, project_id: int, state: StreamState) -> None:
        self._files.write(f"{_project(project_id)}/stream.json", StreamFile(stream=state).encode())

    def rewards(self, project_id: int) -> tuple[Reward, ...]:
        """Return what the labels of each round gained, by version."""
        found = self._read(RewardsFile, f"{_project(project_id)}/rewards.json", fix=_FORGET)
        return found.rewards if found else ()

    def save_reward(self, project_id: int, reward: Reward) -> None:
        """Keep a version's reward, replacing the one before."""
        others = [one for one in self.rewards(project_id) if one.version != reward.version]
        rewards = tuple(sorted([*others, reward], key=lambda one: one.version))
        self._files.write(f"{_project(project_id)}/rewards.json", RewardsFile(rewards=rewards).encode())

    def signs(self, project_id: int) -> tuple[PoolSigns, ...]:
        """Return what the scored pools say of stopping, by version."""
        found = self._read(SignsFile, f"{_project(project_id)}/signs.json", fix=_FORGET)
        return found.signs if found else ()

    def save_signs(self, project_id: int, signs: PoolSigns) -> None:
        """Keep what a version's pool says, replacing what it said before."""
        others = [one for one in self.signs(project_id) if one.version != signs.version]
        kept = tuple(sorted([*others, signs], key=lambda one: one.version))
        self._files.write(f"{_project(project_id)}/signs.json", SignsFile(signs=kept).encode())

    def doubts(self, project_id: int, number: int) -> tuple[LabelDoubt, ...]:
        """Return what a version thinks of the labels, worst first; nothing before its first review."""
        found = self._read(DoubtsFile, f"{_version(project_id, number)}/label_errors.json", fix=_FORGET)
        return found.doubts if found else ()

    def save_doubts(self, project_id: int, number: int, doubts: tuple[LabelDoubt, ...]) -> None:
        """Keep what a version thinks of the labels, replacing what it thought before."""
        self._files.write(f"{_version(project_id, number)}/label_errors.json", DoubtsFile(doubts=doubts).encode())

    # Inside

    def _manifest(self, project_id: int, number: int) -> ModelVersion | None:
        if (project_id, number) not in self._manifests:
            found = self._read(ManifestFile, f"{_version(project_id, number)}/manifest.json", fix=_ROLL_BACK)
            if found is None:
                return None
            self._manifests[project_id, number] = found.version
        return self._manifests[project_id, number]

    def _point(self, name: str, project_id: int, number: int) -> None:
        self._files.write(f"{_project(project_id)}/{name}.json", PointerFile(number=number).encode())

    def _pointed(self, name: str, project_id: int) -> int:
        found = self._read(PointerFile, f"{_project(project_id)}/{name}.json", fix=_ROLL_BACK)
        return found.number if found else 0

    def _read(self, kind: type[F], path: str, *, fix: str) -> F | None:
        try:
            with self._files.open(path) as file:
                data = file.read()
        except FileNotFoundError:
            return None
        return manifest.decode(kind, data, where=self._files.where(path), fix=fix)

    def _numbers(self, folder: str) -> list[int]:
        return sorted(int(name) for name in self._files.entries(folder) if name.isdecimal())


def _project(project_id: int) -> str:
    return f"projects/{project_id}"


def _scored(project_id: int, number: int, labeled: bool) -> str:
    return f"{_version(project_id, number)}/{_LABELED}" if labeled else _version(project_id, number)


def _version(project_id: int, number: int) -> str:
    return f"projects/{project_id}/versions/{number}"
