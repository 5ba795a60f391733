from __future__ import annotations

import time
from pathlib import Path

import pytest

from backend.errors import ModelError
from backend.yolo.base_weights import BaseWeights, base_weights
from backend.yolo.runtime import quiet_ultralytics
from tests.squares import Learned

pytestmark = pytest.mark.torch


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("folder", ["", "base"])
def test_base_weights_in_the_model_dir_are_used(learned: Learned, tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "mine.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(learned.trained.weights.read_bytes())
    assert base_weights("mine.pt", tmp_path) == BaseWeights(str(path), pretrained=True, note="")


@pytest.mark.parametrize("name", ["yolo11n.pt", "yolo26n.pt", "yolov8s.pt"])
@pytest.mark.usefixtures("no_network")
def test_without_pretrained_weights_the_architecture_is_the_base(name: str, tmp_path: Path) -> None:
    quiet_ultralytics()
    started = time.monotonic()
    base = base_weights(name, tmp_path)
    assert time.monotonic() - started < 10
    assert (base.source, base.pretrained) == (name.replace(".pt", ".yaml"), False)
    assert f"put {name} into {tmp_path}" in base.note
    mark = tmp_path / "base" / name.replace(".pt", ".unavailable")
    attempted = mark.stat().st_mtime_ns
    assert base_weights(name, tmp_path) == base
    assert mark.stat().st_mtime_ns == attempted  # not tried again within the hour


@pytest.mark.parametrize(
    "name", ["", "../yolo11n.pt", "/etc/yolo11n.pt", "a/b.pt", "yolo11n", "yolo11n.onnx", ".pt", "..pt", "yolo\n.pt"]
)
def test_a_base_model_is_the_plain_name_of_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="BASE_MODEL"):
        base_weights(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mymodel.pt", "no architecture of that name"),
        ("yolo99n.pt", "no architecture of that name"),
        ("yolo11n-seg.pt", "a segment model, not a detection model"),
    ],
)
def test_an_unknown_base_model_is_named(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        base_weights(name, tmp_path)
    assert name in str(caught.value)
    assert caught.value.fix


def test_a_damaged_base_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "yolo11n.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="cannot read the weights"):
        base_weights("yolo11n.pt", tmp_path)
