"""Which version is current and which one serves, and who may write: small numbered files, each made once.

A pointer and a fencing token are both "the highest number in a folder". `Files.create` gives a number to one caller
only, so a number is a compare-and-set that works on a local folder and on an object store, and no restart of redis
resets it.
"""

from __future__ import annotations

from backend.errors import BusyError
from backend.store.paths import fence_folder, pointer_file, pointer_folder
from backend.store.project_state import Lessons
from backend.store.records import PointerFile

_ROLL_BACK = "roll back to another version (yolo-backend rollback), or restore the file from a backup"


class Pointers(Lessons):
    """The part of the store that must be right when two processes write at once."""

    # Fencing tokens

    def take_token(self, project_id: int, purpose: str) -> int:
        """Return a token above all that were given for this purpose; whoever holds a lower one must stop."""
        folder = fence_folder(project_id, purpose)
        token = self._create_above(folder)
        while token != self.newest_token(project_id, purpose):  # others took some, and removed old ones, meanwhile
            token = self._create_above(folder)
        for number in self._numbers(folder):
            if number < token:
                self._files.remove(f"{folder}/{number}")
        return token

    def _create_above(self, folder: str) -> int:
        number = max(self._numbers(folder), default=0) + 1
        while not self._files.create(f"{folder}/{number}", b"", shared=True):
            number += 1
        return number

    def newest_token(self, project_id: int, purpose: str) -> int:
        """Return the token given last for this purpose, 0: none was."""
        return max(self._numbers(fence_folder(project_id, purpose)), default=0)

    # Pointers

    def is_chosen(self, project_id: int) -> bool:
        """Return whether somebody rolled back to the current version."""
        path = pointer_file("current", project_id, self._place("current", project_id))
        found = self._read(PointerFile, path, fix=_ROLL_BACK)
        return found is not None and found.chosen

    def _point(self, name: str, project_id: int, number: int, *, chosen: bool = False) -> None:
        """Point to a version, whatever the pointer said before; `chosen`: somebody rolled back to it."""
        data, place = PointerFile(number=number, chosen=chosen).encode(), self._place(name, project_id) + 1
        while not self._files.create(pointer_file(name, project_id, place), data, shared=True):
            place += 1

    def _require(self, name: str, project_id: int, expected: int, number: int) -> int:
        """Return the pointer's place if it points to `expected` (0: nothing) or `number` already, else BusyError."""
        place = self._place(name, project_id)
        pointed = self._at(name, project_id, place)
        if pointed not in (expected, number):
            raise self._moved(name, project_id, expected, pointed)
        return place

    def _point_on(self, name: str, project_id: int, expected: int, number: int) -> None:
        """Point from the version `expected` to `number`, or raise BusyError if the pointer has moved meanwhile."""
        place = self._require(name, project_id, expected, number)
        if self._at(name, project_id, place) == number:
            return
        data = PointerFile(number=number).encode()
        if not self._files.create(pointer_file(name, project_id, place + 1), data, shared=True):
            raise self._moved(name, project_id, expected, self._pointed(name, project_id))

    def _moved(self, name: str, project_id: int, expected: int, pointed: int) -> BusyError:
        return BusyError(
            f"version {pointed} was accepted while the successor of version {expected} was made",
            where=self._files.where(pointer_folder(name, project_id)),
            fix="nothing to do: the next training goes on from the accepted version",
        )

    def _pointed(self, name: str, project_id: int) -> int:
        return self._at(name, project_id, self._place(name, project_id))

    def _at(self, name: str, project_id: int, place: int) -> int:
        found = self._read(PointerFile, pointer_file(name, project_id, place), fix=_ROLL_BACK)
        return found.number if found else 0

    def _place(self, name: str, project_id: int) -> int:
        """Return the number of the newest file of a pointer; 0 is the single file of stores before this one."""
        return max(self._numbers(pointer_folder(name, project_id)), default=0)

    def _numbers(self, folder: str) -> list[int]:
        return sorted(int(name) for name in self._files.entries(folder) if name.isdecimal())
