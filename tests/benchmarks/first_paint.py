"""How fast a browser shows the page of a project with 20,000 tasks, view by view.

No Label Studio runs: pictures of tasks cannot be shown, and a view that asks Label Studio for more is left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from backend.cli.redis_process import start_redis
from backend.evaluation.label_quality import LabelIssue, Review
from backend.loop.context import Context, build
from backend.queue.run_state import LabelCounts
from backend.settings import Settings
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import PoolShard, ProjectRecord
from backend.types import Prediction, Ranking
from backend.web.page.site import VIEWS
from tests.benchmarks.report import Result
from tests.browser.views import unwatched_views
from tests.support import CONFIG, publish, serve, tiny_yolo

TASKS, REVIEWED, FAILED, VERSIONS = 20_000, 5_000, 1_000, 20
BOXES, DIMENSIONS = 10, 256
LIMIT_S = 1.0
VISITS = 3
PROJECT = 7
_FIRST_PAINT = """() => new Promise((resolve) => new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") resolve(entry.startTime);
}).observe({type: "paint", buffered: true}))"""


def run(folder: Path) -> list[Result]:
    """Measure the first paint of home and of each view: the median of VISITS."""
    (folder / "paint").mkdir()
    with start_redis(folder / "paint" / "redis") as redis:
        settings = Settings(model_dir=str(folder / "paint" / "models"), redis_url=redis.url, imgsz=64, device="cpu")
        context = build(settings)
        try:
            fill(context, folder / "paint")
            with serve(context) as client, unwatched_views(str(client.base_url).rstrip("/")) as page:
                addresses = ["/", *(f"/projects/{PROJECT}/{view.name}" for view in VIEWS)]
                return [result for address in addresses if (result := _measured(page, address)) is not None]
        finally:
            context.close()


def _measured(page: Page, address: str) -> Result | None:
    """Return the first paint of a view, None if it cannot be shown without Label Studio."""
    paints, answers = [], []
    for _ in range(VISITS):
        answer = page.goto(address)
        if answer is None or answer.status >= 400:
            return None
        paints.append(page.evaluate(_FIRST_PAINT) / 1000)
        answers.append(page.evaluate("performance.getEntriesByType('navigation')[0].responseEnd") / 1000)
    details = {"answered after s": float(np.median(answers)), "slowest s": max(paints)}
    title = f"first paint of {address}, {TASKS:,} tasks"
    return Result("first_paint", title, float(np.median(paints)), LIMIT_S, "s", at_most=True, details=details)


def fill(context: Context, folder: Path, tasks: int = TASKS) -> None:
    """Give a context a project with versions, a scored and ranked pool, a review of labels, and failed tasks."""
    rng = np.random.default_rng(0)
    store = context.store
    store.save_project(ProjectRecord(PROJECT, CONFIG, "", "http://localhost:8080", "", ""))
    weights = tiny_yolo(folder / "tiny.pt")
    version = [publish(store, PROJECT, weights) for _ in range(VERSIONS)][-1]
    store.activate(PROJECT, version.number)
    task_ids = np.arange(1, tasks + 1)
    for index, start in enumerate(range(0, tasks, SHARD_TASKS)):
        part = task_ids[start : start + SHARD_TASKS]
        store.pools.save_shard(
            PROJECT, version.number, PoolShard(index, part, tuple(_prediction(rng) for _ in part)), tag="label"
        )
    order = rng.permutation(tasks)
    ranking = Ranking(
        task_ids=task_ids,
        priority=(order / tasks).astype(np.float32),
        acquisition=rng.random(tasks, dtype=np.float32),
        explored=rng.random(tasks) < 0.2,
        strategy="information_density_unique",
    )
    store.pools.save_ranking(PROJECT, version.number, ranking)
    issues = tuple(
        LabelIssue(tasks + n, n, "2026-01-01", n / REVIEWED, "overlooked", "cat", (10, 10, 40, 40), False, "label")
        for n in range(REVIEWED)
    )
    store.state.save_review(PROJECT, version.number, Review(issues))
    context.progress.set_counts(PROJECT, LabelCounts(tasks + REVIEWED, REVIEWED, 12))
    reasons = dict.fromkeys(range(1, FAILED + 1), "cannot be decoded")
    context.progress.note_failures(PROJECT, reasons, reasons)


def _prediction(rng: np.random.Generator) -> Prediction:
    corner = rng.random((BOXES, 2), dtype=np.float32) * 500
    probs = rng.random((BOXES, 2), dtype=np.float32)
    empty = Prediction(640, 640, np.hstack([corner, corner + 60]), probs, probs.max(axis=1))
    return replace(
        empty,
        embedding=rng.random(DIMENSIONS, dtype=np.float32),
        box_embeddings=rng.random((BOXES, DIMENSIONS), dtype=np.float32),
        box_variance=rng.random((BOXES, 4), dtype=np.float32),
        thumbnail=rng.integers(0, 255, 192).astype(np.uint8),
    )
