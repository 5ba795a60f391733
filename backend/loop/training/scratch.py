"""Folders of running trainings, beside the media cache so that images can be hard links; what a killed one left goes.

A training holds a lock on a file in its folder. The lock ends with the process, so a folder without one is nobody's.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = "lock"
_STARTING, _RUNNING = "starting-", "training-"
_START_S = 3600.0  # a folder that has no lock yet gets one within moments


@contextmanager
def folder(work_dir: Path) -> Iterator[Path]:
    """Give an empty folder that is gone after the block, or after the next `clear` if this process is killed."""
    place = _place(work_dir)
    fresh = Path(tempfile.mkdtemp(prefix=_STARTING, dir=place))
    with (fresh / _LOCK).open("wb") as lock:
        with suppress(OSError):  # a file system without locks: nothing is cleared there
            fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = fresh.rename(place / fresh.name.replace(_STARTING, _RUNNING, 1))  # only now `clear` looks at it
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def clear(work_dir: Path) -> None:
    """Remove what killed trainings left behind; those that run, here or on other machines, are left alone."""
    for left in _place(work_dir).glob(f"{_RUNNING}*"):
        if not _held(left / _LOCK):
            shutil.rmtree(left, ignore_errors=True)
    for left in _place(work_dir).glob(f"{_STARTING}*"):
        if time.time() - left.stat().st_mtime > _START_S:
            shutil.rmtree(left, ignore_errors=True)


def _held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False  # from before there were locks
    except OSError:  # BlockingIOError is one
        return True
    return False


def _place(work_dir: Path) -> Path:
    place = work_dir / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    return place
