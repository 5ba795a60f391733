"""Which `yolo-backend run` works on an object store: a record there, renewed while it runs.

A local folder has a lock of the system instead, see `embedded`. Each run makes the next number in a folder, and
`Files.create` gives a number to one caller only: of two runs that start in the same moment one is refused.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import BaseModel, ValidationError

from backend.errors import BackendError, StoreError
from backend.storage import Files
from backend.store.paths import RUNS

log = logging.getLogger(__name__)

RENEW_S = 60.0
STALE_S = 300.0  # a record that nobody renewed for so long is of a run that was killed; clocks may differ by less


class Holder(BaseModel, frozen=True):
    """Who runs on the store, and when it last said so."""

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
        self._renew_at = time.monotonic() + RENEW_S

    def take(self) -> None:
        """Make the record. Raises BackendError, with who it is, while another run is at work."""
        numbers = self._numbers()
        self._refuse(self._holder_of(numbers))
        self._number = max(numbers, default=0) + 1
        if not self._files.create(self._path(self._number), self._renewed(), shared=True):
            self.take()  # another run was faster
            return
        for number in numbers:
            self._files.remove(self._path(number))

    def look(self) -> None:
        """Renew the record when it is time. Raises BackendError if another run has taken over meanwhile.

        A store that does not answer costs a line of log: whoever took over is seen when it answers again.
        """
        if time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + RENEW_S
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
        """Let others run here at once; without the store they wait until the record is stale."""
        try:
            holder = self._holder_of(self._numbers())
            if holder is not None and holder.run == self._holder.run:
                self._files.remove(self._path(self._number))
        except StoreError as error:
            log.warning("the record of this run stays for %.0f s: %s", STALE_S, error)

    def _refuse(self, holder: Holder | None) -> None:
        """Raise BackendError if `holder` is at work."""
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
        """Return who made the newest of these records; None: it is gone, or nobody can read it."""
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
    """Keep a record of this run in the store while the block runs; BackendError if another run is at work."""
    record = RunRecord(files)
    record.take()
    try:
        yield record
    finally:
        record.release()
