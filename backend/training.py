"""A YOLO data set -> trained weights, and weights -> their quality: the only place that trains with ultralytics."""

from __future__ import annotations

import functools
import importlib
import math
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import classifying
from backend.errors import BackendError, ModelError, TrainingError
from backend.files import file_sha256
from backend.inference import BATCH, KEEP_CONFIDENCE, load_model, quiet_ultralytics, select_device, task_of
from backend.settings import Settings
from backend.types import Metrics, YoloTask
from backend.yolo_tasks import RECIPES, example

STEPS_IMAGES = 50  # images up to which TRAIN_STEPS is meant
DOWNLOAD_S = 60.0  # longest wait for pretrained weights
RETRY_S = 3600.0  # between attempts to download them
_CACHE_BYTES = 1 << 30  # images are kept decoded in memory up to here
_OPTIMIZER = "MuSGD"  # from scratch; 120 steps on 50 images of BCCD: mAP50 .36 .48 .43, AdamW at .002: .45 .27
_LR0 = 0.01
_WARMUP_EPOCHS = 3.0


@dataclass(frozen=True, slots=True)
class Hyper:
    """What one training is run with."""

    epochs: int
    batch: int
    imgsz: int
    seed: int
    device: str
    minutes: float = 0.0  # the budget of time; 0: none


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """Where a training starts: a weights file, or an architecture's name when there are no pretrained weights."""

    source: str
    pretrained: bool
    note: str  # a warning for people; empty when pretrained
    task: YoloTask = "detect"


@dataclass(frozen=True, slots=True)
class EpochReport:
    """Where a training stands after an epoch (the first is 1)."""

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


def steps_for(images: int, settings: Settings) -> float:
    """Return the optimiser steps of a training: train_steps * (images / 50) ^ steps_growth, and no fewer below 50.

    A fixed number is a curve that falls as labels grow, because each image is seen ever more rarely; the root of the
    images is the measured law (docs/results.md).

    >>> steps_for(200, Settings(train_steps=500, steps_growth=0.5)), steps_for(10, Settings(train_steps=500))
    (1000.0, 500.0)
    """
    return float(settings.train_steps * max(images / STEPS_IMAGES, 1.0) ** settings.steps_growth)


def epochs_for(images: int, settings: Settings) -> int:
    """Return the epochs of a training: clip(ceil(steps_for * batch / images), min_epochs, max_epochs).

    >>> epochs_for(200, Settings(train_steps=500, batch=16, min_epochs=10, max_epochs=300))
    80
    """
    wanted = math.ceil(steps_for(images, settings) * settings.batch / max(images, 1))
    return min(max(wanted, settings.min_epochs), settings.max_epochs)


def base_weights(name: str, model_dir: Path, task: YoloTask = "detect") -> BaseWeights:
    """Find the base weights `name` in `model_dir` or `model_dir`/base, else download them, else start from scratch.

    Raises ModelError for a name with a folder in it, an unknown architecture, and a file for another task.
    """
    if not re.fullmatch(r"[\w-][\w.-]*\.pt", name):
        raise ModelError(
            f"BASE_MODEL={name!r} is not the plain name of a .pt file",
            fix="write a name like yolo11n.pt and put the file into MODEL_DIR",
        )
    base = model_dir / "base" / name
    for path in (model_dir / name, base):
        if path.is_file():
            _check(path, file_sha256(path), task)
            return BaseWeights(str(path), pretrained=True, note="", task=task)
    architecture = _architecture(name, task)
    if _download(base):
        _check(base, file_sha256(base), task)
        return BaseWeights(str(base), pretrained=True, note="", task=task)
    note = (
        f"No pretrained weights {name}: not in MODEL_DIR, and they could not be downloaded. Training {architecture} "
        f"from scratch, which needs more labels. Fix: put {name} into {model_dir}."
    )
    return BaseWeights(architecture, pretrained=False, note=note, task=task)


