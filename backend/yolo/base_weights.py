"""Where a training starts: from pretrained weights on disk or downloaded, else from scratch."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from backend.errors import ModelError
from backend.model_versions import is_weights_name
from backend.storage import file_sha256
from backend.types import YoloTask
from backend.yolo import runtime
from backend.yolo.runtime import load_model, quiet_ultralytics
from backend.yolo.tasks import RECIPES, closed_name, example, is_open_vocabulary, weights_name

DOWNLOAD_S = 60.0  # longest wait for pretrained weights
ASK_S = 10.0  # longest wait for the answer whether they can be downloaded
RETRY_S = 3600.0  # between attempts to download them


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """Where a training starts: a weights file, or the name of an architecture if there are no pretrained weights."""

    source: str
    pretrained: bool
    note: str  # a warning for people; empty when pretrained
    task: YoloTask = "detect"
    architecture: str = ""  # which a training takes in place of the weights' own, an open-vocabulary one


def base_weights(name: str, model_dir: Path, task: YoloTask = "detect") -> BaseWeights:
    """Return the base weights `name` from `model_dir` or `model_dir`/base, else downloaded, else their architecture.

    Raises ModelError for a name with a folder in it, an unknown architecture, and a file for another task.
    """
    if not is_weights_name(name):
        raise ModelError(
            f"BASE_MODEL={name!r} is not the plain name of a .pt file",
            fix="write a name like yolo11n.pt and put the file into MODEL_DIR",
        )
    learned = architecture_to_learn(name, task)
    if path := present(name, model_dir, task):
        return BaseWeights(str(path), pretrained=True, note="", task=task, architecture=learned)
    base = model_dir / "base" / name
    architecture = learned or _architecture(name, task)
    if _download(base):
        _check(base, file_sha256(base), task)
        return BaseWeights(str(base), pretrained=True, note="", task=task, architecture=learned)
    note = (
        f"No pretrained weights {name}: not in MODEL_DIR, and they could not be downloaded. Training {architecture} "
        f"from scratch, which needs more labels. Fix: put {name} into {model_dir}."
    )
    return BaseWeights(architecture, pretrained=False, note=note, task=task)


def architecture_to_learn(name: str, task: YoloTask) -> str:
    """Return the architecture that learns a project's classes in the place of an open-vocabulary one; "" for others.

    It has the same backbone, so that a training starts from those of the weights that fit.
    """
    return _architecture(weights_name(closed_name(name), task), task) if is_open_vocabulary(name) else ""


def present(name: str, model_dir: Path, task: YoloTask) -> Path | None:
    """Return the file of the weights `name` in `model_dir` or `model_dir`/base, None if there is none.

    Raises ModelError for a damaged file, and for a file for another task.
    """
    for path in (model_dir / name, model_dir / "base" / name):
        if path.is_file():
            _check(path, file_sha256(path), task)
            return path
    return None


def is_downloadable(name: str) -> bool:
    """Return whether the site of ultralytics has the weights and answers this machine; nothing is downloaded."""
    quiet_ultralytics()
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, GITHUB_ASSETS_REPO, attempt_download_asset

    release = inspect.signature(attempt_download_asset).parameters["release"].default
    url = f"https://github.com/{GITHUB_ASSETS_REPO}/releases/download/{release}/{name}"
    try:
        return name in GITHUB_ASSETS_NAMES and httpx.head(url, follow_redirects=True, timeout=ASK_S).is_success
    except httpx.HTTPError:
        return False


@functools.lru_cache(maxsize=8)
def _check(path: Path, sha256: str, task: YoloTask) -> None:  # noqa: ARG001 - for the cache: a changed file is new
    """Raise ModelError for a file that is no model for the task. A good file is opened once, not at every /predict."""
    model = load_model(path, task)
    if runtime.takes_prompts(model) and not is_open_vocabulary(path.name):
        raise ModelError(
            f"the model is of the class {type(model).__name__}, whose classes are prompts; its name hides it",
            where=str(path),
            fix="name the file as ultralytics does, e.g. yolov8s-worldv2.pt or yoloe-11s-seg.pt",
        )


@functools.cache
def _architecture(name: str, task: YoloTask) -> str:
    """Return the name of the architecture of some weights, e.g. yolo11n.pt -> yolo11n.yaml."""
    quiet_ultralytics()
    from ultralytics.nn.tasks import guess_model_task, yaml_model_load

    architecture = f"{Path(name).stem}.yaml"
    try:
        actual = guess_model_task(yaml_model_load(architecture))
    except FileNotFoundError:
        raise ModelError(
            f"BASE_MODEL={name}: no such file in MODEL_DIR, and no architecture of that name",
            fix=f"put the file into MODEL_DIR, or use a name like {example(task)}",
        ) from None
    if actual != task:
        raise ModelError(
            f"BASE_MODEL={name} is a {actual} model, not a {RECIPES[task].noun} model",
            fix=f"use a name like {example(task)}",
        )
    return architecture


def _download(target: Path) -> bool:
    """Let ultralytics download official weights within DOWNLOAD_S; return whether they are there.

    After a failed attempt the next one waits for RETRY_S. A file records the attempt, because every job runs in a
    process of its own.
    """
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    failed = target.with_suffix(".unavailable")
    if target.name not in GITHUB_ASSETS_NAMES or (failed.is_file() and time.time() - failed.stat().st_mtime < RETRY_S):
        return False

    def download() -> None:
        try:
            attempt_download_asset(target, retry=0, progress=False)
        except OSError:  # ConnectionError is a subclass
            return

    thread = threading.Thread(target=download, daemon=True)  # the timeouts of ultralytics add up to minutes
    thread.start()
    thread.join(DOWNLOAD_S)
    if not target.is_file():
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.touch()
    return target.is_file()
