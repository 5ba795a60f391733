"""The updates of MuSGD on a CPU: in float32, as our trainings compute them, and in bfloat16, as ultralytics does."""

from __future__ import annotations

from pathlib import Path

import torch

from backend.yolo.muon import float32_on_cpu
from backend.yolo.runtime import quiet_ultralytics
from tests.benchmarks.report import Result
from tests.benchmarks.timing import interleaved, speedup

ROUNDS = 3
TARGET = 0.8  # a CPU with instructions for bfloat16 must not lose much


def run(_folder: Path) -> list[Result]:
    """Take turns with the update of all convolutions of a YOLO11n."""
    quiet_ultralytics()
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.optim import muon

    torch.manual_seed(0)
    weights = [weight for weight in DetectionModel("yolo11n.yaml", verbose=False).parameters() if weight.ndim == 4]
    gradients = [torch.randn_like(weight) for weight in weights]

    def update() -> None:
        muon.muon_update(gradients, [torch.zeros_like(weight) for weight in weights])

    def update_in_float32() -> None:
        with float32_on_cpu(torch.device("cpu")):
            update()

    ours_s, theirs_s = interleaved(ROUNDS, update_in_float32, update)
    details = {"ours s": min(ours_s), "ultralytics s": min(theirs_s)}
    title = "updates of MuSGD for a YOLO11n: float32 vs bfloat16"
    return [Result("muon", title, speedup(ours_s, theirs_s), TARGET, "x", details=details)]
