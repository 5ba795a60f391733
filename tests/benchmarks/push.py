"""Writing predictions into a real Label Studio: our import in batches, compared with one POST each."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from backend.cli.label_studio_process import label_studio_binary, start_label_studio
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.types import Region
from tests.benchmarks import parts
from tests.benchmarks.report import Result

PREDICTIONS, BATCHES, SINGLES = 5_000, 5, 30  # singles per batch
REGIONS = 5
TARGET = 20.0


def run(folder: Path) -> list[Result]:
    """Import 5,000 predictions in turns with a sample of single POSTs, into one project of 5,000 tasks."""
    with (
        start_label_studio(
            label_studio_binary(), folder / "push", email="bench@example.com", password="a-bench-password"
        ) as studio,
        LabelStudioClient(studio.url, studio.api_key) as client,
    ):
        project_id = client.projects.create("push", parts.CONFIG)
        body = [{"image": f"/data/upload/1/{number:05d}.jpg"} for number in range(PREDICTIONS)]
        client.http.send("POST", f"/api/projects/{project_id}/import", body)
        rows = _rows([task.id for task in client.tasks.unlabeled(project_id)])
        assert len(rows) == PREDICTIONS
        batched, single = [], []
        for chunk in np.array_split(np.arange(PREDICTIONS), BATCHES):
            chosen = [rows[index] for index in chunk]
            started = time.perf_counter()
            assert client.prediction_import.run(project_id, "batched-v1", chosen) == len(chosen)
            batched.append((time.perf_counter() - started) / len(chosen))
            started = time.perf_counter()
            for row in chosen[:SINGLES]:
                _post(client, row)
            single.append((time.perf_counter() - started) / SINGLES)
        written = client.predictions.versions(project_id)
    assert written == {"batched-v1": PREDICTIONS, "single-v1": BATCHES * SINGLES}
    ours, theirs = sum(batched) / BATCHES, sum(single) / BATCHES
    details = {"ours predictions/s": 1 / ours, "theirs predictions/s": 1 / theirs}
    title = f"importing {PREDICTIONS:,} predictions vs one POST each"
    return [Result("push", title, theirs / ours, TARGET, "x", details=details)]


def _post(client: LabelStudioClient, row: PredictionRow) -> None:
    regions = [region.as_json() for region in row.regions]
    item = {"task": row.task_id, "score": row.score, "model_version": "single-v1", "result": regions}
    client.http.send("POST", "/api/predictions/", item)


def _rows(task_ids: list[int]) -> list[PredictionRow]:
    rng = np.random.default_rng(0)
    return [PredictionRow(task_id, float(rng.random()), _regions(task_id, rng)) for task_id in task_ids]


def _regions(task_id: int, rng: np.random.Generator) -> tuple[Region, ...]:
    return tuple(
        Region(
            id=f"r{task_id:06d}{index}",
            kind="rectanglelabels",
            from_name="label",
            to_name="image",
            value={"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": ["three"]},
            score=float(rng.random()),
            original_width=640,
            original_height=480,
        )
        for index, (x, y, w, h) in enumerate(rng.uniform(1, 49, (REGIONS, 4)).tolist())
    )
