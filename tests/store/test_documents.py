"""One JSON file that many processes change: no change is lost, on a folder and on an object store."""

from __future__ import annotations

import multiprocessing
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.errors import ModelError
from backend.storage import Files, open_files
from backend.store.documents import Document
from backend.store.paths import journal_folder
from backend.store.records import MarksFile
from backend.store.store import Store

PROJECT = 7


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    root = str(tmp_path / "models") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return open_files(root, tmp_path / "cache")


def document(files: Files) -> Document[MarksFile]:
    return Document(files, MarksFile, journal_folder, "delete it")


def add(files: Files, number: int) -> None:
    def added(file: MarksFile | None) -> MarksFile:
        return MarksFile(tasks=tuple(sorted({*(file.tasks if file else ()), number})))

    document(files).change(PROJECT, added)


def test_nothing_was_written(files: Files) -> None:
    assert document(files).read(PROJECT) is None
    assert document(files).change(PROJECT, lambda file: file or MarksFile(tasks=())) == MarksFile(tasks=())


def test_many_writers_at_once_lose_nothing_and_leave_two_files(files: Files) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: add(files, number), range(40)))
    stored = document(files).read(PROJECT)
    assert stored is not None
    assert stored.tasks == tuple(range(40))
    assert len(files.entries(journal_folder(PROJECT))) == 2


def test_a_change_that_changes_nothing_writes_nothing(files: Files) -> None:
    add(files, 1)
    before = files.entries(journal_folder(PROJECT))
    add(files, 1)
    assert files.entries(journal_folder(PROJECT)) == before


def test_a_number_that_was_free_because_it_was_removed_does_not_count(files: Files) -> None:
    """A writer that stood still writes below the newest file; it has to see that, and to try again."""
    stalled = True

    def slow(file: MarksFile | None) -> MarksFile:
        nonlocal stalled
        if stalled:
            stalled = False
            for number in range(5):  # four more files, so the one that `slow` will write is removed by then
                add(files, number)
        return MarksFile(tasks=tuple(sorted({*(file.tasks if file else ()), 99})))

    document(files).change(PROJECT, slow)
    stored = document(files).read(PROJECT)
    assert stored is not None
    assert stored.tasks == (0, 1, 2, 3, 4, 99)


def test_a_damaged_file_is_named_with_its_cure(files: Files) -> None:
    add(files, 1)
    files.write(f"{journal_folder(PROJECT)}/9", b"{")
    with pytest.raises(ModelError, match=r"damaged file.*journal/9.*Fix: delete it"):
        document(files).read(PROJECT)


def append_many(root: str, who: str) -> None:
    journal = Store(root).journal
    for _ in range(10):
        journal.append(PROJECT, who, "pin", "to the front: task 1")


@pytest.mark.processes
def test_processes_append_to_one_journal(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    root = str(tmp_path / "models")
    workers = [spawn.Process(target=append_many, args=(root, who)) for who in ("ann", "bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    entries = Store(root).journal.entries(PROJECT)
    assert sorted(entry.who for entry in entries) == ["ann"] * 10 + ["bob"] * 10
    assert len({entry.key for entry in entries}) == 20
