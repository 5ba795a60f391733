"""The first POST /predict of a server that has just started, and of one that has already loaded its models."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import httpx

from backend.datasets import synthetic
from backend.loop.warm import WARM
from backend.types import HyperParameters
from backend.yolo import base_weights, training
from tests.benchmarks import parts
from tests.benchmarks.report import Result

ROUNDS = 3
PATIENCE_S = 300.0
TARGET = 3.0  # least speedup


def run(folder: Path) -> list[Result]:
    """Start a server twice per round: once without a loaded model, and once with the project's model loaded."""
    files = parts.images(folder / "images", 1, 640)
    trained = _weights(folder / "weights")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for place in range(ROUNDS):
        for warm in (False, True):
            seconds[warm].append(_first(folder / f"{place}-{warm}", files, trained, warm=warm))
    cold_s, warm_s = median(seconds[False]), median(seconds[True])
    worst = {"worst cold s": max(seconds[False]), "worst warm s": max(seconds[True])}
    details = {"cold s": cold_s, "warm s": warm_s} | worst
    return [Result("warmth", "first /predict: warmed server vs cold", cold_s / warm_s, TARGET, "x", details=details)]


def _first(folder: Path, files: tuple[Path, ...], trained: Path, *, warm: bool) -> float:
    """Return how long the first request takes; a cold server gets its project when it has nothing left to load."""
    body = parts.body(parts.tasks(files))
    with (
        parts.served(folder, files[0].parent, trained, 640, early=warm) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        deadline = time.monotonic() + PATIENCE_S
        while client.get("/ready", timeout=60).json()["models"] != WARM:
            assert time.monotonic() < deadline, "the models are not loaded"
            time.sleep(0.1)
        if not warm:
            parts.publish(served.store, trained)
        begin = time.monotonic()
        (result,) = parts.predict(client, body)
        assert result["model_version"] == "yolo11n-v1"
        return time.monotonic() - begin


def _weights(folder: Path) -> Path:
    """Return weights of one epoch: what they find does not matter here."""
    data_yaml = synthetic.generate(folder / "data", pool=8, test=1, seed=0)
    hyper = HyperParameters(epochs=1, batch=8, imgsz=160, seed=0, device="cpu")
    training.train(data_yaml, base_weights.BaseWeights("yolo11n.yaml", pretrained=False, note=""), hyper, folder, print)
    return folder / "weights.pt"
