"""The memory of a server that keeps predicting, and of scoring a small and a large pool."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import httpx
import numpy as np
import psutil

from backend.cli.redis_process import start_redis
from backend.loop.context import build
from backend.loop.scoring import scoring
from backend.loop.served_models import models_for
from backend.settings import Settings
from backend.store.shard_codec import SHARD_TASKS
from backend.types import Task
from tests.benchmarks import parts
from tests.benchmarks.predict import IMAGES, PIXELS
from tests.benchmarks.report import Result

ROUNDS = 10
IMGSZ = 160
SMALL, LARGE = 512, 2048  # tasks of a pool
SERVER_GB, GROWTH = 1.5, 1.15


def run(folder: Path) -> list[Result]:
    """Measure both."""
    trained = parts.weights(folder)
    files = parts.images(folder / "images", IMAGES, PIXELS)
    return [_server(folder, files, trained), _pool(folder, files, trained)]


def _server(folder: Path, files: tuple[Path, ...], trained: Path) -> Result:
    body = parts.body(parts.tasks(files))
    sizes = []
    with (
        parts.served(folder / "memory", files[0].parent, trained, 640) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        for _ in range(ROUNDS):
            parts.predict(client, body)
            sizes.append(psutil.Process(served.pid).memory_info().rss / 1e9)
    details = {"after the first round GB": sizes[0], "largest GB": max(sizes)}
    title = f"server's memory after {ROUNDS} x /predict of {IMAGES} images"
    return Result("memory", title, sizes[-1], SERVER_GB, "GB", at_most=True, details=details)


def _pool(folder: Path, files: tuple[Path, ...], trained: Path) -> Result:
    with start_redis(folder / "scoring-redis") as redis, parts.origin(files[0].parent) as origin:
        small, large = (
            _peak(folder / f"scoring-{count}", redis.url, origin, files, trained, count) for count in (SMALL, LARGE)
        )
    details = {f"{SMALL} tasks GB": small, f"{LARGE} tasks GB": large}
    title = f"peak memory of scoring {LARGE:,} tasks vs {SMALL}"
    return Result("memory", title, large / small, GROWTH, "x", at_most=True, details=details)


def _peak(folder: Path, redis_url: str, origin: str, files: tuple[Path, ...], trained: Path, count: int) -> float:
    settings = Settings(
        label_studio_url=origin,
        label_studio_api_key=parts.TOKEN,
        model_dir=str(folder),
        redis_url=redis_url,
        imgsz=IMGSZ,
        device="cpu",
    )
    fresh = multiprocessing.get_context("spawn")  # a fork would begin with the memory of this process
    answers = fresh.SimpleQueue()
    child = fresh.Process(target=_score, args=(settings, files, trained, count, answers))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"scoring {count} tasks ended with status {child.exitcode}")
    peak: float = answers.get()
    return peak


def _score(
    settings: Settings, files: tuple[Path, ...], trained: Path, count: int, answers: multiprocessing.SimpleQueue[float]
) -> None:
    """Score `count` tasks in shards as the jobs do, and rank them; answer the peak memory in GB."""
    context = build(settings)
    parts.publish(context.store, trained)
    record = context.store.project(parts.PROJECT)
    assert record is not None
    (model,) = models_for(context, record, accepted=True)
    data = [task["data"] for task in parts.tasks(files)]
    everything = [Task(number + 1, data[number % len(data)]) for number in range(count)]
    for index, begin in enumerate(range(0, count, SHARD_TASKS)):
        chosen = everything[begin : begin + SHARD_TASKS]
        (shard,) = scoring.predict_shards(context, (model,), index, chosen)
        assert all(prediction is not None for prediction in shard.predictions)
        context.store.pools.save_shard(parts.PROJECT, model.number, shard, tag="label")
    pool, _ = context.store.pools.load_pool(parts.PROJECT, model.number, model.class_weights, tag="label")
    assert np.array_equal(np.sort(pool.task_ids), np.arange(1, count + 1))
    answers.put(_peak_gb())


def _peak_gb() -> float:
    """Return the largest resident size so far; getrusage's would include that of the parent at the fork."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9
