"""Tiny open-vocabulary models that see one thing everywhere, and an encoder of prompts that knows this thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from backend.storage import file_sha256
from backend.yolo.approved_weights import LISTING, entry
from backend.yolo.runtime import quiet_ultralytics

if TYPE_CHECKING:
    import torch

THING = "a thing"  # the prompt for what the models see
_KINDS = {"yolov8n-worldv2": "WorldModel", "yoloe-11n-seg": "YOLOESegModel"}
_LENGTH = 40.0  # of the vector of each anchor; with a head's first scale and bias its sigmoid is 0.99


def tiny_open(path: Path, architecture: str = "yolov8n-worldv2") -> Path:
    """Save untrained weights whose anchors all have the vector of THING."""
    quiet_ultralytics()
    import torch
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    model = getattr(tasks, _KINDS[architecture])(f"{architecture}.yaml", nc=2, verbose=False)
    with torch.no_grad():
        for branch in model.model[-1].cv3:
            branch[-1].weight.zero_()
            branch[-1].bias.copy_(_LENGTH * _vector(seen=True))
    torch.save({"model": model, "train_args": {}}, path)
    return path


def approved_encoder(file: Path) -> Path:
    """Write a text encoder as TorchScript, and list it beside the file; it takes the tokens of `words`."""
    quiet_ultralytics()
    import torch

    class Encoder(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.float().repeat(1, 256)

    jit: Any = torch.jit
    jit.trace(Encoder(), torch.zeros(1, 2, dtype=torch.int64)).save(str(file))
    (file.parent / LISTING).write_text(entry(file.name, file_sha256(file)) + "\n")
    return file


def words() -> Any:
    """Return what stands for the package clip: it tells texts by their lengths."""
    import torch

    return SimpleNamespace(tokenize=lambda texts, truncate: torch.tensor([[len(text), 3] for text in texts]))


def encode(_variant: str, texts: Sequence[str], _model_dir: Path) -> torch.Tensor:
    """Return a vector for THING, and another one for all other texts."""
    import torch

    return torch.stack([_vector(seen=text == THING) for text in texts])


def _vector(*, seen: bool) -> torch.Tensor:
    import torch

    return torch.eye(512)[0 if seen else 1]
