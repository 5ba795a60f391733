"""Weights -> an ONNX file, by ultralytics' exporter."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

from backend.errors import ModelError
from backend.yolo.runtime import load_model, quiet_ultralytics

_FIX = "install it beside the backend with `pip install onnx`, then run the command again"
_OTHER_WAY = "export the weights alone (--what weights), and convert the .pt file with another release of ultralytics"


def require_exporter() -> None:
    """Raise ModelError, with the cure, if the package that writes ONNX files is missing."""
    if find_spec("onnx") is None:
        raise ModelError("the package onnx is not installed", where="--what onnx", fix=_FIX)


def export(weights: Path, target: Path, imgsz: int) -> None:
    """Write the model in `weights` for images of `imgsz` x `imgsz` pixels to `target`.

    Raises ModelError if onnx is missing, if the weights are damaged, or if the exporter fails.
    """
    require_exporter()
    load_model(weights)  # says what is wrong with a file in our words
    quiet_ultralytics()
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory(prefix="yolo-backend-") as folder, warnings.catch_warnings():
        # torch warns of what ultralytics' models do while it traces them, and of its older exporter, which ultralytics
        # chooses: nothing that the user can change. Where warnings are errors, they would end the export.
        warnings.simplefilter("ignore")
        copy = Path(folder) / "model.pt"  # the exporter writes beside the weights
        shutil.copyfile(weights, copy)
        try:
            written = YOLO(copy).export(format="onnx", imgsz=imgsz, simplify=False, device="cpu", verbose=False)
        except Exception as error:  # the exporter passes on whatever torch and onnx raise
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(f"the ONNX exporter failed: {reason}", where=str(weights), fix=_OTHER_WAY) from error
        shutil.copyfile(written, target)
