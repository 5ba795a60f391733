"""The quality of a version on tasks labeled since its training, from the predictions that its pool holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.datasets.writer import LabeledImage, Split
from backend.loop.context import Context
from backend.loop.training import labels_since
from backend.loop.training.snapshot import TagPlan
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import LabeledBox, Prediction
from tests.loop.training.test_tag_training import plan
from tests.support import CONFIG, publish

IDS = np.arange(10, 34)


def prediction(kind: int) -> Prediction:
    """Return one sure box of a class."""
    probs = np.zeros((1, 2), np.float32)
    probs[0, kind] = 0.9
    return Prediction(100, 100, np.array([[0, 0, 20, 20]], np.float32), probs, np.array([0.9], np.float32))


def labeled(task_id: int, *, random: bool) -> LabeledImage:
    """Return an image with a cat where the predictions have their box."""
    return LabeledImage(task_id, Path("x.png"), (LabeledBox("cat", (0.1, 0.1, 0.2, 0.2)),), random)


@pytest.fixture
def project(context: Context, tiny_weights: Path) -> Context:
    """A version whose pool has tasks 10 to 33: of even tasks the prediction is right, and odd ones are random."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    publish(context.store, 7, tiny_weights, train_tasks=(1, 2))
    predictions = tuple(prediction(int(task) % 2) for task in IDS)
    shard = PoolShard(0, IDS, predictions, sources=np.full(len(IDS), 5))
    context.store.pools.save_shard(7, 1, shard, tag="label")
    return context


def tag_plan(*images: LabeledImage, source: int = 5) -> TagPlan:
    sources = {image.task_id: source for image in images}
    return replace(plan(Split(images[:-1], images[-1:], held_out=True)), sources=sources)


def test_random_and_picked_tasks_are_judged_apart(project: Context) -> None:
    learned = labeled(1, random=True)
    since = labels_since.labeled_since(
        project, tag_plan(learned, *(labeled(int(task), random=bool(task % 2)) for task in IDS))
    )
    assert since is not None
    assert since.version == 1
    assert (since.chance.images, since.chance.quality, since.chance.interval) == (12, 0.0, (0.0, 0.0))
    assert since.picked.images == since.picked.boxes == 12
    assert since.picked.quality == pytest.approx(0.995)  # ultralytics' area under a perfect curve
    assert since.picked.is_judged


def test_a_task_that_shows_another_image_now_is_left_out(project: Context) -> None:
    images = [labeled(int(task), random=True) for task in IDS]
    since = labels_since.labeled_since(project, tag_plan(*images, source=6))
    assert since is not None
    assert (since.chance.images, since.picked.images) == (0, 0)


def test_the_first_version_has_none_before(context: Context) -> None:
    assert labels_since.labeled_since(context, tag_plan(labeled(1, random=True), labeled(2, random=True))) is None


def test_videos_are_not_judged(project: Context) -> None:
    video = tag_plan(labeled(10, random=True), labeled(11, random=True))
    assert labels_since.labeled_since(project, replace(video, tag=replace(video.tag, frame_rate=25.0))) is None
