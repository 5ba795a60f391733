"""Files under a root, a local folder or an fsspec URL; every write is atomic."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

_BESIDE_REMOTE = ".yolo-backend"
LOOK_S = 10.0  # least time between two checks of a remote file that has a local copy
_FRESH_NS = 50_000_000  # file times have ticks of some ms, so after such a recent change a second one may go unnoticed


class Files(Protocol):
    """The file system as the store uses it; paths are relative to the root, with slashes."""

    def where(self, path: str) -> str:
        """Return the full path, for messages."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; raises FileNotFoundError."""

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a file, atomically."""

    def create(self, path: str, data: bytes, *, shared: bool = False) -> bool:
        """Write a file unless it exists; return whether this call did. Unless `shared`, only its owner can read it."""

    def put(self, source: Path, path: str) -> None:
        """Copy a local file to `path`, atomically."""

    def move(self, source: str, path: str) -> None:
        """Move a file; a missing source is no error, because another process may have moved it."""

    def remove(self, path: str) -> None:
        """Delete a file; a missing one is no error."""

    def entries(self, folder: str) -> dict[str, str]:
        """Return name -> signature of a folder's entries; a signature changes with the content."""

    def stamp(self, path: str) -> object:
        """Return a value that changes with the folder's entries or the file; None: unknown, so read again."""

    def local(self, path: str, sha256: str) -> Path:
        """Return a local copy of a file, which may be cached by its sha256. Raises FileNotFoundError."""

    def fetch(self, path: str, target: Path) -> None:
        """Make `target` a copy of a file, or remove the copy if the file is gone; a local root needs no copies."""


def open_files(root: str, cache: Path) -> Files:
    """Return the files under `root`; `cache` keeps local copies of remote weights."""
    folder = local_root(root)
    if folder is not None:
        return LocalFiles(folder)
    system, path = fsspec.core.url_to_fs(root, use_listings_cache=False)
    return RemoteFiles(system, path, cache)


def local_root(root: str) -> Path | None:
    """Return the folder that a root names as a path, or as a URL like file:///srv/models; None for a remote root."""
    protocol, _ = fsspec.core.split_protocol(root)
    return Path(fsspec.core.url_to_fs(root)[1]) if protocol in (None, *LocalFileSystem.protocol) else None


