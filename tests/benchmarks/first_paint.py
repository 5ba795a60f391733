"""How fast a browser shows the page of a project with 20,000 tasks, view by view, beside a real Label Studio."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from backend.cli.label_studio_process import label_studio_binary, start_label_studio
from backend.cli.redis_process import start_redis
from backend.evaluation.annotators import AgreedBoxes, TaskAgreement
from backend.evaluation.effort import AnnotationEffort, EffortLog, LabelCount
from backend.evaluation.label_quality import LabelIssue, Review
from backend.loop.context import Context, build
from backend.queue.run_state import LabelCounts
from backend.settings import Settings
from backend.store.shard_codec import SHARD_TASKS
from backend.store.store import PoolShard, ProjectRecord
from backend.types import IntArray, Json, Prediction, Ranking
from backend.web.page.site import VIEWS
from tests.benchmarks.report import Result
from tests.browser.views import unwatched_views
from tests.evaluated import evaluation, judged, labeled_since, publish_evaluated
from tests.pool_maps import pool_map
from tests.support import serve, serve_images, tiny_yolo

TASKS, REVIEWED, FAILED, VERSIONS = 20_000, 5_000, 1_000, 20
HELD_OUT, DISPUTED = 1_000, 500  # of the reviewed tasks
IMPORTED = 5_000  # tasks per request
BOXES, DIMENSIONS = 10, 256
CLASSES = tuple(f"class {number}" for number in range(BOXES))
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    + "".join(f'<Label value="{name}"/>' for name in CLASSES)
    + "</RectangleLabels></View>"
)
LIMIT_S = 1.0
VISITS = 3
_FIRST_PAINT = """() => new Promise((resolve) => new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") resolve(entry.startTime);
}).observe({type: "paint", buffered: true}))"""


def run(folder: Path) -> list[Result]:
    """Measure the first paint of home and of each view: the median of VISITS."""
    paint = folder / "paint"
    paint.mkdir()
    with (
        start_redis(paint / "redis") as redis,
        start_label_studio(
            label_studio_binary(), paint / "studio", email="bench@example.com", password="a-bench-password"
        ) as studio,
        serve_images(paint / "pictures") as pictures,
    ):
        settings = Settings(
            model_dir=str(paint / "models"),
            redis_url=redis.url,
            label_studio_url=studio.url,
            label_studio_api_key=studio.api_key,
            allowed_hosts="127.0.0.1",
            imgsz=64,
            device="cpu",
        )
        context = build(settings)
        try:
            project = fill(context, paint, pictures.add("picture.png", size=(640, 640)))
            with serve(context) as client, unwatched_views(str(client.base_url).rstrip("/")) as page:
                addresses = {"home": "/", **{view.title: f"/projects/{project}/{view.name}" for view in VIEWS}}
                return [_measured(page, title, address) for title, address in addresses.items()]
        finally:
            context.close()


def _measured(page: Page, title: str, address: str) -> Result:
    """Return the first paint of a view; the processor's time tells more where other programs load the machine."""
    paints, answers, spent = [], [], []
    for _ in range(VISITS):
        began = time.process_time()  # the server runs in this process
        answer = page.goto(address)
        spent.append(time.process_time() - began)
        assert answer is not None
        assert answer.status == 200, (address, answer.text())
        paints.append(page.evaluate(_FIRST_PAINT) / 1000)
        answers.append(page.evaluate("performance.getEntriesByType('navigation')[0].responseEnd") / 1000)
    details = {
        "answered after s": float(np.median(answers)),
        "slowest s": max(paints),
        "processor s of the server": float(np.median(spent)),
        "load of the machine": os.getloadavg()[0],
    }
    title = f"first paint of {title}, {TASKS:,} tasks"
    return Result("first_paint", title, float(np.median(paints)), LIMIT_S, "s", at_most=True, details=details)


def fill(context: Context, folder: Path, picture: str) -> int:
    """Return a project whose tasks all show `picture`, with all that a year of work leaves in the store."""
    rng, client = np.random.default_rng(0), context.label_studio
    project = client.projects.create("first paint", CONFIG)
    rows: list[Json] = [{"data": {"image": picture}} for _ in range(TASKS)]
    rows += [{"data": {"image": picture}, "annotations": [{"result": _regions(rng)}]} for _ in range(REVIEWED)]
    for begin in range(0, len(rows), IMPORTED):
        client.http.send("POST", f"/api/projects/{project}/import", rows[begin : begin + IMPORTED])
    stamps = client.annotations.stamps_by_task(project)
    labeled = {task: (label.annotation_id, label.updated_at) for task, label in stamps.items()}
    unlabeled = [task.id for task in client.tasks.all(project) if task.id not in labeled]
    assert (len(unlabeled), len(labeled)) == (TASKS, REVIEWED)
    context.store.save_project(ProjectRecord(project, CONFIG, "", "http://localhost:8080", "", ""))
    _publish(context, project, tiny_yolo(folder / "tiny.pt"), list(labeled)[:HELD_OUT])
    _rank(context, project, np.array(unlabeled), rng)
    _review(context, project, labeled)
    _log_effort(context, project, labeled, rng)
    context.progress.set_counts(project, LabelCounts(TASKS + REVIEWED, REVIEWED, 12))
    reasons = dict.fromkeys(unlabeled[:FAILED], "cannot be decoded")
    context.progress.note_failures(project, reasons, reasons)
    return project


