"""Label Studio's own queue under every family of strategies: /next hands out tasks in the order of their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend import acquisition
from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import synthetic
from backend.types import Task
from tests.support import publish, tiny_yolo
from tests.world import World, await_shown, await_true, open_world

pytestmark = pytest.mark.label_studio

POOL, LABELED = 20, 12
LATEST = 2
PATIENCE_S = 180.0
# One strategy of each module in backend/acquisition, and of each kind of committee.
FAMILIES: dict[str, dict[str, str | int]] = {
    "random": {},
    "class_entropy": {},
    "localization": {},
    "information_density_unique": {},
    "core_set": {},
    "max_herding": {},
    "ppal": {},
    "learning_loss": {},
    "auto": {},
    "bald": {"COMMITTEE": "snapshots", "COMMITTEE_SIZE": 2},
    "consistency": {"COMMITTEE": "augmented"},
    "discrepancy": {"COMMITTEE": "perturbed", "COMMITTEE_SIZE": 2},
}


@dataclass(frozen=True)
class Story:
    """A project with two versions and some labels."""

    world: World
    project: int
    backend: int


@pytest.fixture(scope="module")
def story(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("queue-order")
    data_yaml = synthetic.generate(folder / "scenes", pool=POOL, test=2, seed=1)
    settings = {"IMGSZ": "64", "RETRAIN_EVERY": "1000", "MODEL_SCORE_THRESHOLD": "0.05", "EXPLORE_SHARE": "0"}
    with open_world(label_studio, folder, data_yaml, settings) as world:
        client = world.client
        project = client.projects.create("queue order", world.config)
        client.tasks.upload_images(project, [file.path for file in world.data.train])
        backend = client.projects.attach_backend(project, world.url, "yolo").id
        await_shown(world, project, "yolo11n-v0")
        for task in list(client.tasks.unlabeled(project))[:LABELED]:
            world.annotate(task)
        for seed in range(LATEST):
            weights = tiny_yolo(folder / f"{seed}.pt", world.data.classes, seed)
            publish(world.store, project, weights, classes=world.data.classes)
        await_shown(world, project, f"yolo11n-v{LATEST}")
        yield Story(world, project, backend)


def choose(story: Story, **extra: str | int) -> None:
    """Write the extra params of the backend, as an admin does in Label Studio's settings."""
    form = {"project": story.project, "url": story.world.url, "title": "yolo", "extra_params": json.dumps(extra)}
    story.world.client.http.send("PATCH", f"/api/ml/{story.backend}", form)


def ranked(story: Story, strategy: str, version: int = LATEST) -> bool:
    """Return whether the scores in Label Studio are those of a ranking by `strategy`."""
    order = story.world.store.pools.ranking(story.project, version)
    if order is None or order.strategy != strategy or story.world.status(story.project).scoring.total:
        return False
    stored = story.world.scores(story.project)
    wanted = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    return stored.keys() == wanted.keys() and all(
        scores == [pytest.approx(wanted[one])] for one, scores in stored.items()
    )


def await_ranked(story: Story, strategy: str, version: int = LATEST) -> None:
    """Wait until the scores in Label Studio are those of a ranking by `strategy`; else say what they are."""
    what = f"a ranking of version {version} by {strategy}"
    await_true(lambda: ranked(story, strategy, version), what, PATIENCE_S, lambda: standing(story, version))


def standing(story: Story, version: int) -> str:
    """Return what may keep a ranking from being in Label Studio, in words."""
    world, project = story.world, story.project
    order, status = world.store.pools.ranking(project, version), world.status(project)
    wanted = {} if order is None else dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    unlabeled = {task.id for task in world.client.tasks.unlabeled(project)}
    lines = [
        f"the ranking in the store is by {order.strategy if order else 'nothing yet'}, of {len(wanted)} tasks",
        f"Label Studio shows {world.shown_version(project)!r} and counts {world.client.predictions.versions(project)}",
        f"{status.scoring!r}, ranking_error={status.ranking_error!r}, failures={status.failures}",
    ]
    for task in sorted(unlabeled | wanted.keys()):
        held = [(one.id, one.version, one.score) for one in world.client.predictions.of_task(task)]
        where = "in the queue" if task in unlabeled else "labeled"
        lines.append(f"task {task}, {where}: wanted {wanted.get(task)}, held (id, version, score) {held}")
    return "\n".join(lines)