def local_folder(root: str) -> Path:
    """Return the folder for caches and scratch files: a local root itself, else one in the working directory."""
    return local_root(root) or Path(_BESIDE_REMOTE).absolute()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal; cached while the file does not change.

    Weights are checked at every request, and hashing those of a large model takes a quarter of a second.
    """
    stat = path.stat()
    if time.time_ns() - stat.st_ctime_ns < _FRESH_NS:
        return _sha256(path)
    # Unlike the mtime, the ctime cannot be set by anybody.
    return _sha256_of(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime_ns))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=64)
def _sha256_of(path: Path, mark: tuple[int, ...]) -> str:  # noqa: ARG001 - the mark is part of the cache's key
    return _sha256(path)


class LocalFiles:
    """A local folder; files are written under a temporary name, synced and renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, path: str) -> str:
        """Return the full path."""
        return str(self._root / path)

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises FileNotFoundError."""
        return (self._root / path).open("rb")

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a file, by a rename."""
        with self._draft(path, 0o666) as (draft, file):
            file.write(data)
            _sync(file)
            draft.replace(self._root / path)

    def create(self, path: str, data: bytes, *, shared: bool = False) -> bool:
        """Write a file unless it exists, by a hard link; return whether this call created it."""
        with self._draft(path, 0o666 if shared else 0o600) as (draft, file):
            file.write(data)
            _sync(file)
            try:
                (self._root / path).hardlink_to(draft)  # unlike a rename it fails where the name is taken
            except FileExistsError:
                return False
        return True

    def put(self, source: Path, path: str) -> None:
        """Copy a local file to `path`, by a rename."""
        with self._draft(path, 0o666) as (draft, file):
            with source.open("rb") as original:
                shutil.copyfileobj(original, file, 1 << 20)
            _sync(file)
            draft.replace(self._root / path)

    def move(self, source: str, path: str) -> None:
        """Move a file by a rename; a missing source is no error."""
        old, new = self._root / source, self._root / path
        new.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            old.replace(new)
        _sync_folder(new.parent)
        _sync_folder(old.parent)

    def remove(self, path: str) -> None:
        """Delete a file; a missing one is no error."""
        (self._root / path).unlink(missing_ok=True)

    def entries(self, folder: str) -> dict[str, str]:
        """Return name -> inode, modification time and size."""
        signatures = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    stat = entry.stat()
                    signatures[entry.name] = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
        return signatures

    def stamp(self, path: str) -> object:
        """Return inode and modification time; None if the last change is too recent to tell a further one."""
        try:
            stat = (self._root / path).stat()
        except FileNotFoundError:
            return 0
        return None if time.time_ns() - stat.st_mtime_ns < _FRESH_NS else (stat.st_ino, stat.st_mtime_ns)

    def local(self, path: str, sha256: str) -> Path:  # noqa: ARG002 - the file is its own local copy
        """Return the path itself. Raises FileNotFoundError."""
        file_path = self._root / path
        if not file_path.is_file():
            raise FileNotFoundError(file_path)
        return file_path

    def fetch(self, path: str, target: Path) -> None:
        """Do nothing: the folder of the copies is the root itself."""

    @contextlib.contextmanager
    def _draft(self, path: str, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
        """Yield a new hidden file beside `path`; afterwards delete what is left of it, and sync the folder."""
        folder = (self._root / path).parent
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
                yield draft, file
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(folder)


class RemoteFiles:
    """An fsspec file system, usually an object store, in which an object appears whole or not at all."""

    def __init__(self, system: Any, root: str, cache: Path) -> None:
        self._system = system
        self._root = root.rstrip("/")
        self._cache = cache
        self._looked: dict[str, float] = {}  # path -> when the file was last compared with its copy

    def where(self, path: str) -> str:
        """Return the full URL."""
        return str(self._system.unstrip_protocol(f"{self._root}/{path}"))

    def open(self, path: str) -> BinaryIO:
        """Read a file into memory. Raises FileNotFoundError."""
        return io.BytesIO(self._system.cat_file(f"{self._root}/{path}"))

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a file in one request."""
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(f"{self._root}/{path}", data)

    def create(self, path: str, data: bytes, *, shared: bool = False) -> bool:  # noqa: ARG002 - the store has its own rights
        """Write a file unless it exists; return whether this call created it."""
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        try:
            self._system.pipe_file(f"{self._root}/{path}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, source: Path, path: str) -> None:
        """Upload a local file."""
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(source), f"{self._root}/{path}")

    def move(self, source: str, path: str) -> None:
        """Copy a file and delete the source; a missing source is no error."""
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._system.cp_file(f"{self._root}/{source}", f"{self._root}/{path}")
        self.remove(source)

    def remove(self, path: str) -> None:
        """Delete a file; a missing one is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{path}")

    def entries(self, folder: str) -> dict[str, str]:
        """Return name -> size and the provider's ETag or time."""
        try:
            listing = self._system.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return {}
        stamps = ("ETag", "mtime", "LastModified", "updated", "created")  # each provider has one of them
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: "-".join(str(entry.get(stamp)) for stamp in ("size", *stamps))
            for entry in listing
        }

    def stamp(self, path: str) -> object:  # noqa: ARG002 - object stores do not date a folder
        """Return a value that changes every second, because object stores do not date a folder."""
        return int(time.monotonic())

    def local(self, path: str, sha256: str) -> Path:
        """Return the local copy with this sha256, downloaded if needed. Raises FileNotFoundError."""
        copy = self._cache / f"{sha256}{Path(path).suffix}"
        if copy.is_file() and file_sha256(copy) == sha256:
            return copy
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._cache / f".{uuid.uuid4().hex}.tmp"
        try:
            self._system.get_file(f"{self._root}/{path}", str(draft))
            draft.replace(copy)
        finally:
            draft.unlink(missing_ok=True)
        return copy

    def fetch(self, path: str, target: Path) -> None:
        """Update `target` from a file, at most every LOOK_S seconds; delete the copy if the file is gone."""
        now = time.monotonic()
        if now - self._looked.get(path, -LOOK_S) < LOOK_S:
            return
        folder, _, name = path.rpartition("/")
        signature = self.entries(folder).get(name)
        mark = target.with_name(f".{target.name}.copied")  # a file without this mark is not our copy
        if signature is None and mark.is_file():
            target.unlink(missing_ok=True)
            mark.unlink()
        elif signature is not None and not (mark.is_file() and target.is_file() and mark.read_text() == signature):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
            try:
                self._system.get_file(f"{self._root}/{path}", str(draft))
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
            mark.write_text(signature)
        self._looked[path] = now


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
