"""The model store: projects, their versions, scored pools and rankings, under a folder or an fsspec URL.

A version without a manifest does not exist: the manifest is written last. `paths` names the files.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from types import MappingProxyType

from backend.errors import BusyError, ModelError, NotFoundError
from backend.model_versions import ModelVersion
from backend.storage import file_sha256
from backend.store import records
from backend.store.evaluations import Evaluations, StoredEvaluation
from backend.store.guarded_files import check, open_store_files
from backend.store.migration import migrate, migrate_project
from backend.store.paths import (
    ANSWERS,
    ASIDE,
    LABELED,
    REPORT,
    TAGS,
    manifest_file,
    numbers_in,
    project_folder,
    version_folder,
    version_folders,
    versions_folder,
    weights_file,
)
from backend.store.pointers import FencingTokens, Pointers
from backend.store.pool_maps import PoolMaps
from backend.store.project_state import ProjectState
from backend.store.records import (
    ManifestFile,
    PoolKeys,
    PoolSigns,
    ProjectFile,
    ProjectRecord,
    version_name,
    with_basis,
)
from backend.store.scored_pools import ScoredPools
from backend.store.shard_codec import PoolShard
from backend.store.steering_state import Journal, SteeringState

__all__ = ["PoolKeys", "PoolShard", "PoolSigns", "ProjectRecord", "Store", "StoredEvaluation", "version_name"]

_KEPT = ("manifest.json", "reserved", LABELED, TAGS, REPORT, ANSWERS)  # of a version that is pruned
_RESTORE = "restore the file from a backup, or delete it"
_ROLL_BACK = "roll back to another version (yolo-backend rollback), or restore the file from a backup"
_NO_EVALUATIONS: Mapping[str, StoredEvaluation] = MappingProxyType({})


class Store:
    """All persistent data except labels, which Label Studio keeps, and jobs, which redis keeps."""

    def __init__(self, root: str, cache: Path | None = None) -> None:
        """Open the store under `root`; `cache` is the folder for local copies of a remote root's weights.

        A store of an earlier release gets the current layout before its first use.
        """
        self._root, self._cache = root, cache or Path.home() / ".cache" / "yolo-backend"
        self.files = open_store_files(root, self._cache, migrate)
        self.state = ProjectState(self.files)
        self.steering = SteeringState(self.files)
        self.journal = Journal(self.files)
        self.pointers = Pointers(self.files)
        self.tokens = FencingTokens(self.files)
        self.pools = ScoredPools(self.files)
        self.evaluations = Evaluations(self.files)
        self.maps = PoolMaps(self.files)
        self._manifests: dict[tuple[int, int], ModelVersion] = {}  # a manifest never changes

    def check(self) -> None:
        """Write and remove a file. Raises StoreError with the cure if MODEL_DIR cannot be used.

        Nothing is migrated: another run, of an earlier release, may be using the store, and this run will be refused.
        """
        check(open_store_files(self._root, self._cache))

    def fetch(self, path: str, folder: Path) -> None:
        """Copy a file that the admin put into a remote MODEL_DIR, such as base weights, into a local folder."""
        self.files.fetch(path, folder / path)

    def secret(self) -> str:
        """Return this installation's secret, the same for all processes; the first call creates it."""
        try:
            return self._read_secret()
        except FileNotFoundError:  # not created in advance: every webhook reads it, and a write to disk is slow
            self.files.create("secret", secrets.token_urlsafe(32).encode())
            return self._read_secret()

    def _read_secret(self) -> str:
        with self.files.open("secret") as file:
            return file.read().decode()

    # Projects

    def save_project(self, record: ProjectRecord) -> None:
        """Write a project's record, replacing the one before."""
        self.files.write(f"{project_folder(record.project_id)}/project.json", ProjectFile(project=record).encode())

    def project(self, project_id: int) -> ProjectRecord | None:
        """Return a project's record, None if it was never set up. Raises ModelError for a damaged file."""
        file = records.load(self.files, ProjectFile, f"{project_folder(project_id)}/project.json", fix=_RESTORE)
        return file.project if file else None

    def project_ids(self) -> tuple[int, ...]:
        """Return the ids of the projects that were set up, ascending."""
        return tuple(
            project_id
            for project_id in numbers_in(self.files, "projects")
            if "project.json" in self.files.entries(project_folder(project_id))
        )

    def put_aside(self, project_id: int) -> None:
        """Deactivate a project until Label Studio asks for it again; its record and versions stay in the store."""
        record = self.project(project_id)
        if record is not None:
            folder = project_folder(project_id)
            self.files.write(f"{folder}/{ASIDE}", ProjectFile(project=record).encode())
            self.files.remove(f"{folder}/project.json")

    # Versions

    def reserve_number(self, project_id: int) -> int:
        """Return a version number, from 1, that was never used and that no other caller gets."""
        number = max(numbers_in(self.files, versions_folder(project_id)), default=0) + 1
        while not self.files.create(f"{version_folder(project_id, number)}/reserved", b""):
            number += 1
        return number

    def skip_numbers(self, project_id: int, number: int) -> None:
        """Reserve this number and all below it: Label Studio knows versions with them, even if the store does not."""
        if number > max(numbers_in(self.files, versions_folder(project_id)), default=0):
            self.files.create(f"{version_folder(project_id, number)}/reserved", b"")

    def publish(
        self,
        version: ModelVersion,
        weights: Mapping[str, Path],
        evaluations: Mapping[str, StoredEvaluation] = _NO_EVALUATIONS,
    ) -> None:
        """Store a version, and make it the current one if it was promoted; a rejected version leaves no weights.

        `weights` maps the name of a tag to its file, `evaluations` to its evaluation; a tag may have none. Publishing
        the same version twice changes nothing. Raises ModelError if the weights are not those of the manifest, or if
        the number holds another version; BusyError if the version's parent is no longer the current version.
        """
        version = with_basis(replace(version, created=version.created.astimezone(UTC)))
        folder = version_folder(version.project_id, version.number)
        data = ManifestFile(version=version).encode()
        published = self._manifest(version.project_id, version.number)
        # Compared as text, because NaN != NaN.
        if published is not None and ManifestFile(version=published).encode() != data:
            raise ModelError(f"{published.name} is published already", where=folder, fix="reserve another number")
        parent = version.parent or 0
        if version.promoted:
            self.pointers.require("current", version.project_id, parent, version.number)
        for model in version.models:
            file = weights.get(model.from_name)
            if (file_sha256(file) if file else "") != model.sha256:
                problem = "weights do not have the sha256 of their manifest"
                raise ModelError(problem, where=str(file), fix="train again")
        for model in version.models if version.promoted else ():
            if file := weights.get(model.from_name):
                self.files.put(file, weights_file(version.project_id, version.number, model.from_name))
        for name, evaluation in evaluations.items():
            self.evaluations.save(version.project_id, version.number, name, evaluation)
        self.files.write(manifest_file(version.project_id, version.number), data)
        if not version.promoted:
            return
        try:
            self.pointers.point_on("current", version.project_id, parent, version.number)
        except BusyError:
            # another process published first, so this version must not exist
            self.files.remove(manifest_file(version.project_id, version.number))
            raise

    def versions(self, project_id: int) -> tuple[ModelVersion, ...]:
        """Return all versions, including rejected ones, by number. Raises ModelError for a damaged manifest."""
        numbers = numbers_in(self.files, versions_folder(project_id))
        for project, number in list(self._manifests):
            # MODEL_DIR was lost: a later version may get this number.
            if project == project_id and number not in numbers:
                del self._manifests[project, number]
        manifests = (self._manifest(project_id, number) for number in numbers)
        return tuple(version for version in manifests if version is not None)

    def version(self, project_id: int, number: int) -> ModelVersion:
        """Return a version. Raises NotFoundError, or ModelError for a damaged manifest."""
        version = self._manifest(project_id, number)
        if version is None:
            numbers = ", ".join(str(version.number) for version in self.versions(project_id)) or "none yet"
            raise NotFoundError(f"project {project_id} has no version {number}", fix=f"published versions: {numbers}")
        return version

    def current(self, project_id: int) -> ModelVersion | None:
        """Return the version that the next training competes with: the newest promoted, or the one rolled back to."""
        number = self.pointers.pointed("current", project_id)
        return self.version(project_id, number) if number else None

    def rollback(self, project_id: int, number: int) -> ModelVersion:
        """Make an earlier version the current one. Raises NotFoundError, or ModelError if it cannot serve."""
        version = self.version(project_id, number)
        if not version.promoted:
            raise ModelError(
                f"{version.name} was never promoted: {version.reason}", fix="roll back to a promoted version"
            )
        for model in version.models:
            if model.sha256:
                self.weights(version, model.from_name)
        self.pointers.point("current", project_id, number, chosen=True)
        return version

    def serving(self, project_id: int) -> ModelVersion | None:
        """Return the version whose predictions the queue shows, None: the base model."""
        number = self.pointers.pointed("serving", project_id)
        return self.version(project_id, number) if number else None

    def activate(self, project_id: int, number: int) -> None:
        """Make a version (0: the base model) the serving one. Raises NotFoundError for an unpublished version."""
        if number:
            self.version(project_id, number)
        self.pointers.point("serving", project_id, number)

    def shown(self, project_id: int) -> int | None:
        """Return the version that Label Studio's queue was last set to; None: not known."""
        return self.pointers.pointed("shown", project_id) if self.pointers.place("shown", project_id) else None

    def note_shown(self, project_id: int, number: int) -> None:
        """Record that Label Studio's queue was set to a version; this completes the push of the version."""
        if self.shown(project_id) != number:
            self.pointers.point("shown", project_id, number)

    def weights(self, version: ModelVersion, tag: str) -> Path:
        """Return a local file with a tag's weights, checked against the manifest. Raises ModelError if there is none.

        `tag` is the name in `version`; for a tag that was renamed since the training, it may be the new name.
        """
        key = version.key_of(tag)
        stored = self.version(version.project_id, version.number)
        expected = next((model.sha256 for model in stored.models if model.from_name == key), "")
        path = weights_file(version.project_id, version.number, key)
        where = self.files.where(path)
        if not expected:
            raise ModelError(f"{version.name} has no weights for {tag}", where=where, fix="train again")
        try:
            local = self.files.local(path, expected)
        except FileNotFoundError as error:
            raise ModelError(f"weights of {version.name} are missing", where=where, fix=_ROLL_BACK) from error
        if file_sha256(local) != expected:
            raise ModelError(f"weights of {version.name} are damaged: wrong sha256", where=where, fix=_ROLL_BACK)
        return local

    def prune(self, project_id: int, keep: int) -> None:
        """Delete the weights, pools and rankings of all versions except the newest `keep` promoted ones.

        All manifests and evaluations stay. The current version and the serving version stay complete.
        """
        versions = self.versions(project_id)
        promoted = [version.number for version in versions if version.promoted]
        in_use = {self.pointers.pointed(name, project_id) for name in ("current", "serving")}
        numbers_to_keep = in_use | set(promoted[max(len(promoted) - keep, 0) :])
        newest = max((version.number for version in versions), default=0)
        for number in numbers_in(self.files, versions_folder(project_id)):
            if number not in numbers_to_keep and number < newest:  # a higher number belongs to a training in progress
                self.pools.clear(project_id, number)
                for folder in version_folders(self.files, project_id, number):
                    for name in self.files.entries(folder):
                        if name not in _KEPT:
                            self.files.remove(f"{folder}/{name}")

    def _manifest(self, project_id: int, number: int) -> ModelVersion | None:
        if (project_id, number) not in self._manifests:
            file = self._read_manifest(project_id, number)
            if file is None:
                return None
            self._manifests[project_id, number] = with_basis(file.version)
        return self._manifests[project_id, number]

    def _read_manifest(self, project_id: int, number: int) -> ManifestFile | None:
        path = manifest_file(project_id, number)
        try:
            return records.load(self.files, ManifestFile, path, fix=_ROLL_BACK)
        except ModelError:
            migrate_project(self.files, project_id)  # it may come from a backup of an earlier release
            return records.load(self.files, ManifestFile, path, fix=_ROLL_BACK)
