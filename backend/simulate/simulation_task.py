"""Which task an experiment is of, and which base weights it starts from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backend import acquisition
from backend.errors import SettingError
from backend.model_versions import is_weights_name
from backend.types import YoloTask
from backend.yolo.runtime import load_model, task_of
from backend.yolo.tasks import RECIPES, example, task_named, weights_name


def choose(told: YoloTask | None, base_model: str, model_dir: Path) -> tuple[YoloTask, str]:
    """Return the task, and the name of the weights to start from: the data's task if it is told, else that of the base.

    For data of another task weights for boxes stand for their counterpart, as in production. Raises SettingError for
    other weights, and ModelError for a damaged file.
    """
    found = _task_of(base_model, model_dir)
    if found == "semantic":
        raise SettingError(
            f"BASE_MODEL={base_model} is a {RECIPES[found].noun} model, and simulate has no experiments with those",
            where="BASE_MODEL",
            fix=f"use weights like {example('segment')}: outlines are learned from the same labels",
        )
    if told in (None, found):
        return found, base_model
    if found == "detect":
        return told, weights_name(base_model, told)
    raise SettingError(
        f"BASE_MODEL={base_model} is a {RECIPES[found].noun} model, and the data set is for {RECIPES[told].noun}",
        where="BASE_MODEL",
        fix=f"use weights like {example(told)}",
    )


def check(strategies: Iterable[str], task: YoloTask) -> None:
    """Raise SettingError for a strategy that needs what models of the task cannot give."""
    lacks = RECIPES[task].lacks | {"video_doubt"}  # experiments are of images
    for name in strategies:
        if missing := sorted(acquisition.get(name).needs & lacks):
            good = [other for other in acquisition.names() if not acquisition.get(other).needs & lacks]
            raise SettingError(
                f"strategy {name!r} needs {missing[0]}, which {RECIPES[task].noun} models do not give",
                where="--strategies",
                fix=f"use some of {', '.join(good)}",
            )


def _task_of(base_model: str, model_dir: Path) -> YoloTask:
    """Return the task of the weights in `model_dir`, else the one they have by their name."""
    for path in (model_dir / base_model, model_dir / "base" / base_model):
        if is_weights_name(base_model) and path.is_file():
            return task_of(load_model(path)) or "detect"
    return task_named(base_model)
