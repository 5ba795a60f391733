"""The record of the `yolo-backend run` that uses an object store; it is renewed while the run lasts.

A local folder has a lock of the operating system instead, see `embedded`. Each run creates the next number in a folder.
`Files.create` gives a number to one caller only, so one of two runs that start at the same moment is refused.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic

from pydantic import BaseModel, ValidationError

from backend.errors import BackendError, StoreError
from backend.storage import Files
from backend.store.paths import RUNS

log = logging.getLogger(__name__)

RENEW_S = 60.0
STALE_S = 300.0  # a record that is older belongs to a killed run; clocks must differ by less than this


class Holder(BaseModel, frozen=True):
    """The process that uses the store, and when it last renewed its record."""

    run: str  # a name that no other run has
    host: str
    pid: int
    began: datetime
    renewed: datetime

    def age_s(self) -> float:
        """Return how long ago the record was renewed, by our clock."""
        return (datetime.now(UTC) - self.renewed).total_seconds()

    def __str__(self) -> str:
        return (
            f"process {self.pid} on {self.host}, since {self.began.isoformat(timespec='seconds')}, "
            f"last seen {max(self.age_s(), 0):.0f} s ago"
        )


class RunRecord:
    """The record of this run."""

    def __init__(self, files: Files) -> None:
        now = datetime.now(UTC)
        self._files, self._number = files, 0
        self._holder = Holder(
            run=secrets.token_hex(16), host=socket.gethostname(), pid=os.getpid(), began=now, renewed=now
        )
        self._renew_at = monotonic() + RENEW_S

    def take(self) -> None:
        """Create the record. Raises BackendError, naming the other run, if one is using the store."""
        numbers = self._numbers()
        self._refuse(self._holder_of(numbers))
        self._number = max(numbers, default=0) + 1
        if not self._files.create(self._path(self._number), self._renewed(), shared=True):
            self.take()  # another run was faster
            return
        for number in numbers:
            self._files.remove(self._path(number))

    def look(self) -> None:
        """Renew the record when it is due. Raises BackendError if another run took over meanwhile.

        If the store does not answer, this only logs a warning; the next call checks again.
        """
        if monotonic() < self._renew_at:
            return
        self._renew_at = monotonic() + RENEW_S
        try:
            holder = self._holder_of(self._numbers())
            if holder is None or holder.run == self._holder.run:
                self._files.write(self._path(self._number), self._renewed())
                return
        except StoreError as error:
            log.warning("the record of this run is not renewed: %s", error)
            return
        raise BackendError(
            f"another `yolo-backend run` took over this MODEL_DIR while this one stood still: {holder}",
            where=self._files.where(RUNS),
            fix="nothing to do: the other one does the work",
        )

    def release(self) -> None:
        """Remove the record, so that another run can start. If that fails, others wait until it is stale."""
        try:
            holder = self._holder_of(self._numbers())
            if holder is not None and holder.run == self._holder.run:
                self._files.remove(self._path(self._number))
        except StoreError as error:
            log.warning("the record of this run stays for %.0f s: %s", STALE_S, error)

    def _refuse(self, holder: Holder | None) -> None:
        """Raise BackendError if `holder` is using the store."""
        if holder is None or holder.age_s() >= STALE_S:
            return
        raise BackendError(
            f"another `yolo-backend run` is at work on this MODEL_DIR: {holder}",
            where=self._files.where(RUNS),
            fix="end it, or give this one a MODEL_DIR of its own; to share one, set REDIS_URL to the same redis for "
            f"both; if it was killed, wait {STALE_S - holder.age_s():.0f} s",
        )

    def _renewed(self) -> bytes:
        return self._holder.model_copy(update={"renewed": datetime.now(UTC)}).model_dump_json().encode()

    def _holder_of(self, numbers: list[int]) -> Holder | None:
        """Return the holder in the newest of these records; None if it is gone or damaged."""
        if not numbers:
            return None
        try:
            with self._files.open(self._path(max(numbers))) as file:
                return Holder.model_validate_json(file.read())
        except (FileNotFoundError, ValidationError):
            return None

    def _numbers(self) -> list[int]:
        return [int(name) for name in self._files.entries(RUNS) if name.isdecimal()]

    @staticmethod
    def _path(number: int) -> str:
        return f"{RUNS}/{number}"


@contextmanager
def recorded(files: Files) -> Iterator[RunRecord]:
    """Hold the record of this run while the block runs. Raises BackendError if another run uses the store."""
    record = RunRecord(files)
    record.take()
    try:
        yield record
    finally:
        record.release()