def train(
    data_yaml: Path, base: BaseWeights, hyper: Hyper, out: Path, on_epoch: Callable[[EpochReport], None]
) -> Trained:
    """Train from the base weights into `out`/weights.pt, the averaged (EMA) weights of the last epoch.

    `on_epoch` runs after each epoch; what it raises ends the training and reaches the caller.
    Raises TrainingError when ultralytics cannot train on this data, or the losses stay NaN.
    """
    quiet_ultralytics()
    started = time.monotonic()
    finite = True

    def after_epoch(run: Any) -> None:
        nonlocal finite
        losses = {name: float(value) for name, value in run.tloss.items()}
        finite = finite and all(map(math.isfinite, losses.values()))
        done = run.epoch + 1
        if hyper.minutes:
            _cut(run, done, hyper.minutes)
        eta = (time.time() - run.train_time_start) / done * (run.epochs - done)
        on_epoch(EpochReport(done, run.epochs, losses, eta))

    try:
        run = _run_class(base.task)(overrides=_overrides(data_yaml, base, hyper, out))
        run.add_callback("on_fit_epoch_end", after_epoch)
        run.train()
    except BackendError:
        raise
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainingError(f"the training failed: {reason}", where=str(data_yaml)) from error
    return Trained(_stripped(run.last, out), run.epoch + 1, time.monotonic() - started, finite)


def _cut(run: Any, done: int, minutes: float) -> None:
    """Lower the epochs of a training to what fits into its minutes, at the pace so far; the learning rate follows."""
    pace = (time.time() - run.train_time_start) / done
    most = max(done + 1, int(minutes * 60 / pace))  # the last epoch writes the weights, so one more it must be
    if done < run.epochs and most < run.epochs:
        run.epochs = run.args.epochs = most
        run.args.close_mosaic = math.ceil(most / 10)


def evaluate(weights: Path, data_yaml: Path, imgsz: int, device: str) -> Metrics:
    """Return the quality of a model on the `val` split of a data set.

    The model's classes are matched to the data's by name, so versions from before and after a change of labels compare:
    a class the model lacks gets AP 0, a class the data lacks is ignored. mAP is over the classes with boxes in `val`,
    measured as ultralytics does (confidence >= 0.001), on what the model's task finds; the data set must be one for
    this task. Raises ModelError as `load_model` does.
    """
    model = load_model(weights)
    task = task_of(model) or "detect"
    if task == "classify":
        return classifying.evaluate(model, data_yaml, imgsz, device)
    with tempfile.TemporaryDirectory() as folder:
        validator = _validator_class(task)(
            args={
                "mode": "val",
                "task": task,
                "data": str(data_yaml),
                "split": "val",
                "rect": True,
                "imgsz": imgsz,
                "batch": BATCH,
                "device": str(select_device(device)),
                "workers": 0,
                "plots": False,
                "verbose": False,
                "save_dir": folder,
            }
        )
        validator(model=model)
    found = getattr(validator.metrics, RECIPES[task].metric)
    ap50 = zip(found.ap_class_index, found.ap50, strict=True)
    return Metrics(
        map50=float(found.map50),
        map50_95=float(found.map),
        class_ap50={validator.names[index]: float(ap) for index, ap in ap50},
        images=validator.seen,
        boxes=int(validator.metrics.nt_per_class.sum()),
        detections=validator.detections,
    )


