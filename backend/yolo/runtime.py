"""ultralytics and torch at run time: import, weights files, devices, threads and memory."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from backend.errors import ModelError, SettingError
from backend.types import FloatArray, YoloTask
from backend.yolo.tasks import RECIPES, example

if TYPE_CHECKING:
    import torch

_OPEN_TASKS: dict[str, YoloTask] = {"WorldModel": "detect", "YOLOEModel": "detect", "YOLOESegModel": "segment"}
_COMPILER = ("torch._dynamo", "torch._dynamo.utils")
_INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


@functools.cache
def quiet_ultralytics() -> None:
    """Import ultralytics so that it stays offline and silent, installs nothing and writes nothing outside our folders.

    It then opens weights with its restricted unpickler, which loads model classes only.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down a busy machine
    os.environ |= {
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
        "YOLO_AUTOINSTALL": "false",
        "ULTRALYTICS_SAFE_LOAD": "true",
    }
    before = os.environ.get("YOLO_CONFIG_DIR")
    # ultralytics reads its settings at import, and changes numpy's print options.
    with tempfile.TemporaryDirectory(prefix="yolo-backend-") as folder, np.printoptions():
        os.environ["YOLO_CONFIG_DIR"] = before or folder
        _import_torchvision()  # ultralytics uses its faster NMS where it is already imported
        from ultralytics.data import base as data_base
        from ultralytics.data import utils as data_utils
        from ultralytics.nn import tasks
        from ultralytics.utils import SETTINGS, checks, patches
    Image.open = patches._image_open  # ultralytics' own fails on text files, as it needs a package for HEIF
    if before is None:
        del os.environ["YOLO_CONFIG_DIR"]
    # Whoever imported ultralytics before us did so without these variables, which it reads at import.
    tasks.SAFE_LOAD = True
    checks.AUTOINSTALL = False
    dict.update(SETTINGS, dict.fromkeys(_INTEGRATIONS, False))  # in memory: its own update() writes the file
    data_utils.check_font = lambda *_: None  # it would download a font for plots that are never drawn
    bar = data_base.TQDM  # draws a progress bar even with YOLO_VERBOSE=false
    data_base.TQDM = lambda *args, **kwargs: bar(*args, **kwargs | {"disable": True})


def _import_torchvision() -> None:
    """Import torchvision without torch's compiler, which takes a third of the time to start and 80 MB.

    torchvision imports it only to ask for which devices it compiles RoI align; "none" leaves the compiled kernel of
    torchvision. A training imports the compiler later, because torch's optimizers do.
    """
    stand_ins = {name: ModuleType(name) for name in _COMPILER}
    stand_ins[_COMPILER[-1]].is_compile_supported = lambda _: False  # type: ignore[attr-defined]
    if not sys.modules.keys() & stand_ins.keys():
        sys.modules.update(stand_ins)
    try:
        with suppress(ImportError):  # another release may ask for more; then the import below brings the compiler
            importlib.import_module("torchvision")
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    importlib.import_module("torchvision")


def preload_training() -> None:
    """Import what trainings need beside predictions, so that a forked job does not do so each time."""
    quiet_ultralytics()
    importlib.import_module(_COMPILER[0])


def load_model(weights: Path, task: YoloTask | None = None) -> Any:
    """Return the ultralytics model in a weights file, in float32 on the CPU.

    Raises ModelError for a missing or damaged file, and for a model of another task than `task`.
    """
    quiet_ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    if not weights.is_file():  # ultralytics would try to download it
        raise ModelError("no such weights", where=str(weights), fix="put the file there, or train a version first")
    try:
        model, _ = load_checkpoint(weights)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"cannot read the weights: {reason}", where=str(weights), fix="replace the file") from error
    if not _has_task(model, task):
        wanted = task or "detect"
        raise ModelError(
            f"the model is of the class {type(model).__name__}, not a YOLO {RECIPES[wanted].noun} model",
            where=str(weights),
            fix=f"use weights like {example(wanted)}",
        )
    return model


