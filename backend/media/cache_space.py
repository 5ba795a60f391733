"""Room for the media cache: what was used least recently goes first, and never what somebody is using.

Whoever works with cached files holds a mark, a locked file beside the cache; the system lets go of it when the process
dies. A file counts as used when its time is touched. What was touched since the oldest living mark began stays, so a
training that fetches for hours keeps all its images. Holds between processes, and between machines that share the
folder.
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

LEFT = 0.9  # of the limit that stays when room is made
STEP = 0.05  # of the limit that is added before it is looked again
GRACE_S = 60.0  # for those who hold no mark
STALE_S = 24 * 3600.0  # after which a half-written file has no writer any more
_BATCH = 64  # files deleted at a time, while nobody may touch one


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    used_ns: int


class CacheSpace:
    """The files of one folder, at most `max_bytes` of them but for those in use; safe between threads and processes."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._marks = root.with_name(f"{root.name}.use")
        self._max_bytes = max_bytes
        self._unseen = int(STEP * max_bytes)  # bytes added since the last look; at first there may be anything
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
        """Tell whether a file is there, and count it as used now."""
        if not path.is_file():
            return False
        with self._lock(fcntl.LOCK_SH):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def added(self, size: int) -> None:
        """Count what was written, and make room once that is much."""
        with self._counting:
            self._unseen += size
            if self._unseen < STEP * self._max_bytes:
                return
            self._unseen = 0
        self.make_room()

    def make_room(self) -> int:
        """Delete what was used least recently until LEFT of the limit is left; return how many bytes went."""
        files = self._files()
        total = sum(file.size for file in files)
        surplus = total - int(LEFT * self._max_bytes)
        if total <= self._max_bytes:
            return 0
        files.sort(key=lambda file: file.used_ns)
        gone = 0
        for begin in range(0, len(files), _BATCH):
            if gone >= surplus:
                break
            gone += self._delete(files[begin : begin + _BATCH], surplus - gone)
        if total - gone > self._max_bytes:
            log.warning("the media cache is larger than MEDIA_CACHE_GB, as %d bytes of it are in use", total - gone)
        return gone

    def _delete(self, files: Sequence[_File], surplus: int) -> int:
        """Delete files that nobody uses, up to a number of bytes; nobody can begin to use one meanwhile."""
        gone = 0
        with self._lock(fcntl.LOCK_EX):
            oldest = min([time.time_ns() - int(GRACE_S * 1e9), *self._living_marks()])
            for file in files:
                with suppress(FileNotFoundError):
                    if gone < surplus and file.path.stat().st_mtime_ns < oldest:
                        file.path.unlink()
                        gone += file.size
        return gone

    def _living_marks(self) -> Iterator[int]:
        """Yield when each mark that a living process holds began, in nanoseconds; those of dead ones are removed."""
        for path in self._marks.glob("mark-*"):
            with suppress(FileNotFoundError), path.open("rb") as mark:
                try:
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield path.stat().st_mtime_ns
                else:
                    path.unlink()

    def _files(self) -> list[_File]:
        """Return all finished files; what a killed process left half written is removed."""
        files: list[_File] = []
        if not self._root.is_dir():
            return files
        with os.scandir(self._root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(".") and time.time() - status.st_mtime > STALE_S:
                        Path(entry.path).unlink()
                    elif entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        files.append(_File(Path(entry.path), status.st_size, status.st_mtime_ns))
        return files

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        self._marks.mkdir(parents=True, exist_ok=True)  # each time: somebody may empty MODEL_DIR while we run
        with (self._marks / "lock").open("ab") as lock:
            fcntl.flock(lock, kind)
            yield
