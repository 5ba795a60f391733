"""Open-vocabulary models, YOLO-World and YOLOE: their classes are prompts, texts such as "a ripe apple".

A text encoder turns the prompts into vectors, once. The model with these vectors is an ordinary weights file, which
needs no encoder any more: it lies in MODEL_DIR/base/prompted under a hash of the weights and of the prompts.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import ModelError
from backend.storage import file_sha256
from backend.yolo import approved_weights
from backend.yolo.runtime import load_model, quiet_ultralytics

if TYPE_CHECKING:
    import torch

FOLDER = "base/prompted"
KEPT = 8  # files in it; those that were used last
_CLIP = "clip:ViT-B/32"  # the encoder of YOLO-World
# ultralytics' name of a text encoder -> the file with its weights, TorchScript in each case
ENCODERS = {_CLIP: "ViT-B-32.pt", "mobileclip:blt": "mobileclip_blt.ts", "mobileclip2:b": "mobileclip2_b.ts"}
_SOURCES = {
    "ViT-B-32.pt": "OpenAI's CLIP downloads it for ViT-B/32",
    "mobileclip_blt.ts": "an asset of ultralytics' releases on GitHub",
    "mobileclip2_b.ts": "an asset of ultralytics' releases on GitHub",
}
_PACKAGE = "git+https://github.com/ultralytics/CLIP.git"
_AT_ONCE = 80  # prompts that the encoder takes at a time


def prompted(weights: Path, prompts: Mapping[str, str], model_dir: Path) -> Path:
    """Return a weights file of an open-vocabulary model that finds `prompts`: the name of each class -> its text.

    The file is made once. Raises ModelError where the text encoder is missing, with what to put where.
    """
    key = json.dumps([file_sha256(weights), list(prompts.items())])
    target = model_dir / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt"
    if target.is_file():
        os.utime(target)
        return target
    model = load_model(weights)
    variant = _CLIP if type(model).__name__ == "WorldModel" else getattr(model, "text_model", "mobileclip:blt")
    _set_classes(model, tuple(prompts), text_vectors(variant, tuple(prompts.values()), model_dir))
    _write(model, target)
    for old in sorted(target.parent.glob("*.pt"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return target


def text_vectors(variant: str, texts: Sequence[str], model_dir: Path) -> torch.Tensor:
    """Return the vectors (n, 512) of texts, of length 1, by the encoder `variant`; nothing is downloaded or installed.

    Raises ModelError for an encoder that is missing, or that the admin has not approved.
    """
    quiet_ultralytics()
    import torch

    weights = _encoder_file(variant, model_dir)
    clip: Any = importlib.import_module("clip")  # has the words of all these encoders
    jit: Any = torch.jit
    encoder = jit.load(str(weights), map_location="cpu").eval()
    if variant == _CLIP:  # its TorchScript names a GPU, so only the numbers are taken from it
        encoder = importlib.import_module("clip.model").build_model(encoder.state_dict()).float().eval().encode_text
    with torch.no_grad():
        tokens = clip.tokenize(list(texts), truncate=True)
        vectors: torch.Tensor = torch.cat([encoder(part).float() for part in tokens.split(_AT_ONCE)])
        return torch.nn.functional.normalize(vectors, dim=-1)


def encoder_of(name: str) -> str:
    """Return the name of the file with the text encoder of open-vocabulary weights.

    >>> encoder_of("yolov8s-worldv2.pt"), encoder_of("yoloe-11s-seg.pt"), encoder_of("yoloe-26n-seg.pt")
    ('ViT-B-32.pt', 'mobileclip_blt.ts', 'mobileclip2_b.ts')
    """
    if not name.startswith("yoloe"):
        return ENCODERS[_CLIP]
    return ENCODERS["mobileclip2:b" if name.startswith("yoloe-26") else "mobileclip:blt"]


def check_encoder(name: str, model_dir: Path) -> Path:
    """Return the file of a text encoder; raises ModelError if it or the package `clip` is missing.

    Nothing is downloaded or installed.
    """
    then = "then run `yolo-backend score` for the project"
    source = f"{name} ({_SOURCES[name]})"
    if find_spec("clip") is None:
        raise ModelError(
            "prompts need the Python package clip, which is not installed",
            fix=f"run `pip install {_PACKAGE}` in the backend's environment, and put {source} into MODEL_DIR, {then}",
        )
    try:
        return approved_weights.check(name, model_dir)
    except ModelError as error:
        fix = f"get {source}; {error.fix}; {then}"
        raise ModelError(f"prompts need the text encoder {name}: {error.what}", where=error.where, fix=fix) from error


def _encoder_file(variant: str, model_dir: Path) -> Path:
    if variant not in ENCODERS:
        raise ModelError(f"the model reads prompts by an unknown text encoder, {variant}", fix="use other base weights")
    return check_encoder(ENCODERS[variant], model_dir)


def _set_classes(model: Any, names: tuple[str, ...], vectors: torch.Tensor) -> None:
    """Set the classes of a model, with the vectors (n, 512) of their texts."""
    import torch

    head = model.model[-1]
    model.names, head.nc = dict(enumerate(names)), len(names)
    if not hasattr(head, "get_tpe"):  # YOLO-World
        model.txt_feats = vectors[None]
        return
    with torch.no_grad():
        model.pe = head.get_tpe(vectors[None])


def _write(model: Any, target: Path) -> None:
    """Write a model into a weights file, in one step."""
    import torch

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".tmp", delete=False) as file:
        torch.save({"model": model, "train_args": {}}, file)
    Path(file.name).replace(target)
