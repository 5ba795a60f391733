"""Label Studio's queue hands out tasks in the order of their scores, under every family of strategies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend import acquisition
from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import synthetic
from backend.queue.rq_queue import Jobs
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
    "typiclust": {},
    "ppal": {},
    "learning_loss": {},
    "auto": {},
    "bald": {"COMMITTEE": "snapshots", "COMMITTEE_SIZE": 2},
    "consistency": {"COMMITTEE": "augmented"},
    "discrepancy": {"COMMITTEE": "perturbed", "COMMITTEE_SIZE": 2},
}
# `make test` runs one for each kind of input: none, confidences, embeddings, votes of versions and of changed images.
QUICK = {"random", "class_entropy", "core_set", "bald", "consistency"}


@dataclass(frozen=True)
class QueueProject:
    """A project with two versions and some labels."""

    world: World
    project: int
    backend: int


@pytest.fixture(scope="module")
def queue_project(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueProject]:
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
        # The worker writes the title last. Label Studio saves whole rows, so a change at the same moment would be lost.
        await_true(lambda: f"v{LATEST}" in client.projects.backends(project)[0].title, "the title of the backend")
        yield QueueProject(world, project, backend)


def choose(queue_project: QueueProject, **extra: str | int) -> None:
    """Write the extra params of the backend, as an admin does in Label Studio; return when it has them."""
    world, project = queue_project.world, queue_project.project
    form = {"project": project, "url": world.url, "extra_params": json.dumps(extra)}
    world.client.http.send("PATCH", f"/api/ml/{queue_project.backend}", form)

    def is_stored() -> bool:
        world.client.projects.backends(project)  # Label Studio sends the params with each list, so the last are right
        record = world.store.project(project)
        return record is not None and json.loads(record.extra_params) == extra

    await_true(is_stored, f"the params {extra}", PATIENCE_S)


def ranked(queue_project: QueueProject, strategy: str, version: int = LATEST) -> bool:
    """Return whether Label Studio has the scores of a ranking by `strategy`."""
    order = queue_project.world.store.pools.ranking(queue_project.project, version)
    if order is None or order.strategy != strategy or queue_project.world.status(queue_project.project).scoring.total:
        return False
    stored = queue_project.world.scores(queue_project.project)
    expected = dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    return stored.keys() == expected.keys() and all(
        scores == [pytest.approx(expected[task_id])] for task_id, scores in stored.items()
    )


def await_ranked(queue_project: QueueProject, strategy: str, version: int = LATEST) -> None:
    """Wait until Label Studio has the scores of a ranking by `strategy`; fail with a description of the state."""
    goal = f"a ranking of version {version} by {strategy}"
    await_true(
        lambda: ranked(queue_project, strategy, version), goal, PATIENCE_S, lambda: described(queue_project, version)
    )


def described(queue_project: QueueProject, version: int) -> str:
    """Return a description of the ranking in the store and of the predictions in Label Studio."""
    world, project = queue_project.world, queue_project.project
    order, status = world.store.pools.ranking(project, version), world.status(project)
    wanted = {} if order is None else dict(zip(order.task_ids.tolist(), order.priority.tolist(), strict=True))
    unlabeled = {task.id for task in world.client.tasks.unlabeled(project)}
    lines = [
        f"the ranking in the store is by {order.strategy if order else 'nothing yet'}, of {len(wanted)} tasks",
        f"Label Studio shows {world.shown_version(project)!r} and counts {world.client.predictions.versions(project)}",
        f"{status.scoring!r}, ranking_error={status.ranking_error!r}, failures={status.failures}",
    ]
    for task in sorted(unlabeled | wanted.keys()):
        held = [(pred.id, pred.version, pred.score) for pred in world.client.predictions.of_task(task)]
        where = "in the queue" if task in unlabeled else "labeled"
        lines.append(f"task {task}, {where}: wanted {wanted.get(task)}, held (id, version, score) {held}")
    return "\n".join(lines)


def handed_out(queue_project: QueueProject) -> list[int]:
    """Return the order in which the queue hands out all tasks; afterwards they are unlabeled again."""
    client = queue_project.world.client
    order, annotations = [], []
    while (task := client.tasks.next(queue_project.project)) is not None:
        order.append(task.id)
        annotations.append(client.annotations.create(task.id, []))
    for annotation in annotations:
        client.annotations.delete(annotation)
    return order


def test_every_module_of_strategies_has_a_family() -> None:
    modules = {acquisition.get(name).function.__module__ for name in acquisition.names()}
    # tests/acquisition/test_mask_uncertainty.py and tests/loop/test_video_loop.py test these two with other models.
    of_boxes = modules - {"backend.acquisition.mask_uncertainty", "backend.acquisition.video_uncertainty"}
    assert {acquisition.get(name).function.__module__ for name in FAMILIES} == of_boxes


@pytest.mark.parametrize(
    "strategy", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_the_queue_is_in_the_order_of_the_scores(queue_project: QueueProject, strategy: str) -> None:
    choose(queue_project, STRATEGY=strategy, **FAMILIES[strategy])
    Jobs(queue_project.world.redis).once("start_scoring", queue_project.project)
    await_ranked(queue_project, strategy)
    order = queue_project.world.store.pools.ranking(queue_project.project, LATEST)
    assert order is not None
    by_score = [task for _, task in sorted(zip(order.priority.tolist(), order.task_ids.tolist(), strict=True))]
    assert len(by_score) == POOL - LABELED
    assert handed_out(queue_project) == by_score
    if strategy != "random":  # each of them gives images different values
        assert len(set(order.acquisition.tolist())) > 1


def test_a_preview_under_any_strategy_writes_nothing(queue_project: QueueProject) -> None:
    choose(queue_project, STRATEGY="entropy")
    queue_project.world.command("score", queue_project.project)
    await_ranked(queue_project, "entropy")
    before = queue_project.world.scores(queue_project.project)
    for strategy in ("bald", "ppal", "learning_loss"):
        shown = queue_project.world.command("rank", queue_project.project, "--strategy", strategy, "--dry-run")
        assert all(str(task) in shown for task in before)
    assert queue_project.world.scores(queue_project.project) == before
    assert ranked(queue_project, "entropy")


def test_the_queue_keeps_its_order_while_the_model_lacks_what_the_strategy_needs(
    queue_project: QueueProject, tmp_path: Path
) -> None:
    """YOLO26 has no DFL. Its version waits, and the status page shows the reason; then the strategy is changed."""
    world, project = queue_project.world, queue_project.project
    choose(queue_project, STRATEGY="localization")
    world.command("score", project)
    await_ranked(queue_project, "localization")
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
    choose(queue_project, STRATEGY="entropy")
    await_ranked(queue_project, "entropy", LATEST + 1)
    await_shown(world, project, f"yolo11n-v{LATEST + 1}")
    assert world.status(project).ranking_error == ""


def test_a_task_whose_label_is_deleted_is_back_in_the_queue(queue_project: QueueProject) -> None:
    """It was not in the pool of the ranking, because it was labeled."""
    world, project = queue_project.world, queue_project.project
    labeled = next(iter(world.client.annotations.annotated_tasks(project)))
    world.client.annotations.delete(labeled.annotation_id)
    task: Task = labeled.task

    def back() -> bool:
        scores = world.scores(project).get(task.id, [])
        return len(scores) == 1 and scores[0] is not None and 0 <= scores[0] <= 1

    await_true(back, "its score", PATIENCE_S, lambda: str(world.client.predictions.of_task(task.id)))
