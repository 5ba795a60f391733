"""Files under a root that is a local folder or an fsspec URL: written whole or not at all."""

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

_LOOK_S = 10.0  # between two looks at a file of an object store that has a local copy
_FRESH_NS = 50_000_000  # a folder's clock ticks every few ms: a change this young may hide a second one


class Files(Protocol):
    """What the store asks of a file system; paths are relative to the root, with slashes."""

    def where(self, path: str) -> str:
        """Return the full path, for messages."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; raises FileNotFoundError."""

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a file, atomically."""

    def create(self, path: str, data: bytes, *, shared: bool = False) -> bool:
        """Write a file unless it exists; return whether this call made it. Unless `shared`, only its owner reads it."""

    def put(self, source: Path, path: str) -> None:
        """Copy a local file to `path`, atomically."""

    def move(self, source: str, path: str) -> None:
        """Give a file another path; one that is gone is fine: somebody else has moved it."""

    def remove(self, path: str) -> None:
        """Delete a file; one that is gone is fine."""

    def entries(self, folder: str) -> dict[str, str]:
        """Return name -> signature of what a folder holds; the signature changes with the content."""

    def stamp(self, path: str) -> object:
        """Return a value that changes when the folder's entries or the file change; None: always look."""

    def local(self, path: str, sha256: str) -> Path:
        """Return a local copy of a file, which may be kept under its sha256; raises FileNotFoundError."""

    def fetch(self, path: str, target: Path) -> None:
        """Make `target` a copy of a file, or remove the copy where the file is gone; a local root has no copies."""


def open_files(root: str, cache: Path) -> Files:
    """Return the files under `root`; `cache` keeps local copies of remote weights."""
    system, path = fsspec.core.url_to_fs(root, use_listings_cache=False)
    return LocalFiles(Path(path)) if isinstance(system, LocalFileSystem) else RemoteFiles(system, path, cache)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal; a file that has not changed since is not read again.

    Weights are checked at every request, and hashing those of a large model takes a quarter of a second.
    """
    stat = path.stat()
    if time.time_ns() - stat.st_ctime_ns < _FRESH_NS:
        return _sha256(path)
    return _sha256_of(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime_ns))  # nobody can set a ctime


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=64)
def _sha256_of(path: Path, mark: tuple[int, ...]) -> str:  # noqa: ARG001 - the mark tells one content from the next
    return _sha256(path)


class LocalFiles:
    """A local folder: temporary name, fsync, rename."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, path: str) -> str:
        return str(self._root / path)

    def open(self, path: str) -> BinaryIO:
        return (self._root / path).open("rb")

    def write(self, path: str, data: bytes) -> None:
        with self._draft(path, 0o666) as (draft, file):
            file.write(data)
            _sync(file)
            draft.replace(self._root / path)

    def create(self, path: str, data: bytes, *, shared: bool = False) -> bool:
        with self._draft(path, 0o666 if shared else 0o600) as (draft, file):
            file.write(data)
            _sync(file)
            try:
                (self._root / path).hardlink_to(draft)  # unlike a rename it fails where the name is taken
            except FileExistsError:
                return False
        return True

    def put(self, source: Path, path: str) -> None:
        with self._draft(path, 0o666) as (draft, file):
            with source.open("rb") as original:
                shutil.copyfileobj(original, file, 1 << 20)
            _sync(file)
            draft.replace(self._root / path)

    def move(self, source: str, path: str) -> None:
        old, new = self._root / source, self._root / path
        new.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            old.replace(new)
        _sync_folder(new.parent)
        _sync_folder(old.parent)

    def remove(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def entries(self, folder: str) -> dict[str, str]:
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # deleted while we look
                    stat = entry.stat()
                    found[entry.name] = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
        return found

    def stamp(self, path: str) -> object:
        try:
            stat = (self._root / path).stat()
        except FileNotFoundError:
            return 0
        return None if time.time_ns() - stat.st_mtime_ns < _FRESH_NS else (stat.st_ino, stat.st_mtime_ns)

    def local(self, path: str, sha256: str) -> Path:  # noqa: ARG002 - the file is its own local copy
        found = self._root / path
        if not found.is_file():
            raise FileNotFoundError(found)
        return found

    def fetch(self, path: str, target: Path) -> None:
        pass  # the folder of the copies is the root itself

    @contextlib.contextmanager
    def _draft(self, path: str, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
        """Yield a new hidden file beside `path`; afterwards it is gone and the folder is synced."""
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
    """An fsspec file system, as a rule an object store, where an object appears whole or not at all."""

    def __init__(self, system: Any, root: str, cache: Path) -> None:
        self._system = system
        self._root = root.rstrip("/")
        self._cache = cache
        self._looked: dict[str, float] = {}  # when a file was compared with its copy

    def where(self, path: str) -> str:
        return str(self._system.unstrip_protocol(f"{self._root}/{path}"))

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self._system.cat_file(f"{self._root}/{path}"))

    def write(self, path: str, data: bytes) -> None:
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(f"{self._root}/{path}", data)

    def create(self, path: str, data: bytes, *, shared: bool = False) -> bool:  # noqa: ARG002 - the store has its own rights
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        try:
            self._system.pipe_file(f"{self._root}/{path}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, source: Path, path: str) -> None:
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(source), f"{self._root}/{path}")

    def move(self, source: str, path: str) -> None:
        self._system.makedirs(f"{self._root}/{path}".rpartition("/")[0], exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._system.cp_file(f"{self._root}/{source}", f"{self._root}/{path}")
        self.remove(source)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{path}")

    def entries(self, folder: str) -> dict[str, str]:
        try:
            found = self._system.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return {}
        marks = ("ETag", "mtime", "LastModified", "updated", "created")  # each provider has one of them
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: "-".join(str(entry.get(mark)) for mark in ("size", *marks))
            for entry in found
        }

    def stamp(self, path: str) -> object:  # noqa: ARG002 - object stores do not date a folder
        return int(time.monotonic())  # so it is listed again at most once a second

    def local(self, path: str, sha256: str) -> Path:
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
        now = time.monotonic()
        if now - self._looked.get(path, -_LOOK_S) < _LOOK_S:
            return
        folder, _, name = path.rpartition("/")
        signature = self.entries(folder).get(name)
        mark = target.with_name(f".{target.name}.copied")  # a file without it was put there by somebody else
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
