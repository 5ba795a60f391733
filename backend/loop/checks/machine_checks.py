"""Checks of this machine: redis, workers, store, disk, device and base weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from backend.errors import BackendError
from backend.labelstudio import label_config
from backend.loop.checks.finding import Finding, fails, works
from backend.loop.context import local_dir
from backend.loop.extra_params import for_project
from backend.queue import presence
from backend.queue.rq_queue import QUEUES
from backend.settings import Settings
from backend.store.store import Store
from backend.types import YoloTask
from backend.yolo import approved_weights, base_weights, open_vocabulary, runtime
from backend.yolo.tasks import is_open_vocabulary, task_named, weights_name

LEAST_FREE_GB = 2.0
_GB = 1e9


def workers(redis: Redis) -> Finding:
    """Look for a worker of each queue."""
    try:
        alive = presence.workers(redis)
    except RedisError as error:
        return Finding("redis", False, f"redis does not answer: {error}", "start redis, or correct REDIS_URL")
    if missing := [name for name in QUEUES if not alive.get(name)]:
        fix = "start `yolo-backend run`, or `yolo-backend worker` beside `yolo-backend serve`"
        return Finding("workers", False, f"no worker for the queues {', '.join(missing)}", fix)
    return works("workers", ", ".join(f"{name}: {alive[name]}" for name in QUEUES))


def model_dir(settings: Settings, store: Store) -> Finding:
    """Write to MODEL_DIR."""
    try:
        store.check()
    except BackendError as error:
        return fails("store", error)
    return works("store", f"MODEL_DIR={settings.model_dir} can be written")


def disk(folder: Path) -> Finding:
    """Look for room on the disk of the local folder, which need not exist yet."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    free_gb = shutil.disk_usage(place).free / _GB
    detail = f"{free_gb:.1f} GB free at {place}"
    if free_gb < LEAST_FREE_GB:
        return Finding(
            "disk", False, detail, f"make room: {LEAST_FREE_GB:g} GB or more; docs/sizing.md says what takes it"
        )
    return works("disk", detail)


def device(name: str) -> Finding:
    """Ask torch for the device of trainings."""
    try:
        used = runtime.describe_device(name)
    except BackendError as error:
        return fails("device", error)
    if used.is_cpu and not name and runtime.has_nvidia_gpu():
        fix = "install torch with CUDA and a driver that fits it (docs/gpu.md), or set DEVICE=cpu"
        return Finding("device", False, f"{used.name}, although the machine has an NVIDIA GPU", fix)
    return works("device", used.name)


def weights(settings: Settings, store: Store) -> Iterator[Finding]:
    """Look for the base weights of BASE_MODEL and of all connected projects."""
    folder = local_dir(settings)
    for name, task in sorted(_wanted(settings, store).items()):
        try:
            for path in (name, f"base/{name}", approved_weights.LISTING):
                store.fetch(path, folder)  # where MODEL_DIR is remote
            if name != weights_name(settings.base_model, task):
                approved_weights.check(name, folder)
            file = base_weights.present(name, folder, task)
            if file is None and not base_weights.is_downloadable(name):
                fix = f"get {name} and run `yolo-backend import-weights {name}`; without it trainings need more labels"
                yield Finding("weights", False, f"{name} is not there, and cannot be downloaded", fix)
                continue
        except BackendError as error:
            yield fails("weights", error)
            continue
        yield works("weights", f"{name} is at {file}" if file else f"{name} can be downloaded")


def text_encoders(settings: Settings, store: Store) -> Iterator[Finding]:
    """Look for the text encoders of open-vocabulary base weights; nothing is downloaded."""
    wanted: dict[str, list[str]] = {}
    for name in sorted(filter(is_open_vocabulary, _wanted(settings, store))):
        wanted.setdefault(open_vocabulary.encoder_of(name), []).append(name)
    for encoder, names in wanted.items():
        try:
            for path in (encoder, approved_weights.LISTING):
                store.fetch(path, local_dir(settings))  # where MODEL_DIR is remote
            file = open_vocabulary.check_encoder(encoder, local_dir(settings))
        except BackendError as error:
            yield fails("text encoder", error)
            continue
        yield works("text encoder", f"{encoder}, which reads the prompts of {', '.join(names)}, is at {file}")


def _wanted(settings: Settings, store: Store) -> dict[str, YoloTask]:
    """Return the names of base weights, with their tasks."""
    wanted: dict[str, YoloTask] = {settings.base_model: task_named(settings.base_model)}
    for project_id in store.project_ids():
        record = store.project(project_id)
        if record is not None:
            base_model = for_project(settings, record.extra_params).base_model
            tags = label_config.parse(record.label_config)
            wanted |= {tag.model_path or weights_name(base_model, tag.task): tag.task for tag in tags}
    return wanted
