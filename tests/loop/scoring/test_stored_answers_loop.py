"""The label config is changed in a real Label Studio; the queue's predictions are made again if they must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import cycle
from backend.loop.scoring import late_tasks, push, scoring
from backend.loop.served_models import project_record
from backend.queue.rq_queue import Jobs
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests import clips
from tests.clips import Mover
from tests.support import IMGSZ, ImageSite, open_context, publish
from tests.world import Servers, await_shown, await_true, open_servers

pytestmark = pytest.mark.label_studio

LAX = " ".join(f'bytetrack_{key}="0.05"' for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh"))
CONFIG = (
    '<View><Labels name="labels" toName="video"><Label value="cat"/><Label value="dog"/></Labels>'
    '<Video name="video" value="$video" frameRate="25"/><VideoRectangle name="box" toName="video" '
    f'model_tracker="bytetrack" model_conf="0.05" model_score_threshold="0.05" {LAX}/></View>'
)
STRICT = CONFIG.replace('new_track_thresh="0.05"', 'new_track_thresh="1"')
MOVERS = [Mover("red", (0, 10), (2, 0), (40, 30)), Mover("blue", (100, 60), (-1, 0.5), (30, 40))]
SETTINGS = {"ALLOWED_HOSTS": "127.0.0.1", "IMGSZ": str(IMGSZ), "DEVICE": "cpu"}
Shown = Mapping[int, tuple[Any, ...]]  # the regions of each task


def new_project(client: LabelStudioClient, images: ImageSite) -> int:
    """Create a project with two videos."""
    project = client.projects.create("videos", CONFIG)
    for name in ("a.avi", "b.avi"):
        add_video(client, project, images, name)
    return project


def add_video(client: LabelStudioClient, project: int, images: ImageSite, name: str) -> None:
    clips.write(images.folder / name, MOVERS, count=12 + 4 * ord(name[0]) % 7)
    client.http.send("POST", f"/api/projects/{project}/import", [{"video": f"{images.url}/{name}"}])


def change(client: LabelStudioClient, project: int, config: str) -> None:
    client.http.send("PATCH", f"/api/projects/{project}/", {"label_config": config})


def regions(servers: Servers, project: int) -> Shown:
    """Return the regions of each task in the queue; assert that each task has one prediction."""
    by_task = servers.predictions(project)
    assert {len(predictions) for predictions in by_task.values()} == {1}
    return {task: tuple(prediction.result) for task, (prediction,) in by_task.items()}


def await_other(servers: Servers, project: int, before: Shown) -> Shown:
    def all_changed() -> bool:
        now = regions(servers, project)
        return all(now[task] != before[task] for task in before) and not servers.status(project).scoring.total

    await_true(all_changed, "other predictions", patience_s=120)
    return regions(servers, project)


def test_the_queue_shows_what_the_label_config_asks_for(
    label_studio: LabelStudioProcess, images: ImageSite, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backend"
    with open_servers(label_studio, folder, SETTINGS | {"RECONCILE_S": "3600"}) as servers:
        client = servers.client
        project = new_project(client, images)
        publish(servers.store, project, tiny_weights)
        client.projects.attach_backend(project, servers.url, "yolo")
        await_shown(servers, project, "yolo11n-v1")
        first = regions(servers, project)
        assert all(first.values())
        change(client, project, STRICT)
        tasks = list(client.tasks.unlabeled(project))
        request = {
            "tasks": [{"id": task.id, "data": dict(task.data)} for task in tasks],
            "project": str(project),
            "label_config": STRICT,
        }
        answer = httpx.post(f"{servers.url}/predict", json=request, timeout=60).json()["results"]
        client.projects.backends(project)  # Label Studio calls /setup, as when somebody opens its settings
        second = await_other(servers, project, first)
        assert [prediction["result"] for prediction in answer] == [list(second[task.id]) for task in tasks]
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        change(client, project, CONFIG)  # while the backend is down
    with open_servers(label_studio, folder, SETTINGS | {"RECONCILE_S": "2"}) as servers:
        assert await_other(servers, project, second) == first
        (pool,) = folder.glob(f"models/projects/{project}/versions/1/tags/*/pool-*.npz")
        scored = pool.stat().st_mtime_ns
        change(servers.client, project, CONFIG.replace('threshold="0.05"/>', 'threshold="0.9" model_every="9"/>'))
        add_video(servers.client, project, images, "c.avi")

        def placed() -> bool:
            return len(servers.scores(project)) == 3 and all(servers.scores(project).values())

        await_true(placed, "the place of the new task", patience_s=120)
        # So that the next score_new comes after a reconcile and the change.
        servers.redis.delete(f"memo:placed:{project}")

        def reconciled() -> bool:
            return (
                bool(servers.redis.exists(f"memo:placed:{project}"))
                and not servers.status(project).scoring.total
                and all(servers.scores(project).values())
            )

        await_true(reconciled, "the reconcile", patience_s=120)
        assert pool.stat().st_mtime_ns == scored


def test_a_changed_config_ends_the_run_and_the_next_run_writes_all_predictions_again(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> None:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = new_project(client, images)
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        publish(context.store, project, tiny_weights)
        tasks = [task.id for task in client.tasks.unlabeled(project)]

        def run(older: int = 0) -> bool:
            current = context.progress.scoring(project)
            assert current is not None
            return scoring.score_shard(context, project, current.run - older, 0, False, tasks) == 1

        def push_all() -> list[tuple[Any, ...]]:
            assert scoring.start(context, Jobs(context.redis), project) == 2
            assert not run(older=1)  # a job of the run before
            assert context.store.pools.prediction(project, 1, tasks[0], tag="label") is None
            assert run()
            assert cycle.rank_push_and_flip(context, project, 1) == push.Pushed("yolo11n-v1", created=2, failed=0)
            (first,), (second,) = (client.predictions.of_task(task) for task in tasks)
            return [first.result, second.result]

        before = push_all()
        assert not push.is_pending(context, project_record(context, project))
        scoring.start(context, Jobs(context.redis), project)
        change(client, project, STRICT)
        assert not run()
        assert context.store.pools.prediction(project, 1, tasks[0], tag="label") is None
        assert push.is_pending(context, project_record(context, project))
        after = push_all()
        assert all(old != new for old, new in zip(before, after, strict=True))
        repeated = cycle.rank_push_and_flip(context, project, 1)
        assert repeated == push.Pushed("yolo11n-v1", created=0, failed=0)
        assert not push.is_pending(context, project_record(context, project))
        change(client, project, CONFIG)
        assert push_all() == before
        change(client, project, STRICT)
        add_video(client, project, images, "c.avi")
        assert late_tasks.score_new(context, project) == 0  # the ranking is outdated, so nothing is placed in it
        assert context.store.pools.next_shard(project, 1, tag="label") == 1
        change(client, project, CONFIG)
        assert late_tasks.score_new(context, project) == 1
