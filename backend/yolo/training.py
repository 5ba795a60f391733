"""Training of models with ultralytics, from a YOLO data set to weights."""

from __future__ import annotations

import functools
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.errors import BackendError, TrainingError, out_of_gpu_memory
from backend.types import HyperParameters, YoloTask
from backend.yolo import classifier_training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.muon import float32_on_cpu
from backend.yolo.runtime import free_memory, quiet_ultralytics, select_device, yolo_class
from backend.yolo.tasks import RECIPES

log = logging.getLogger(__name__)

_CACHE_BYTES = 1 << 30  # if the decoded images take less, they stay in memory
_OPTIMIZER = "MuSGD"  # from scratch; 120 steps on 50 images of BCCD: mAP50 .36 .48 .43, AdamW at .002: .45 .27
_LR0 = 0.01
_WARMUP_EPOCHS = 3.0


@dataclass(frozen=True, slots=True)
class EpochReport:
    """The progress of a training after an epoch (the first is 1)."""

    epoch: int
    epochs: int
    losses: Mapping[str, float]  # mean over the epoch, e.g. {"box_loss": 1.2, "cls_loss": ...}
    eta_s: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training; `weights` holds no optimiser state."""

    weights: Path
    epochs: int
    seconds: float
    losses_finite: bool


def train(
    data_yaml: Path, base: BaseWeights, hyper: HyperParameters, out: Path, on_epoch: Callable[[EpochReport], None]
) -> Trained:
    """Train from the base weights, and write the averaged (EMA) weights of the last epoch to `out`/weights.pt.

    If the GPU runs out of memory, it starts again with half the batch and twice the batches per optimiser step.
    `on_epoch` runs after each epoch; its exceptions end the training and reach the caller. Raises TrainingError if
    ultralytics cannot train on these data, or the losses stay NaN.
    """
    batch = hyper.batch
    while True:
        try:
            return _train(data_yaml, base, replace(hyper, batch=batch), hyper.batch, out, on_epoch)
        except TrainingError as error:
            if batch == 1 or error.__cause__ is None or not out_of_gpu_memory(error.__cause__):
                raise
        log.warning("the GPU has no memory for a batch of %d: the training begins again with half", batch)
        batch //= 2
        free_memory()  # outside the `except`, as the error would keep the training's tensors


def _train(
    data_yaml: Path,
    base: BaseWeights,
    hyper: HyperParameters,
    step: int,
    out: Path,
    on_epoch: Callable[[EpochReport], None],
) -> Trained:
    """Train once; `step` is the number of images per optimiser step, in batches of `hyper.batch`."""
    quiet_ultralytics()
    started = time.monotonic()
    finite = True

    def report_epoch(run: Any) -> None:
        nonlocal finite
        losses = {name: float(value) for name, value in run.tloss.items()}
        finite = finite and all(map(math.isfinite, losses.values()))
        done = run.epoch + 1
        if hyper.minutes:
            _cut(run, done, hyper.minutes)
        eta = (time.time() - run.train_time_start) / done * (run.epochs - done)
        on_epoch(EpochReport(done, run.epochs, losses, eta))

    try:
        run = run_class(base.task)(overrides=_overrides(data_yaml, base, hyper, step, out))
        run.add_callback("on_fit_epoch_end", report_epoch)
        with float32_on_cpu(run.device):
            run.train()
    except BackendError:
        raise
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainingError(f"the training failed: {reason}", where=str(data_yaml)) from error
    return Trained(_stripped(run.last, out), run.epoch + 1, time.monotonic() - started, finite)


def _cut(run: Any, done: int, minutes: float) -> None:
    """Lower the epochs of a training to those that fit into its minutes, at the pace so far.

    The learning rate follows the number of epochs.
    """
    pace = (time.time() - run.train_time_start) / done
    most = max(done + 1, int(minutes * 60 / pace))  # at least one more, because the last epoch writes the weights
    if done < run.epochs and most < run.epochs:
        run.epochs = run.args.epochs = most
        run.args.close_mosaic = math.ceil(most / 10)


def _overrides(data_yaml: Path, base: BaseWeights, hyper: HyperParameters, step: int, out: Path) -> dict[str, Any]:
    """Return the trainer's arguments: those in `hyper`, without plots, validation and processes of its own."""
    device = select_device(hyper.device)
    images = sum(1 for _ in (data_yaml.parent / "images" / "train").glob("*"))
    return {
        "task": base.task,
        "model": base.architecture or base.source,
        "pretrained": base.source if base.architecture else True,
        "data": str(data_yaml),
        "epochs": hyper.epochs,
        "batch": hyper.batch,
        "nbs": step,  # usually the size of a batch, so that a batch is an optimiser step, in which the budget counts
        "imgsz": hyper.imgsz,
        "seed": hyper.seed,
        "device": str(device),
        "deterministic": True,
        "amp": "bf16" if device.type == "cuda" and _has_bf16() else False,  # fp16 would download a model to check it
        "optimizer": "auto" if base.pretrained else _OPTIMIZER,  # "auto" sets a learning rate of its own
        "lr0": _LR0,
        "momentum": 0.9,
        "warmup_epochs": min(_WARMUP_EPOCHS, hyper.epochs / 10),
        "warmup_bias_lr": 0.0,
        "close_mosaic": math.ceil(hyper.epochs / 10),
        "cache": "ram" if images * hyper.imgsz**2 * 3 < _CACHE_BYTES else False,
        "workers": 0,
        "val": False,
        "save": False,
        "plots": False,
        "verbose": False,
        "save_dir": str(out.absolute()),
        "exist_ok": True,
    }


def _has_bf16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@functools.cache
def run_class(task: YoloTask) -> Any:
    """Return ultralytics' trainer of a task without validation, because `evaluate` measures both models afterwards."""
    trainer: Any = classifier_training.trainer_class() if task == "classify" else yolo_class(RECIPES[task].trainer)

    class Run(trainer):
        """A training without validation."""

        def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
            """Return the batches of the training set, also as those of a validation that never runs."""
            if mode == "val":
                return self.train_loader
            return super().get_dataloader(dataset_path, batch_size, rank, mode)

        def validate(self) -> tuple[dict[str, float], None]:
            """Skip the validation after an epoch."""
            return {}, None

        def final_eval(self) -> None:
            """Skip the validation after the training."""

    return Run


def _stripped(last: Path, out: Path) -> Path:
    """Move the last checkpoint to `out`/weights.pt without its optimiser state."""
    from ultralytics.utils.torch_utils import strip_optimizer

    if not last.is_file():
        raise TrainingError("the training wrote no weights", where=str(out))
    strip_optimizer(last)
    weights = last.rename(out / "weights.pt")
    shutil.rmtree(last.parent)
    return weights
