"""Which MODEL_DIR is a folder of this machine: one answer for the store and for all that lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.loop import context
from backend.settings import Settings
from backend.storage import LocalFiles, local_folder, local_root, open_files
from backend.web import redaction


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_a_folder_is_local_in_each_form(form: str, tmp_path: Path) -> None:
    root = form.format(tmp_path / "models")
    settings = Settings(model_dir=root)
    assert local_root(root) == local_folder(root) == context.local_dir(settings) == tmp_path / "models"
    assert not context.is_remote(settings)
    assert isinstance(open_files(root, tmp_path), LocalFiles)
    assert redaction.roots_of(settings)[str(tmp_path / "models")] == "MODEL_DIR"


def test_a_relative_folder_and_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert local_root("models") == tmp_path / "models"
    assert local_root("~/models") == tmp_path / "home" / "models"
    open_files("~/models", tmp_path).write("a/b", b"x")
    assert (local_folder("~/models") / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("root", ["s3://bucket/folder", "memory://x", "dir::file:///srv/models", "unknown://x"])
def test_beside_an_object_store_there_is_a_folder_for_copies(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_root(root) is None
    assert context.is_remote(Settings(model_dir=root))
    assert local_folder(root) == tmp_path / ".yolo-backend"
