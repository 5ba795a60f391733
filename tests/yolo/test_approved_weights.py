from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backend.errors import ModelError
from backend.yolo import approved_weights

pytestmark = pytest.mark.torch


def put(folder: Path, name: str, content: bytes = b"weights") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("place", ["mine.pt", "base/mine.pt"])
def test_the_command_of_the_message_approves_them(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "a folder; 'quoted'"
    put(folder, place)
    with pytest.raises(ModelError, match=r"mine\.pt are not approved") as caught:
        approved_weights.check("mine.pt", folder)
    command = caught.value.fix.partition(": ")[2]
    done = subprocess.run(command.replace("sha256sum mine.pt", f"sha256sum {place}"), shell=True, check=False)
    assert done.returncode == 0
    approved_weights.check("mine.pt", folder)
    approved_weights.listed("mine.pt", folder)


def test_a_file_changed_after_its_approval_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "mine.pt")
    subprocess.run("sha256sum --binary *.pt > weights.sha256", shell=True, check=True, cwd=tmp_path)
    approved_weights.check("mine.pt", tmp_path)
    path.write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"differ from the approved file.*sha256sum mine\.pt"):
        approved_weights.check("mine.pt", tmp_path)


def test_a_sum_counts_for_its_own_file_only(tmp_path: Path) -> None:
    put(tmp_path, "mine.pt")
    put(tmp_path, "other.pt")
    subprocess.run("sha256sum mine.pt > weights.sha256", shell=True, check=True, cwd=tmp_path)
    with pytest.raises(ModelError, match=r"other\.pt are not approved"):
        approved_weights.check("other.pt", tmp_path)


def test_listed_but_not_there(tmp_path: Path) -> None:
    (tmp_path / "weights.sha256").write_text("0" * 64 + "  mine.pt\nnonsense\n\n")
    assert approved_weights.listed("mine.pt", tmp_path) == {"0" * 64}
    with pytest.raises(ModelError, match="no such weights"):
        approved_weights.check("mine.pt", tmp_path)


@pytest.mark.parametrize(
    "name", ["", "../a.pt", "a/b.pt", "/a.pt", "a.yaml", "../a.ts", "a.ts.yaml", "-rf;x.pt", "a b.pt", ".pt", "$(x).pt"]
)
def test_names_with_folders_or_more_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="not the plain name"):
        approved_weights.listed(name, tmp_path)
