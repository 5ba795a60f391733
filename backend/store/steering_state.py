"""What people decided about a project: the journal, the pause, the pins, and labels that they called right."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

from backend.evaluation.label_quality import LabelIssue
from backend.sampling.pins import Pins
from backend.storage import Files
from backend.store.documents import Document
from backend.store.paths import accepted_labels_folder, journal_folder, steering_folder
from backend.store.records import (
    AcceptedLabel,
    AcceptedLabelsFile,
    JournalEntry,
    JournalFile,
    Pause,
    SteeringFile,
)

MAX_ENTRIES = 500  # of a project's journal; older ones are dropped
MAX_TEXT, MAX_NAME = 300, 100  # characters of an entry's text, and of the name of who did it

_FORGET = "delete the file; the file with the next lower number then counts"


class Journal:
    """What people did to each project."""

    def __init__(self, files: Files) -> None:
        self._document = Document(files, JournalFile, journal_folder, _FORGET)

    def append(self, project_id: int, who: str, action: str, text: str) -> JournalEntry:
        """Add an entry with the time of now, and return it; long texts are cut. Safe against other writers."""
        entry = JournalEntry(
            key=uuid.uuid4().hex,
            at=datetime.now(UTC),
            who=_short(who, MAX_NAME) or "unknown",
            action=_short(action, MAX_NAME),
            project_id=project_id,
            text=_short(text, MAX_TEXT),
        )

        def added(file: JournalFile | None) -> JournalFile:
            """Return the journal with the entry."""
            before = file.entries if file else ()
            if any(earlier.key == entry.key for earlier in before):
                return JournalFile(entries=before)
            return JournalFile(entries=(*before, entry)[-MAX_ENTRIES:])

        self._document.change(project_id, added)
        return entry

    def entries(self, project_id: int) -> tuple[JournalEntry, ...]:
        """Return the newest MAX_ENTRIES entries, newest first."""
        file = self._document.read(project_id)
        return tuple(reversed(file.entries)) if file else ()


class SteeringState:
    """The pause and the pins of each project, and labels that people called right."""

    def __init__(self, files: Files) -> None:
        self._steering = Document(files, SteeringFile, steering_folder, _FORGET)
        self._accepted = Document(files, AcceptedLabelsFile, accepted_labels_folder, _FORGET)

    def pause(self, project_id: int) -> Pause | None:
        """Return who paused the loop and when, None if it is not paused."""
        file = self._steering.read(project_id)
        return file.pause if file else None

    def set_pause(self, project_id: int, pause: Pause | None) -> bool:
        """Pause the loop, or with None resume it; return whether that changed anything. An earlier pause stays."""
        was_paused = False

        def changed(file: SteeringFile | None) -> SteeringFile:
            """Return the state with the pause."""
            nonlocal was_paused
            before = file or SteeringFile()
            was_paused = before.pause is not None
            return before if was_paused and pause else before.model_copy(update={"pause": pause})

        self._steering.change(project_id, changed)
        return was_paused != (pause is not None)

    def pins(self, project_id: int) -> Pins:
        """Return the pinned tasks."""
        file = self._steering.read(project_id)
        return file.pins if file else Pins()

    def change_pins(self, project_id: int, update: Callable[[Pins], Pins]) -> Pins:
        """Replace the pins by what `update` makes of them, and return that; `update` may run several times."""

        def changed(file: SteeringFile | None) -> SteeringFile:
            """Return the state with the new pins."""
            before = file or SteeringFile()
            return before.model_copy(update={"pins": update(before.pins)})

        return self._steering.change(project_id, changed).pins

    def accepted_labels(self, project_id: int) -> frozenset[AcceptedLabel]:
        """Return the labels that people called right."""
        file = self._accepted.read(project_id)
        return frozenset(file.labels if file else ())

    def accept_label(self, project_id: int, label: AcceptedLabel, current: Collection[tuple[int, str]]) -> None:
        """Remember a label that somebody called right, and forget those of annotations that have changed since.

        `current` holds the id and the time of the last change of each annotation.
        """

        def added(file: AcceptedLabelsFile | None) -> AcceptedLabelsFile:
            """Return the labels with this one."""
            before = file.labels if file else ()
            kept = (entry for entry in before if (entry.annotation_id, entry.updated_at) in current)
            return AcceptedLabelsFile(labels=tuple(dict.fromkeys((*kept, label))))

        self._accepted.change(project_id, added)


def without_accepted(issues: tuple[LabelIssue, ...], accepted: Collection[AcceptedLabel]) -> tuple[LabelIssue, ...]:
    """Return the issues, worst first; labels that somebody called right count as clean."""
    judged = (
        replace(issue, score=1.0, suspicion="", label="", box=None)
        if AcceptedLabel(issue.annotation_id, issue.updated_at, issue.tag) in accepted
        else issue
        for issue in issues
    )
    return tuple(sorted(judged, key=lambda issue: (issue.score, issue.task_id)))


def _short(text: str, limit: int) -> str:
    """Return a text on one line and at most `limit` characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