def _regions(rng: np.random.Generator) -> list[Json]:
    """Return the annotation of one task as Label Studio imports it."""
    names = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    size = {"original_width": 640, "original_height": 640}
    return [
        {
            "id": f"r{row}",
            "value": {"x": x, "y": y, "width": 9, "height": 9, "rotation": 0, "rectanglelabels": [CLASSES[row]]},
            **names,
            **size,
        }
        for row, (x, y) in enumerate((90 * rng.random((BOXES, 2))).tolist())
    ]


def _publish(context: Context, project: int, weights: Path, held_out: Sequence[int]) -> None:
    """Publish the versions, each with the report of its evaluation; of two kinds, because a report takes seconds."""
    since = labeled_since(1, chance=60, picked=240)
    kinds = [
        evaluation(judged(held_out, right, CLASSES), CLASSES, learned=4 * HELD_OUT, since=since) for right in (0.5, 0.7)
    ]
    for place in range(VERSIONS):
        stored, metrics = kinds[place % len(kinds)]
        publish_evaluated(context, project, weights, stored, metrics, classes=CLASSES, tasks=held_out)
    context.store.activate(project, VERSIONS)


def _rank(context: Context, project: int, task_ids: IntArray, rng: np.random.Generator) -> None:
    """Store the last version's predictions for the pool, and its ranking."""
    for index, start in enumerate(range(0, TASKS, SHARD_TASKS)):
        part = task_ids[start : start + SHARD_TASKS]
        shard = PoolShard(index, part, tuple(_prediction(rng) for _ in part))
        context.store.pools.save_shard(project, VERSIONS, shard, tag="label")
    ranking = Ranking(
        task_ids=task_ids,
        priority=(rng.permutation(TASKS) / TASKS).astype(np.float32),
        acquisition=rng.random(TASKS, dtype=np.float32),
        explored=rng.random(TASKS) < 0.2,
        strategy="information_density_unique",
    )
    context.store.pools.save_ranking(project, VERSIONS, ranking)
    context.store.maps.save(project, VERSIONS, pool_map(task_ids, CLASSES, labeled=0), tag="label")


def _review(context: Context, project: int, labeled: dict[int, tuple[int, str]]) -> None:
    """Store a review in which every label looks wrong."""
    issues = tuple(
        LabelIssue(
            *(task, annotation, stamp, place / REVIEWED, "overlooked", CLASSES[place % BOXES]),
            box=(10, 10, 40, 40),
            learned=False,
            tag="label",
        )
        for place, (task, (annotation, stamp)) in enumerate(labeled.items())
    )
    context.store.state.save_review(project, VERSIONS, Review(issues))


def _log_effort(context: Context, project: int, labeled: dict[int, tuple[int, str]], rng: np.random.Generator) -> None:
    """Store how all labels came about: 5 people, every 50th task without pre-annotation, DISPUTED by two people."""
    seconds = rng.lognormal(3, 0.6, REVIEWED).tolist()
    efforts = tuple(
        AnnotationEffort(
            *(annotation, task, 1 + place % 5, seconds[place], 1 + place * VERSIONS // REVIEWED),
            blank=place % 50 == 0,
            chance=place % 5 == 0,
            kept=6,
            moved=2,
            relabeled=1,
            deleted=1,
            added=2,
            labels=tuple(LabelCount("label", name, 1) for name in CLASSES),
        )
        for place, (task, (annotation, _)) in enumerate(labeled.items())
    )
    stamps = {task: f"{annotation} {stamp}" for task, (annotation, stamp) in labeled.items()}
    people = (AgreedBoxes("1", 8, 20), AgreedBoxes("2", 8, 20))
    labels = tuple(AgreedBoxes(name, 1, 2) for name in CLASSES)
    agreements = tuple(TaskAgreement(task, "label", 2, 8, 20, people, labels) for task in list(labeled)[:DISPUTED])
    context.store.state.save_effort(project, EffortLog(stamps, efforts, agreements))


def _prediction(rng: np.random.Generator) -> Prediction:
    corner = rng.random((BOXES, 2), dtype=np.float32) * 500
    probs = rng.random((BOXES, len(CLASSES)), dtype=np.float32)
    empty = Prediction(640, 640, np.hstack([corner, corner + 60]), probs, probs.max(axis=1))
    return replace(
        empty,
        embedding=rng.random(DIMENSIONS, dtype=np.float32),
        box_embeddings=rng.random((BOXES, DIMENSIONS), dtype=np.float32),
        box_variance=rng.random((BOXES, 4), dtype=np.float32),
        thumbnail=rng.integers(0, 255, 192).astype(np.uint8),
    )
