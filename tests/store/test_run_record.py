"""The record of a `yolo-backend run` in an object store: one run at a time; a killed run does not block for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import fsspec
import pytest

from backend.errors import BackendError
from backend.storage import Files
from backend.store import run_record
from backend.store.guarded_files import open_store_files
from backend.store.run_record import RunRecord, recorded

ROOT = "memory://recorded"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    yield open_store_files(ROOT, tmp_path)
    store, path = fsspec.core.url_to_fs(ROOT)
    store.rm(path, recursive=True)


def pass_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time come at which records are renewed."""
    now = time.monotonic() + run_record.RENEW_S
    monkeypatch.setattr(run_record, "monotonic", lambda: now)


def records(files: Files) -> list[str]:
    return sorted(files.entries("runs"))


def test_a_second_run_is_refused_until_the_first_ends(files: Files) -> None:
    with recorded(files):
        with pytest.raises(BackendError, match=r"another `yolo-backend run` is at work.* process \d+ on .*wait \d+ s"):
            recorded(files).__enter__()
        assert records(files) == ["1"]
    assert records(files) == []
    with recorded(files):
        pass


def test_a_record_that_is_not_renewed_is_taken_over_and_the_late_run_ends(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as runs:
        late = runs.enter_context(recorded(files))
        with monkeypatch.context() as patched:
            patched.setattr(run_record, "STALE_S", 0.0)
            successor = runs.enter_context(recorded(files))
        assert records(files) == ["2"]
        late.look()  # it is not time yet
        pass_time(monkeypatch)
        with pytest.raises(BackendError, match="took over this MODEL_DIR while this one stood still"):
            late.look()
        late.release()
        successor.look()
        assert records(files) == ["2"], "the late one takes nothing from its successor"


def test_a_run_renews_its_record(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(files) as record:
        before = files.open("runs/1").read()
        pass_time(monkeypatch)
        record.look()
        after = files.open("runs/1").read()
        assert after != before
        record.look()  # and then not at each look
        assert files.open("runs/1").read() == after


def test_one_of_several_simultaneous_starts_succeeds(tmp_path: Path) -> None:
    """Behave as an object store that refuses a second creation; fsspec's memory does not guarantee this for threads."""
    files = open_store_files(f"file://{tmp_path}", tmp_path)

    def start(_: int) -> bool:
        try:
            RunRecord(files).take()
        except BackendError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(start, range(8))) == [False] * 7 + [True]


def test_a_store_that_is_away_for_a_while_ends_no_run(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("the network is away")

    with recorded(files) as record:
        pass_time(monkeypatch)
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(fsspec.get_filesystem_class("memory"), "ls", away)
            record.look()
        assert "is not renewed: " in caplog.text
        record.look()


def test_a_damaged_record_blocks_no_run(files: Files) -> None:
    files.write("runs/3", b"{")
    with recorded(files):
        assert records(files) == ["4"]
