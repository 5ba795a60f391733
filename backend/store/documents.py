"""JSON files that several processes change at once: people steer a project from the page, the command line and jobs.

Each change writes a new numbered file, and the file with the highest number counts. `Files.create` gives a number to
one caller only, on a local folder and on an object store. A caller that comes second reads again and repeats its
change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from backend.errors import StoreError
from backend.storage import Files
from backend.store import records
from backend.store.paths import numbers_in
from backend.store.records import F

_TRIES = 100  # of one change while other processes write; each failure means that another one has succeeded


class Document(Generic[F]):
    """One JSON file per project, in a folder that `folder_of` names by the project's id."""

    def __init__(self, files: Files, kind: type[F], folder_of: Callable[[int], str], fix: str) -> None:
        """`kind` is the content of the file, `fix` the cure for a damaged one."""
        self._files = files
        self._kind = kind
        self._folder_of = folder_of
        self._fix = fix

    def read(self, project_id: int) -> F | None:
        """Return the content, None if nothing was ever written. Raises ModelError for a damaged file."""
        return self._newest(project_id)[1]

    def change(self, project_id: int, update: Callable[[F | None], F]) -> F:
        """Replace the content by what `update` makes of it, and return that.

        `update` may run several times, the last time on a content that holds its own earlier result, so it must not add
        anything twice. Raises StoreError if other processes change the file without end.
        """
        folder = self._folder_of(project_id)
        for _ in range(_TRIES):
            number, before = self._newest(project_id)
            after = update(before)
            if after == before:
                return after
            created = self._files.create(f"{folder}/{number + 1}", after.encode(), shared=True)
            numbers = numbers_in(self._files, folder)
            # A number below the newest one was free because another process had written and removed it.
            if created and max(numbers, default=0) == number + 1:
                for earlier in numbers:
                    if earlier < number:  # the one before stays for a process that is about to read it
                        self._files.remove(f"{folder}/{earlier}")
                return after
        raise StoreError("other processes change this file without end", where=folder, fix="try again")

    def _newest(self, project_id: int) -> tuple[int, F | None]:
        """Return the number of the newest file, 0 without one, and its content."""
        folder = self._folder_of(project_id)
        for _ in range(_TRIES):
            number = max(numbers_in(self._files, folder), default=0)
            content = records.load(self._files, self._kind, f"{folder}/{number}", fix=self._fix) if number else None
            if content is not None or not number:
                return number, content
        raise StoreError("other processes change this file without end", where=folder, fix="try again")
