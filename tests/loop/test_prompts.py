"""Prompts where MODEL_DIR is a bucket: this machine gets the text encoder from there, once."""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec
import pytest

from backend.errors import ModelError
from backend.labelstudio import label_config
from backend.loop import prompts
from backend.loop.checks import machine_checks
from backend.settings import Settings
from backend.yolo import base_weights
from backend.yolo.runtime import load_model
from tests.prompted import approved_encoder, tiny_open, words
from tests.support import CLASSES, CONFIG, open_context

pytestmark = [pytest.mark.torch, pytest.mark.redis]

BASE, ENCODER = "yoloe-11n-seg.pt", "mobileclip_blt.ts"


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # the encoders are TorchScript files
def test_the_text_encoder_comes_from_the_bucket(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the local copies are written there
    monkeypatch.setattr("backend.storage.LOOK_S", 0.0)
    monkeypatch.setattr("backend.yolo.open_vocabulary.find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, "clip", words())
    root, copies = "memory://encoders", tmp_path / ".yolo-backend"
    weights = tiny_open(tmp_path / BASE, Path(BASE).stem)
    (tag,) = label_config.parse(CONFIG)
    with open_context(settings.model_copy(update={"model_dir": root, "base_model": BASE})) as context:
        base = base_weights.BaseWeights(str(weights), pretrained=True, note="")
        with pytest.raises(ModelError, match=f"prompts need the text encoder {ENCODER}"):
            prompts.weights(context, 7, tag, BASE, base)
        (missing,) = machine_checks.text_encoders(context.settings, context.store)
        assert (missing.ok, missing.fix.startswith(f"get {ENCODER} (an asset of ")) == (False, True)

        (tmp_path / "made").mkdir()
        encoder = approved_encoder(tmp_path / "made" / ENCODER)
        put(root, *encoder.parent.iterdir())
        put(root, write(tmp_path / "ViT-B-32.pt", b"the encoder of other weights"))
        answering = prompts.weights(context, 7, tag, BASE, base)
        assert answering is not None
        assert tuple(load_model(answering).names.values()) == CLASSES
        assert (copies / ENCODER).read_bytes() == encoder.read_bytes()
        assert not (copies / "ViT-B-32.pt").exists()
        (found,) = machine_checks.text_encoders(context.settings, context.store)
        assert (found.ok, found.detail) == (
            True,
            f"{ENCODER}, which reads the prompts of {BASE}, is at {copies / ENCODER}",
        )


def put(root: str, *files: Path) -> None:
    for file in files:
        with fsspec.open(f"{root}/{file.name}", "wb") as copy:
            copy.write(file.read_bytes())


def write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file
