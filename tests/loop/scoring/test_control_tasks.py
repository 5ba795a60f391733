"""Control tasks: which tasks a push hands out without regions, in a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.loop import serving
from backend.loop.context import Context
from backend.loop.cycle import rank_push_and_flip
from backend.loop.scoring import late_tasks
from backend.settings import Settings
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import Prediction
from tests.support import CONFIG, open_context, publish

pytestmark = pytest.mark.label_studio

COUNT = 40


def predicted(score: float) -> Prediction:
    """Return a prediction with one box of that score."""
    probs = np.array([[score, 0.0]], dtype=np.float32)
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    return Prediction(64, 64, box, probs, probs[:, 0], np.array([score, 1 - score], dtype=np.float32))


@pytest.fixture
def studio(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[Context]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        yield context


def scored(context: Context, weights: Path, extra: str) -> int:
    """Return a project with a scored version 1 that waits for its push."""
    client = context.label_studio
    project = client.projects.create("controls", CONFIG)
    images = [{"image": f"http://images.example/{n}.png"} for n in range(COUNT)]
    client.http.send("POST", f"/api/projects/{project}/import", images)
    ids = np.array([task.id for task in client.tasks.unlabeled(project)])
    context.store.save_project(ProjectRecord(project, CONFIG, extra, "", "", ""))
    publish(context.store, project, weights)
    shard = PoolShard(0, ids, tuple(predicted(0.5 + 0.01 * n) for n in range(COUNT)))
    context.store.pools.save_shard(project, 1, shard, tag="label")
    return project


def empty(context: Context, project: int) -> frozenset[int]:
    """Return the tasks whose prediction in Label Studio shows nothing."""
    tasks = [task.id for task in context.label_studio.tasks.unlabeled(project)]
    predictions = list(context.label_studio.predictions.of_tasks(project, tasks))
    assert len(predictions) == COUNT
    assert sorted(prediction.score or 0 for prediction in predictions) == pytest.approx(
        np.arange(1, COUNT + 1) / (COUNT + 1)
    )
    return frozenset(prediction.task_id for prediction in predictions if not prediction.result)


def test_without_the_setting_every_task_shows_its_regions(studio: Context, tiny_weights: Path) -> None:
    project = scored(studio, tiny_weights, '{"STRATEGY": "entropy"}')
    rank_push_and_flip(studio, project, 1)
    assert empty(studio, project) == frozenset()
    assert studio.store.state.blank_tasks(project, 1) is None


def test_a_share_of_the_explored_tasks_is_handed_out_empty_with_its_place(studio: Context, tiny_weights: Path) -> None:
    settings = '{"BLANK_SHARE": 0.5, "EXPLORE_SHARE": 0.5, "STRATEGY": "entropy"}'
    project = scored(studio, tiny_weights, settings)
    rank_push_and_flip(studio, project, 1)
    blanks, order = empty(studio, project), studio.store.pools.ranking(project, 1)
    assert order is not None
    assert 0 < len(blanks) < COUNT / 2
    assert blanks < set(order.task_ids[order.explored].tolist())
    assert blanks == studio.store.state.blank_tasks(project, 1)
    # What Label Studio asks for again stays empty too, and a changed setting waits for the next version.
    task = studio.label_studio.tasks.get(min(blanks))
    (result,) = serving.predict(studio, project, CONFIG, [task])
    assert result.regions == ()
    (prediction,) = studio.label_studio.predictions.of_task(task.id)
    studio.label_studio.predictions.delete(prediction.id)
    late_tasks.score_new(studio, project)
    assert empty(studio, project) == blanks
    more = ProjectRecord(project, CONFIG, settings.replace("0.5", "1", 1), "", "", "")
    studio.store.save_project(more)
    rank_push_and_flip(studio, project, 1)
    assert empty(studio, project) == blanks
