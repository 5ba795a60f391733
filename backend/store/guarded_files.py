"""The store's files with errors that people can act on: a fault of a disk or an object store becomes a StoreError.

A FileNotFoundError passes through when a file is read, because callers handle it.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from backend.errors import StoreError
from backend.storage import Files, open_files

_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "adl", "abfs", "abfss"), "azure"),
}
# Errors of the libraries behind fsspec other than OSError. A library that is not imported cannot have raised any.
_LIBRARY_ERRORS = {
    "botocore.exceptions": "BotoCoreError",
    "google.auth.exceptions": "GoogleAuthError",
    "gcsfs.retry": "HttpError",
    "azure.core.exceptions": "AzureError",
    "aiohttp.client_exceptions": "ClientError",
}
_RIGHTS = "give the user that runs the backend the right to write there, or set MODEL_DIR to another folder"
_CURES = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOENT: "set MODEL_DIR to a folder that can be made",
    errno.ENOSPC: "make room on this disk",
    errno.EDQUOT: "make room, the quota of the user is used up",
    errno.EFBIG: "let this user write larger files (ulimit -f)",
    errno.ENOTDIR: "move the file away: a folder belongs there",
    errno.EISDIR: "move the folder away: a file belongs there",
    errno.EEXIST: "move the file away: a folder belongs there",
}
_ADDRESS = "correct MODEL_DIR, and what its library reads: for S3 AWS_ENDPOINT_URL, the region and the credentials"
_PROBE = ".probe"


def cure_of(error: OSError) -> str:
    """Return the cure for an error of the operating system."""
    return _CURES.get(error.errno or 0, "check the disk and the network")


def open_store_files(root: str, cache: Path, prepare: Callable[[Files], None] | None = None) -> Files:
    """Return the files under `root`. Raises StoreError for an address that no installed library can open.

    `prepare` runs once, before the first use of the files, and gets them as its argument.
    """
    protocol = root.partition("://")[0]
    try:
        return GuardedFiles(open_files(root, cache), prepare)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        fix = f"pip install 'yolo-backend[{extra}]'" if extra else f"install what it names: {error}"
        raise StoreError(f"nothing is installed that opens {protocol}:// addresses", where=root, fix=fix) from None
    except ValueError:
        fix = "write a folder, or an address like s3://bucket/folder"
        raise StoreError(f"MODEL_DIR={root!r} is not the address of a store", fix=fix) from None
    except library_errors() as error:
        raise _fault(error, root) from error


def library_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a store may raise: OSError, ValueError (bad settings), and those of imported libraries."""
    modules = ((sys.modules.get(module), name) for module, name in _LIBRARY_ERRORS.items())
    return (OSError, ValueError, *(getattr(module, name) for module, name in modules if module is not None))


def check(files: Files) -> None:
    """Check that files can be written, by writing and removing one. Raises StoreError."""
    files.write(_PROBE, b"")
    files.remove(_PROBE)


class GuardedFiles:
    """Files that raise StoreError, naming the file, for every fault of the disk or the object store."""

    def __init__(self, files: Files, prepare: Callable[[Files], None] | None = None) -> None:
        """Guard `files`; `prepare` runs once, before their first use, and gets them as its argument."""
        self._files = files
        self._prepare = prepare
        self._lock = threading.Lock()

    def where(self, path: str) -> str:
        """Return the full path, for messages."""
        return self._files.where(path)

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises FileNotFoundError."""
        with self._guarded(path):
            return self._files.open(path)

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a file, atomically."""
        with self._guarded(path, writes=True):
            self._files.write(path, data)

    def create(self, path: str, data: bytes, **options: bool) -> bool:
        """Write a file unless it exists; return whether this call created it."""
        with self._guarded(path, writes=True):
            return self._files.create(path, data, **options)

    def put(self, source: Path, path: str) -> None:
        """Copy a local file to `path`, atomically."""
        with self._guarded(path, writes=True):
            self._files.put(source, path)

    def move(self, source: str, path: str) -> None:
        """Move a file; a missing source is no error."""
        with self._guarded(path, writes=True):
            self._files.move(source, path)

    def remove(self, path: str) -> None:
        """Delete a file; a missing one is no error."""
        with self._guarded(path):
            self._files.remove(path)

    def entries(self, folder: str) -> dict[str, str]:
        """Return name -> signature of a folder's entries."""
        with self._guarded(folder):
            return self._files.entries(folder)

    def stamp(self, path: str) -> object:
        """Return a value that changes with the folder's entries or the file; None: unknown."""
        with self._guarded(path):
            return self._files.stamp(path)

    def local(self, path: str, sha256: str) -> Path:
        """Return a local copy of a file. Raises FileNotFoundError."""
        with self._guarded(path):
            return self._files.local(path, sha256)

    def fetch(self, path: str, target: Path) -> None:
        """Make `target` a copy of a file, or remove it if the file is gone."""
        with self._guarded(path):
            self._files.fetch(path, target)

    def _prepared(self) -> None:
        with self._lock:
            if self._prepare is not None:
                self._prepare(GuardedFiles(self._files))
                self._prepare = None

    @contextmanager
    def _guarded(self, path: str, *, writes: bool = False) -> Iterator[None]:
        if self._prepare is not None:
            self._prepared()
        try:
            yield
        except FileNotFoundError as error:
            if not writes:
                raise  # callers handle it
            raise _fault(error, self.where(path)) from error  # no folder to write to, or no such bucket
        except library_errors() as error:
            raise _fault(error, self.where(path)) from error


def _fault(error: Exception, where: str) -> StoreError:
    if isinstance(error, OSError) and error.errno:
        place = str(error.filename or where)
        return StoreError(f"the store cannot be used: {error.strerror}", where=place, fix=cure_of(error))
    return StoreError(f"the store does not answer: {type(error).__name__}: {error}", where=where, fix=_ADDRESS)
