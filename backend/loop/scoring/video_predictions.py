"""Predictions of videos, cached on disk: one takes minutes, and Label Studio stops waiting after 100 s."""

from __future__ import annotations

import hashlib
import logging
import threading
from contextlib import suppress

import numpy as np

from backend.errors import ModelError
from backend.labelstudio import frame_rates, task_fields
from backend.loop.context import Context
from backend.loop.served_models import ServedModel
from backend.media.video import Video
from backend.storage import LocalFiles
from backend.store import shard_codec
from backend.store.shard_codec import PoolShard
from backend.types import ControlTag, Prediction, Task

log = logging.getLogger(__name__)

_LOCKS = tuple(threading.Lock() for _ in range(64))


def predict_video(context: Context, model: ServedModel, tag: ControlTag, task: Task) -> Prediction:
    """Return a model's prediction of a task's video, from the cache if it has been made before.

    Simultaneous calls for the same video wait for one prediction. Raises MediaError if the video cannot be read.
    """
    tag = frame_rates.of_task(tag, task)
    clip = context.media.fetch_video(task_fields.shown(task, tag.data_key), task.id)
    if model.weights is None:
        return model.predict_video(clip, tag)
    files, name = LocalFiles(context.work_dir / "watched"), _name(model, tag, clip)
    with _LOCKS[int(name[-6:-4], 16) % len(_LOCKS)]:
        cached = _read(files, name)
        if cached is not None:
            return cached
        prediction = model.predict_video(clip, tag)
        files.write(name, shard_codec.encode(PoolShard(0, np.array([task.id]), (prediction,))))
    _clear(files, model)
    return prediction


def _name(model: ServedModel, tag: ControlTag, clip: Video) -> str:
    """Return the name of the cache file, a hash of what the prediction depends on."""
    assert model.weights is not None, "without weights nothing is cached"
    weights = str(model.weights), model.weights.stat().st_mtime_ns, model.imgsz
    options = sorted(tag.attributes.items()), tag.frame_rate, tag.task
    digest = hashlib.sha256(repr((weights, options, clip.path.name)).encode()).hexdigest()
    return f"{model.project_id}-{model.number}-{digest}.npz"


def _read(files: LocalFiles, name: str) -> Prediction | None:
    try:
        with files.open(name) as file:
            return shard_codec.read(file, name).prediction(0)
    except FileNotFoundError:
        return None
    except ModelError as error:  # the file is damaged, and the video is predicted again
        log.warning("%s", error)
        return None


def _clear(files: LocalFiles, model: ServedModel) -> None:
    """Delete the cached predictions of all versions but the last two."""
    for name in files.entries(""):
        project, number, *_ = name.split("-")
        with suppress(ValueError):
            if int(project) == model.project_id and int(number) < model.number - 1:
                files.remove(name)
