"""How long an annotator waits for the answer to a smart tool: the first click into an image, and the next ones."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from backend.types import Json
from tests.benchmarks import parts
from tests.benchmarks.report import Result
from tests.benchmarks.timing import percentile

IMAGES, PIXELS, AGAIN = 60, 640, 3
LIMIT_MS = 300.0


def run(folder: Path) -> list[Result]:
    """Click once into each of IMAGES images that the server has not seen, then AGAIN times elsewhere in each."""
    trained = parts.weights(folder)
    files = parts.images(folder / "images", IMAGES + 1, PIXELS)
    with (
        parts.served(folder / "clicks", files[0].parent, trained, PIXELS) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        warming, *tasks = parts.tasks(files)
        _seconds(client, warming, 0)
        first = [_seconds(client, task, 0) for task in tasks]
        # Of each image by itself, as annotators do: the server keeps the candidates of the last images.
        later = [_seconds(client, task, place) for task in tasks for place in range(AGAIN + 1)]
        repeated = [seconds for place, seconds in enumerate(later) if place % (AGAIN + 1)]
    return [
        _result("first click into an image", first),
        _result("next click into the same image", repeated),
    ]


def _result(title: str, seconds: list[float]) -> Result:
    milliseconds = [1000 * value for value in seconds]
    details = {"p50 ms": percentile(milliseconds, 50), "clicks": float(len(milliseconds))}
    title = f"p95 of the {title}, {PIXELS} px"
    return Result("clicks", title, percentile(milliseconds, 95), LIMIT_MS, "ms", at_most=True, details=details)


def _seconds(client: httpx.Client, task: Json, place: int) -> float:
    """Return how long the answer to a rough rectangle takes."""
    label = parts.CONFIG.partition('Label value="')[2].partition('"')[0]
    value = {"x": 10 + 5 * place, "y": 10, "width": 60, "height": 60, "rectanglelabels": [label]}
    drawn = {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    body = json.loads(parts.body([task])) | {"params": {"context": {"result": [drawn]}}}
    begin = time.perf_counter()
    (result,) = parts.predict(client, json.dumps(body).encode())
    seconds = time.perf_counter() - begin
    assert result["result"] or "sees no object" in result["reason"], result["reason"]
    return seconds