def _has_task(model: Any, task: YoloTask | None) -> bool:
    """Return whether a model answers for a task; None: for any. Outlines of an open-vocabulary model have boxes."""
    own = task_of(model)
    return own is not None and (task in (None, own) or (task == "detect" and takes_prompts(model)))


def takes_prompts(model: Any) -> bool:
    """Return whether an ultralytics model is a YOLO-World or YOLOE model, whose classes are prompts."""
    return type(model).__name__ in _OPEN_TASKS


def add_module(weights: Path, name: str, module: Any) -> None:
    """Write a torch module into a weights file as an attribute of its model. ultralytics keeps it but never calls it.

    A training that starts from the file builds a new model, without the module.
    """
    quiet_ultralytics()
    import torch
    from ultralytics.nn.tasks import torch_safe_load

    checkpoint, _ = torch_safe_load(weights)
    setattr(checkpoint["model"], name, module)
    torch.save(checkpoint, weights)


def task_of(model: Any) -> YoloTask | None:
    """Return the task of an ultralytics model, None for a model that we do not support."""
    from ultralytics.nn import modules

    if takes_prompts(model):
        has_prompts = not hasattr(model.model[-1], "lrpc")  # the prompt-free models have fixed classes
        return _OPEN_TASKS[type(model).__name__] if has_prompts else None
    for task, recipe in RECIPES.items():  # by the exact class, as models of some tasks are subclasses of others
        if type(model).__name__ == recipe.model and isinstance(model.model[-1], getattr(modules, recipe.head)):
            return task
    return None


def yolo_class(path: str) -> Any:
    """Return a class of ultralytics.models.yolo, e.g. "obb.OBBTrainer"."""
    package, _, name = path.partition(".")
    return getattr(importlib.import_module(f"ultralytics.models.yolo.{package}"), name)


def fix_threads(threads: int) -> None:
    """Let trainings and evaluations of this process compute with this number of threads on any machine.

    Rounding depends on the number of threads, so the same seed would train other weights with another number.
    """
    quiet_ultralytics()
    import torch
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = threads  # ultralytics' select_device sets torch's number of threads to it
    torch.set_num_threads(threads)


def check_finite(values: FloatArray) -> FloatArray:
    """Return the outputs of a model unchanged; raises ModelError if they hold NaN or infinity."""
    if not np.isfinite(values).all():
        raise ModelError("the model's output is not finite", fix="roll back to an earlier version, or train again")
    return values


def select_device(device: str) -> torch.device:
    """Return the torch device of the DEVICE setting, the first one of a list.

    Raises SettingError if this machine lacks it.
    """
    quiet_ultralytics()
    import torch
    from ultralytics.utils.torch_utils import select_device as ultralytics_device

    try:
        return torch.device(ultralytics_device(device.split(",")[0], verbose=False))
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = next(line.strip() for line in str(error).splitlines() if line.strip())
        raise SettingError(f"DEVICE={device!r}: {reason}", fix="use cpu, 0, or leave it empty") from error


@dataclass(frozen=True, slots=True)
class UsedDevice:
    """The device of trainings and predictions, in words."""

    name: str
    is_cpu: bool


def describe_device(device: str) -> UsedDevice:
    """Return the device that the DEVICE setting selects; raises SettingError if this machine lacks it."""
    import torch

    chosen = select_device(device)
    if chosen.type == "cuda":
        gpu, memory = torch.cuda.get_device_properties(chosen), torch.cuda.mem_get_info(chosen)
        name = f"{gpu.name}, {memory[0] / 1e9:.1f} of {memory[1] / 1e9:.1f} GB free, CUDA {torch.version.cuda}"
    else:
        name = str(chosen.type)
    return UsedDevice(f"{name}, torch {torch.__version__}", chosen.type == "cpu")


def has_nvidia_gpu() -> bool:
    """Return whether the system shows an NVIDIA GPU, even if torch cannot use it."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def free_memory() -> None:
    """Free the GPU memory of models that are no longer used."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
