"""Folders of running trainings, on the file system of the media cache so that images can be hard links.

A training holds a lock on a file in its folder. The lock ends with the process, so a folder without a lock belongs to
a killed training, and is removed.
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
_START_S = 3600.0  # a folder that has no lock after this time belongs to a killed training


@contextmanager
def folder(work_dir: Path) -> Iterator[Path]:
    """Yield an empty folder; it is removed after the block, or by the next `clear` if this process is killed."""
    place = _place(work_dir)
    fresh = Path(tempfile.mkdtemp(prefix=_STARTING, dir=place))
    with (fresh / _LOCK).open("wb") as lock:
        with suppress(OSError):  # a file system without locks: nothing is cleared there
            fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = fresh.rename(place / fresh.name.replace(_STARTING, _RUNNING, 1))  # from now on `clear` tests its lock
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def clear(work_dir: Path) -> None:
    """Remove the folders of killed trainings; those of running ones, here or on other machines, stay."""
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
        return False  # an earlier release made the folder, without a lock
    except OSError:  # also BlockingIOError, if the lock is held
        return True
    return False


def _place(work_dir: Path) -> Path:
    place = work_dir / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    return place