def handed_out(story: Story) -> list[int]:
    """Take every task from the queue; afterwards all are unlabeled again."""
    client = story.world.client
    order, made = [], []
    while (task := client.tasks.next(story.project)) is not None:
        order.append(task.id)
        made.append(client.annotations.create(task.id, []))
    for annotation in made:
        client.annotations.delete(annotation)
    return order


def test_every_module_of_strategies_is_here() -> None:
    modules = {acquisition.get(name).function.__module__ for name in acquisition.names()}
    # These want a model of masks or points, see tests/acquisition/test_mask_uncertainty.py, and videos, see
    # tests/loop/test_video_loop.py.
    of_boxes = modules - {"backend.acquisition.mask_uncertainty", "backend.acquisition.video_uncertainty"}
    assert {acquisition.get(name).function.__module__ for name in FAMILIES} == of_boxes


@pytest.mark.parametrize("strategy", FAMILIES)
def test_the_queue_is_in_the_order_of_the_scores(story: Story, strategy: str) -> None:
    choose(story, STRATEGY=strategy, **FAMILIES[strategy])
    story.world.command("score", story.project)
    await_ranked(story, strategy)
    order = story.world.store.pools.ranking(story.project, LATEST)
    assert order is not None
    by_score = [task for _, task in sorted(zip(order.priority.tolist(), order.task_ids.tolist(), strict=True))]
    assert len(by_score) == POOL - LABELED
    assert handed_out(story) == by_score
    if strategy != "random":  # each of them tells images apart
        assert len(set(order.acquisition.tolist())) > 1


def test_a_preview_under_any_strategy_writes_nothing(story: Story) -> None:
    choose(story, STRATEGY="entropy")
    story.world.command("score", story.project)
    await_ranked(story, "entropy")
    before = story.world.scores(story.project)
    for strategy in ("bald", "ppal", "learning_loss"):
        shown = story.world.command("rank", story.project, "--strategy", strategy, "--dry-run")
        assert all(str(task) in shown for task in before)
    assert story.world.scores(story.project) == before
    assert ranked(story, "entropy")


def test_what_the_model_lacks_keeps_the_order_until_it_is_mended(story: Story, tmp_path: Path) -> None:
    """YOLO26 has no DFL: its version waits with the reason on the status page, then takes another strategy."""
    world, project = story.world, story.project
    choose(story, STRATEGY="localization")
    world.command("score", project)
    await_ranked(story, "localization")
    before = world.scores(project)
    weights = tiny_yolo(tmp_path / "26.pt", world.data.classes, 0, "yolo26n")
    publish(world.store, project, weights, classes=world.data.classes)
    await_true(lambda: bool(world.status(project).ranking_error), "the reason", PATIENCE_S)
    error = world.status(project).ranking_error
    assert "'localization' needs box_variance" in error
    assert "YOLO26 has none" in error
    assert "yolo11n.pt" in error
    assert world.shown_version(project) == f"yolo11n-v{LATEST}"
    assert world.scores(project) == before
    choose(story, STRATEGY="entropy")
    await_ranked(story, "entropy", LATEST + 1)
    await_shown(world, project, f"yolo11n-v{LATEST + 1}")
    assert world.status(project).ranking_error == ""


def test_a_label_that_is_gone_brings_its_task_back(story: Story) -> None:
    """Not only the pool of the ranking: a labeled task that loses its label is in the queue again."""
    world, project = story.world, story.project
    labeled = next(iter(world.client.annotations.annotated_tasks(project)))
    world.client.annotations.delete(labeled.annotation_id)
    task: Task = labeled.task

    def back() -> bool:
        scores = world.scores(project).get(task.id, [])
        return len(scores) == 1 and scores[0] is not None and 0 <= scores[0] <= 1

    await_true(back, "its score", PATIENCE_S, lambda: str(world.client.predictions.of_task(task.id)))
