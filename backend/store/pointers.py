"""Pointers to versions (current, serving, shown) and fencing tokens, as small numbered files that never change.

The value of a pointer or a token is the file with the highest number in a folder. `Files.create` gives a number to one
caller only. So creating the next number is a compare-and-set, on a local folder and on an object store, and a restart
of redis does not reset it.
"""

from __future__ import annotations

from backend.errors import BusyError
from backend.storage import Files
from backend.store import records
from backend.store.paths import fence_folder, numbers_in, pointer_file, pointer_folder
from backend.store.records import PointerFile

_ROLL_BACK = "roll back to another version (yolo-backend rollback), or restore the file from a backup"


class FencingTokens:
    """The right to write: only the holder of the newest token for a purpose has it, across all processes."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def take(self, project_id: int, purpose: str) -> int:
        """Return a token above all earlier ones for this purpose; whoever holds a lower one must stop."""
        folder = fence_folder(project_id, purpose)
        token = self._create_above(folder)
        while token != self.newest(project_id, purpose):  # other processes took tokens and removed old ones meanwhile
            token = self._create_above(folder)
        for number in numbers_in(self._files, folder):
            if number < token:
                self._files.remove(f"{folder}/{number}")
        return token

    def _create_above(self, folder: str) -> int:
        number = max(numbers_in(self._files, folder), default=0) + 1
        while not self._files.create(f"{folder}/{number}", b"", shared=True):
            number += 1
        return number

    def newest(self, project_id: int, purpose: str) -> int:
        """Return the newest token for this purpose, 0 for none."""
        return max(numbers_in(self._files, fence_folder(project_id, purpose)), default=0)


class Pointers:
    """The versions that are current, serving or shown; safe when several processes write at once."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def is_chosen(self, project_id: int) -> bool:
        """Return whether somebody rolled back to the current version."""
        path = pointer_file("current", project_id, self.place("current", project_id))
        file = records.load(self._files, PointerFile, path, fix=_ROLL_BACK)
        return file is not None and file.chosen

    def point(self, name: str, project_id: int, number: int, *, chosen: bool = False) -> None:
        """Point to a version, from whatever version before; `chosen`: somebody rolled back to it."""
        data, place = PointerFile(number=number, chosen=chosen).encode(), self.place(name, project_id) + 1
        while not self._files.create(pointer_file(name, project_id, place), data, shared=True):
            place += 1

    def require(self, name: str, project_id: int, expected: int, number: int) -> int:
        """Return the pointer's place if it points to `expected` (0: nothing) or `number` already, else BusyError."""
        place = self.place(name, project_id)
        pointed = self._at(name, project_id, place)
        if pointed not in (expected, number):
            raise self._moved(name, project_id, expected, pointed)
        return place

    def point_on(self, name: str, project_id: int, expected: int, number: int) -> None:
        """Point from the version `expected` to `number`, or raise BusyError if the pointer has moved meanwhile."""
        place = self.require(name, project_id, expected, number)
        if self._at(name, project_id, place) == number:
            return
        data = PointerFile(number=number).encode()
        if not self._files.create(pointer_file(name, project_id, place + 1), data, shared=True):
            raise self._moved(name, project_id, expected, self.pointed(name, project_id))

    def _moved(self, name: str, project_id: int, expected: int, pointed: int) -> BusyError:
        return BusyError(
            f"version {pointed} was accepted while the successor of version {expected} was made",
            where=self._files.where(pointer_folder(name, project_id)),
            fix="nothing to do: the next training goes on from the accepted version",
        )

    def pointed(self, name: str, project_id: int) -> int:
        """Return the number of the version that a pointer points to, 0 for none."""
        return self._at(name, project_id, self.place(name, project_id))

    def _at(self, name: str, project_id: int, place: int) -> int:
        file = records.load(self._files, PointerFile, pointer_file(name, project_id, place), fix=_ROLL_BACK)
        return file.number if file else 0

    def place(self, name: str, project_id: int) -> int:
        """Return the number of a pointer's newest file; 0: the single file that an earlier release wrote, or none."""
        return max(numbers_in(self._files, pointer_folder(name, project_id)), default=0)