def _overrides(data_yaml: Path, base: BaseWeights, hyper: Hyper, out: Path) -> dict[str, Any]:
    """Return the trainer's arguments: what `hyper` says, no plots, no validation, no processes of its own."""
    device = select_device(hyper.device)
    images = sum(1 for _ in (data_yaml.parent / "images" / "train").glob("*"))
    return {
        "task": base.task,
        "model": base.source,
        "data": str(data_yaml),
        "epochs": hyper.epochs,
        "batch": hyper.batch,
        "nbs": hyper.batch,  # every batch is an optimiser step: the budget is counted in steps
        "imgsz": hyper.imgsz,
        "seed": hyper.seed,
        "device": str(device),
        "deterministic": True,
        "amp": "bf16" if device.type == "cuda" and _has_bf16() else False,  # fp16 would download a model to check it
        "optimizer": "auto" if base.pretrained else _OPTIMIZER,  # "auto" brings its own learning rate
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


def _ultralytics(path: str) -> Any:
    """Return a class of ultralytics.models.yolo, e.g. "obb.OBBTrainer"."""
    package, _, name = path.partition(".")
    return getattr(importlib.import_module(f"ultralytics.models.yolo.{package}"), name)


@functools.cache
def _run_class(task: YoloTask) -> Any:
    """Return ultralytics' trainer of a task without any validation: `evaluate` judges both models afterwards."""
    trainer: Any = classifying.trainer_class() if task == "classify" else _ultralytics(RECIPES[task].trainer)

    class Run(trainer):
        def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
            if mode == "val":
                return self.train_loader  # never read
            return super().get_dataloader(dataset_path, batch_size, rank, mode)

        def validate(self) -> tuple[dict[str, float], None]:
            return {}, None

        def final_eval(self) -> None:
            pass

    return Run


@functools.cache
def _validator_class(task: YoloTask) -> Any:
    """Return ultralytics' validator of a task with the model's classes renumbered to those of the data."""
    import torch

    validator: Any = _ultralytics(RECIPES[task].validator)

    class ByName(validator):
        def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
            self.names = self.data["names"]  # with fewer names than the data it skips the labels of the others
            return super().get_dataloader(dataset_path, batch_size)

        def init_metrics(self, model: Any) -> None:
            super().init_metrics(model)
            self.names = self.metrics.names = self.data["names"]
            number = {name: index for index, name in self.names.items()}
            self.to_data = torch.tensor([number.get(model.names[i], -1) for i in range(len(model.names))])
            self.detections = 0

        def postprocess(self, preds: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = super().postprocess(preds)
            for boxes in found:
                boxes["cls"] = self.to_data.to(boxes["cls"].device)[boxes["cls"].long()].float()
                known = boxes["cls"] >= 0
                boxes |= {key: value[known] for key, value in boxes.items()}
                self.detections += int((boxes["conf"] >= KEEP_CONFIDENCE).sum())
            return found

    return ByName


def _stripped(last: Path, out: Path) -> Path:
    """Move the last checkpoint to `out`/weights.pt without its optimiser state."""
    from ultralytics.utils.torch_utils import strip_optimizer

    if not last.is_file():
        raise TrainingError("the training wrote no weights", where=str(out))
    strip_optimizer(last)
    weights = last.rename(out / "weights.pt")
    shutil.rmtree(last.parent)
    return weights


@functools.lru_cache(maxsize=8)
def _check(path: Path, sha256: str, task: YoloTask) -> None:  # noqa: ARG001 - the sum tells one content from the next
    """Raise ModelError for a file that is no model for the task; a good one is opened once, not at every /predict."""
    load_model(path, task)


@functools.cache
def _architecture(name: str, task: YoloTask) -> str:
    """Return the name of the architecture of some weights, e.g. yolo11n.pt -> yolo11n.yaml."""
    quiet_ultralytics()
    from ultralytics.nn.tasks import guess_model_task, yaml_model_load

    architecture = f"{Path(name).stem}.yaml"
    try:
        found = guess_model_task(yaml_model_load(architecture))
    except FileNotFoundError:
        raise ModelError(
            f"BASE_MODEL={name}: no such file in MODEL_DIR, and no architecture of that name",
            fix=f"put the file into MODEL_DIR, or use a name like {example(task)}",
        ) from None
    if found != task:
        raise ModelError(
            f"BASE_MODEL={name} is a {found} model, not a {RECIPES[task].noun} model",
            fix=f"use a name like {example(task)}",
        )
    return architecture


def _download(target: Path) -> bool:
    """Let ultralytics download official weights; given up after DOWNLOAD_S, and not tried again for RETRY_S.

    A file remembers a failed attempt, because every job runs in a process of its own.
    """
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    failed = target.with_suffix(".unavailable")
    if target.name not in GITHUB_ASSETS_NAMES or (failed.is_file() and time.time() - failed.stat().st_mtime < RETRY_S):
        return False

    def fetch() -> None:
        try:
            attempt_download_asset(target, retry=0, progress=False)
        except OSError:  # ConnectionError is one
            return

    thread = threading.Thread(target=fetch, daemon=True)  # its own timeouts add up to minutes
    thread.start()
    thread.join(DOWNLOAD_S)
    if not target.is_file():
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.touch()
    return target.is_file()
