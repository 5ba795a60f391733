from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, UnidentifiedImageError

from backend.errors import BackendError, ModelError, SettingError
from backend.yolo.runtime import load_model, quiet_ultralytics, select_device, task_of
from tests.support import ROOT

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    quiet_ultralytics()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such weights"), (b"", "cannot read the weights"), (b"not a checkpoint", "cannot read the weights")],
)
def test_damaged_weights(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "yolo11n.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@dataclass(frozen=True)
class Trap:
    """An object whose pickle makes a folder when it is opened."""

    folder: Path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_weights_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ModelError):
        load_model(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_weights_cannot_run_code_where_somebody_has_imported_ultralytics_before(tmp_path: Path) -> None:
    """Its restricted unpickler is off by default, and it reads the variable for it at import."""
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    code = f"""
import ultralytics.nn.tasks
from pathlib import Path
from backend.errors import ModelError
from backend.yolo.runtime import load_model
try:
    load_model(Path({str(tmp_path / "trap.pt")!r}))
except ModelError:
    print("refused")
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "ULTRALYTICS_"))}
    environ["YOLO_CONFIG_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "refused", done.stderr
    assert not (tmp_path / "sprung").exists()


def test_another_task_is_refused(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import OBBModel, SemanticSegmentationModel

    torch.save({"model": OBBModel("yolo11n-obb.yaml", nc=3, verbose=False)}, tmp_path / "obb.pt")
    with pytest.raises(ModelError, match="class OBBModel, not a YOLO detection model"):
        load_model(tmp_path / "obb.pt", "detect")
    assert task_of(load_model(tmp_path / "obb.pt", "obb")) == "obb"
    semantic = SemanticSegmentationModel("yolo26n-sem.yaml", nc=3, verbose=False)
    torch.save({"model": semantic}, tmp_path / "sem.pt")
    with pytest.raises(ModelError, match="class SemanticSegmentationModel, not a YOLO detection model"):
        load_model(tmp_path / "sem.pt", "detect")
    assert task_of(load_model(tmp_path / "sem.pt")) == "semantic"


@pytest.mark.parametrize("device", ["99", "cuda:99", "toaster"])
def test_a_device_this_machine_lacks(device: str) -> None:
    with pytest.raises(SettingError, match="DEVICE") as caught:
        select_device(device)
    assert isinstance(caught.value, BackendError)


def test_ultralytics_does_not_change_how_others_open_images(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "text.jpg")


def test_ultralytics_leaves_no_trace_at_home_and_says_nothing(tmp_path: Path) -> None:
    code = (
        "from backend.yolo.runtime import quiet_ultralytics as quiet; quiet(); quiet();"
        "from ultralytics.utils import ONLINE, SETTINGS, AUTOINSTALL; from ultralytics.utils.events import events;"
        "assert not (ONLINE or AUTOINSTALL or SETTINGS['sync'] or SETTINGS['mlflow'] or events.enabled)"
    )
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "XDG_", "MPL"))}
    environ = {**inherited, "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=home, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == ["tmp"]


_STARTED = """
import sys
from backend.yolo.runtime import preload_training, quiet_ultralytics
quiet_ultralytics()
import torch
from torchvision.ops import nms
assert nms(torch.tensor([[0., 0., 9., 9.], [0., 0., 9., 8.]]), torch.tensor([.1, .9]), 0.5).tolist() == [1]
assert "torchvision" in sys.modules and "sympy" not in sys.modules and "torch._dynamo" not in sys.modules
preload_training()
from torch._dynamo.utils import is_compile_supported
assert is_compile_supported.__module__ == "torch._dynamo.utils"
"""


def test_a_process_that_only_predicts_imports_no_compiler() -> None:
    """Before: each process imported torch's compiler with torchvision, 80 MB that predictions do not need."""
    subprocess.run([sys.executable, "-c", _STARTED], check=True)
