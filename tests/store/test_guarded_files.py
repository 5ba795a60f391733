"""A store that cannot be used gives one error, which names the file and the cure."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import fsspec
import pytest

from backend.errors import StoreError
from backend.store.guarded_files import library_errors, open_store_files
from backend.store.store import Store


def store(folder: Path) -> Store:
    return Store(str(folder))


def test_a_store_that_works_is_left_as_it_was(tmp_path: Path) -> None:
    store(tmp_path / "models").check()
    assert list((tmp_path / "models").iterdir()) == []
    Store("memory://checked").check()


@pytest.mark.parametrize(
    ("root", "cure"),
    [
        ("s3://bucket/models", "pip install 'yolo-backend[s3]'"),
        ("gs://bucket/models", "pip install 'yolo-backend[gcs]'"),
        ("abfs://container/models", "pip install 'yolo-backend[azure]'"),
        ("banana://models", "write a folder, or an address like s3://bucket/folder"),
    ],
)
def test_an_address_that_nothing_opens(root: str, cure: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as refused:
        open_store_files(root, tmp_path)
    assert refused.value.fix == cure


@pytest.mark.parametrize(
    ("kind", "message", "cure"),
    [
        ("file", "Not a directory|File exists", "move the file away: a folder belongs there"),
        ("nowhere", "No such file or directory|Permission denied", "set MODEL_DIR to"),
        ("full", "No space left on device", "make room on this disk"),
    ],
)
def test_a_model_dir_that_cannot_be_written(
    kind: str, message: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "file":
        (tmp_path / "models").touch()
    folder = Path("/proc/models") if kind == "nowhere" else tmp_path / "models"
    if kind == "full":
        monkeypatch.setattr(os, "fsync", lambda _: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(StoreError, match=message) as refused:
        store(folder).check()
    assert refused.value.where.startswith(str(folder)) or kind == "full"
    assert cure in refused.value.fix


def test_a_stray_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "projects").mkdir(parents=True)
    (folder / "projects/7").write_text("stray")
    (folder / "projects/notes.txt").write_text("not a number, so nobody's folder")
    with pytest.raises(StoreError, match="Not a directory") as refused:
        store(folder).project_ids()
    assert refused.value.where == str(folder / "projects/7")
    with pytest.raises(StoreError, match="Not a directory"):
        store(folder).versions(7)


def test_an_error_of_a_library_names_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("botocore.exceptions")

    class BotoCoreError(Exception):
        pass

    library.BotoCoreError = BotoCoreError  # type: ignore[attr-defined]  # as botocore has it
    assert library_errors() == (OSError, *library_errors()[1:])
    monkeypatch.setitem(sys.modules, "botocore.exceptions", library)
    files = open_store_files("memory://broken", Path("/nonexistent"))

    def refuse(*_: object, **__: object) -> None:
        raise BotoCoreError("Unable to locate credentials")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", refuse)
    with pytest.raises(StoreError, match="BotoCoreError: Unable to locate credentials") as refused:
        files.write("a", b"")
    assert refused.value.where == "memory:///broken/a"
    assert "AWS_ENDPOINT_URL" in refused.value.fix


def test_a_copy_follows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.storage.LOOK_S", 0.0)
    store, target = Store("memory://copied"), tmp_path / "base/mine.pt"
    with fsspec.open("memory://copied/base/mine.pt", "wb") as file:
        file.write(b"first")
    store.fetch("base/mine.pt", tmp_path)
    assert target.read_bytes() == b"first"
    target.write_bytes(b"kept")  # no second download while the file is the same
    store.fetch("base/mine.pt", tmp_path)
    assert target.read_bytes() == b"kept"
    with fsspec.open("memory://copied/base/mine.pt", "wb") as file:
        file.write(b"the second")
    store.fetch("base/mine.pt", tmp_path)
    assert target.read_bytes() == b"the second"
    fsspec.filesystem("memory").rm("/copied/base/mine.pt")
    store.fetch("base/mine.pt", tmp_path)
    assert not target.exists()
    target.write_bytes(b"downloaded by ultralytics")
    store.fetch("base/mine.pt", tmp_path)
    assert target.exists()
