"""The task of an experiment, and its base weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backend import acquisition
from backend.errors import SettingError
from backend.model_versions import is_weights_name
from backend.settings import Settings
from backend.simulate import first_batches
from backend.types import YoloTask
from backend.yolo.base_weights import BaseWeights
from backend.yolo.runtime import load_model, task_of
from backend.yolo.tasks import RECIPES, example, task_named, weights_name


def choose(data_task: YoloTask | None, base_model: str, model_dir: Path) -> tuple[YoloTask, str]:
    """Return the task of the data, else that of the base weights, and the name of the weights to start from.

    If the data is for another task, weights for boxes are replaced by their counterpart for it, as in the live loop.
    Raises SettingError for other weights that do not fit, and ModelError for a damaged file.
    """
    base_task = _task_of(base_model, model_dir)
    if base_task == "semantic":
        raise SettingError(
            f"BASE_MODEL={base_model} is a {RECIPES[base_task].noun} model, and simulate has no experiments with those",
            where="BASE_MODEL",
            fix=f"use weights like {example('segment')}: outlines are learned from the same labels",
        )
    if data_task in (None, base_task):
        return base_task, base_model
    if base_task == "detect":
        return data_task, weights_name(base_model, data_task)
    model, data = RECIPES[base_task].noun, RECIPES[data_task].noun
    raise SettingError(
        f"BASE_MODEL={base_model} is a {model} model, and the data set is for {data}",
        where="BASE_MODEL",
        fix=f"use weights like {example(data_task)}",
    )


def check(strategies: Iterable[str], task: YoloTask) -> None:
    """Raise SettingError for a strategy with a need that models of the task cannot meet."""
    lacks = RECIPES[task].lacks | {"video_doubt"}  # there are no experiments with videos
    for name in strategies:
        if missing := sorted(acquisition.get(name).needs & lacks):
            good = [other for other in acquisition.names() if not acquisition.get(other).needs & lacks]
            raise SettingError(
                f"strategy {name!r} needs {missing[0]}, which {RECIPES[task].noun} models do not give",
                where="--strategies",
                fix=f"use some of {', '.join(good)}",
            )


def check_first_batches(names: Iterable[str], settings: Settings, base: BaseWeights) -> None:
    """Raise SettingError if a line begins with a ranked batch, and no pretrained weights give the embeddings for it."""
    first = {first_batches.parts(name, settings.first_batch)[0] for name in names}
    if not base.pretrained and (ranked := sorted(first - {first_batches.RANDOM})):
        raise SettingError(
            f"a first batch by {ranked[0]} needs pretrained base weights",
            where=f"BASE_MODEL={settings.base_model}",
            fix="put the weights into MODEL_DIR, or let the first batch be random",
        )


def _task_of(base_model: str, model_dir: Path) -> YoloTask:
    """Return the task of the weights in `model_dir`, else the task by their name."""
    for path in (model_dir / base_model, model_dir / "base" / base_model):
        if is_weights_name(base_model) and path.is_file():
            return task_of(load_model(path)) or "detect"
    return task_named(base_model)
