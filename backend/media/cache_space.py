"""Room for the media cache: the files that were used least recently are deleted, but never files that are in use.

Files whose URLs expire cannot be fetched again later, so they are deleted only where no other file is left.

Code that works with cached files holds a mark: a locked file beside the cache. The system unlocks it when the process
dies. A file is used when its modification time is set anew. Files that were used since the oldest locked mark was made
stay, so a training that fetches for hours keeps all its images. This works between processes, and between machines
that share the folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

LEFT = 0.9  # share of the limit that stays when room is made
STEP = 0.05  # share of the limit that may be added before the folder is measured again
GRACE_S = 60.0  # files that were used within this time stay, for readers that hold no mark
STALE_S = 24 * 3600.0  # older half-written files have no writer any more
EXPIRING = "expiring-"  # how the names of files begin whose URLs expire
_BATCH = 64  # files deleted at a time, while no file can be touched


@dataclass(frozen=True, slots=True)
class _CachedFile:
    path: Path
    size: int
    used_ns: int


class CacheSpace:
    """The files of one folder, at most `max_bytes` beside those in use; safe between threads and processes."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._marks = root.with_name(f"{root.name}.use")
        self._max_bytes = max_bytes
        self._unmeasured = int(STEP * max_bytes)  # bytes added since the folder was measured; it was not measured yet
        self._counting = threading.Lock()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep every file that is touched from now on until the block ends."""
        with self._lock(fcntl.LOCK_SH):
            handle, name = tempfile.mkstemp(dir=self._marks, prefix="mark-")
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(handle)

    def touch(self, path: Path) -> bool:
        """Return whether a file is there, and count it as used now."""
        if not path.is_file():
            return False
        with self._lock(fcntl.LOCK_SH):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def added(self, size: int) -> None:
        """Count the bytes of a new file; make room after STEP of the limit was added."""
        with self._counting:
            self._unmeasured += size
            if self._unmeasured < STEP * self._max_bytes:
                return
            self._unmeasured = 0
        self.make_room()

    def make_room(self) -> int:
        """Delete files until LEFT of the limit remains; return how many bytes were deleted.

        Those used least recently go first, those whose URLs expire last.
        """
        files = self._files()
        total = sum(file.size for file in files)
        surplus = total - int(LEFT * self._max_bytes)
        if total <= self._max_bytes:
            return 0
        files.sort(key=lambda file: (file.path.name.startswith(EXPIRING), file.used_ns))
        deleted = 0
        for begin in range(0, len(files), _BATCH):
            if deleted >= surplus:
                break
            deleted += self._delete(files[begin : begin + _BATCH], surplus - deleted)
        if total - deleted > self._max_bytes:
            log.warning("the media cache is larger than MEDIA_CACHE_GB, as %d bytes of it are in use", total - deleted)
        return deleted

    def _delete(self, files: Sequence[_CachedFile], surplus: int) -> int:
        """Delete files that are not in use until `surplus` bytes are deleted; no file can be touched meanwhile."""
        deleted = 0
        with self._lock(fcntl.LOCK_EX):
            oldest = min([time.time_ns() - int(GRACE_S * 1e9), *self._living_marks()])
            for file in files:
                with suppress(FileNotFoundError):
                    if deleted < surplus and file.path.stat().st_mtime_ns < oldest:
                        file.path.unlink()
                        deleted += file.size
        return deleted

    def _living_marks(self) -> Iterator[int]:
        """Yield when each mark of a living process was made, in nanoseconds; remove the marks of dead processes."""
        for path in self._marks.glob("mark-*"):
            with suppress(FileNotFoundError), path.open("rb") as mark:
                try:
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield path.stat().st_mtime_ns
                else:
                    path.unlink()

    def _files(self) -> list[_CachedFile]:
        """Return all finished files; remove half-written files of killed processes."""
        files: list[_CachedFile] = []
        if not self._root.is_dir():
            return files
        with os.scandir(self._root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(".") and time.time() - status.st_mtime > STALE_S:
                        Path(entry.path).unlink()
                    elif entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        files.append(_CachedFile(Path(entry.path), status.st_size, status.st_mtime_ns))
        return files

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        self._marks.mkdir(parents=True, exist_ok=True)  # each time, as an admin may empty MODEL_DIR
        with (self._marks / "lock").open("ab") as lock:
            fcntl.flock(lock, kind)
            yield
