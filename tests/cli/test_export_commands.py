"""`export` and `import-weights` as a shell sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.datasets import reader
from backend.yolo import approved_weights
from tests.cli.commands import cli
from tests.cli.conftest import LabeledProject
from tests.support import publish, tiny_yolo

pytestmark = pytest.mark.torch


@pytest.mark.label_studio
def test_export_lists_what_it_wrote(labeled: LabeledProject, tiny_weights: Path, tmp_path: Path) -> None:
    version = publish(labeled.context.store, labeled.project, tiny_weights)
    out = tmp_path / "out"
    done = cli(labeled.environ, "export", str(labeled.project), "--out", str(out))
    assert done.returncode == 0, done.stderr
    files = {f"label/{version.name}.pt", "label/data.yaml", "label/coco-train.json", "datasheet.md"}
    written = {str(Path(line).relative_to(out)) for line in done.stdout.splitlines()}
    assert written == files | ({"label/coco-val.json"} & written)
    assert "export: images, 1 of 6 (17%)" in done.stderr
    data = reader.read(out / "label" / "data.yaml")
    assert data.classes == ("cat", "dog")
    assert len({file.path.name for file in (*data.train, *data.val)}) == labeled.labeled
    again = cli(labeled.environ, "export", str(labeled.project), "--out", str(out))
    assert again.returncode == 1
    assert "the folder is not empty" in again.stderr
    wrong = cli(labeled.environ, "export", str(labeled.project), "--out", str(tmp_path / "b"), "--what", "voc")
    assert (wrong.returncode, "unknown kind 'voc'" in wrong.stderr) == (1, True)


def test_imported_weights_are_approved(environ: dict[str, str], tmp_path: Path, classifier: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(classifier.read_bytes())
    for _ in range(2):  # the second time changes nothing
        done = cli(environ, "import-weights", str(mine))
        assert done.returncode == 0, done.stderr
    assert "a classify model of 2 classes: cat, dog" in done.stdout
    folder = Path(environ["MODEL_DIR"])
    approved_weights.check("mine.pt", folder)
    assert len((folder / approved_weights.LISTING).read_text().splitlines()) == 1
    tiny_yolo(mine, ("other",))
    other = cli(environ, "import-weights", str(mine))
    assert other.returncode == 1
    assert "MODEL_DIR has other weights named mine.pt" in other.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.pt", b"not a model", "these weights cannot be used"),
        ("evil.pt", b"cos\nsystem\n(S'touch EVIL'\ntR.", "these weights cannot be used"),
        ("two words.pt", b"", "is not the plain name"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    environ: dict[str, str], tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content.replace(b"EVIL", str(tmp_path / "evil").encode()))
    done = cli(environ, "import-weights", str(tmp_path / name))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "evil").exists()
    assert not (Path(environ["MODEL_DIR"]) / name).exists()
    assert not (Path(environ["MODEL_DIR"]) / approved_weights.LISTING).exists()


@pytest.mark.redis
def test_onnx_is_refused_before_anything_is_read_where_its_package_is_missing(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['onnx'] = None")  # as if it were missing
    environ["PYTHONPATH"] = str(tmp_path)
    command = [sys.executable, "-m", "backend.cli", "export", "7", "--out", str(tmp_path / "out"), "--what", "onnx"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the package onnx is not installed" in done.stderr
    assert "pip install onnx" in done.stderr
