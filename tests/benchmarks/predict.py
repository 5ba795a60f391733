"""POST /predict on 64 images, compared with ultralytics: in batches, and image by image as another backend does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from backend.yolo.detector import BATCH, KEEP_CONFIDENCE
from backend.yolo.runtime import quiet_ultralytics
from tests.benchmarks import parts
from tests.benchmarks.report import Result
from tests.benchmarks.timing import interleaved, speedup

IMAGES, PIXELS = 64, 640
ROUNDS = 5
BATCHED, SINGLE = 0.9, 1.3


def run(folder: Path) -> list[Result]:
    """Compare with `YOLO.predict` of the list of files, in batches as large as ours."""

    def rival(model: Any, files: list[str], imgsz: int) -> None:
        results = model.predict(files, batch=BATCH, conf=KEEP_CONFIDENCE, imgsz=imgsz, device="cpu", verbose=False)
        assert len(results) == len(files)

    return [
        against(
            folder,
            "predict",
            f"/predict of {IMAGES} images at {imgsz} px vs batched YOLO.predict",
            rival,
            BATCHED,
            imgsz,
        )
        for imgsz in (640, 320)
    ]


def run_single(folder: Path) -> list[Result]:
    """Compare with one `YOLO.predict(path)` and one `plot()` per image."""

    def rival(model: Any, files: list[str], imgsz: int) -> None:
        for file in files:
            model.predict(file, conf=KEEP_CONFIDENCE, imgsz=imgsz, device="cpu", verbose=False)[0].plot()

    title = "/predict of {} at {} px vs single YOLO.predict(path) + plot()"
    return [
        against(folder, "predict_single", title.format(IMAGES, imgsz), rival, SINGLE, imgsz) for imgsz in (640, 320)
    ]


def against(
    folder: Path, name: str, title: str, rival: Callable[[Any, list[str], int], None], target: float, imgsz: int
) -> Result:
    """Return the throughput of a real server over HTTP, its media cache warm, as a multiple of the rival's."""
    trained = parts.weights(folder)
    files = parts.images(folder / "images", IMAGES, PIXELS)
    quiet_ultralytics()
    from ultralytics import YOLO

    model = YOLO(trained)
    paths = [str(path) for path in files]
    body = parts.body(parts.tasks(files))
    with (
        parts.served(folder / f"{name}-{imgsz}", files[0].parent, trained, imgsz) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        results = parts.predict(client, body)
        assert all(result["model_version"] == "yolo11n-v1" for result in results)
        ours, theirs = interleaved(ROUNDS, lambda: parts.predict(client, body), lambda: rival(model, paths, imgsz))
    details = {
        "ours images/s": IMAGES / median(ours),
        "theirs images/s": IMAGES / median(theirs),
        "regions": float(sum(len(result["result"]) for result in results)),
    }
    return Result(name, title, speedup(ours, theirs), target, "x", details=details)
