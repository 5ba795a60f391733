"""The live loop through Label Studio beside its simulation: the same seed, data and ids pick the same images.

Both compute with one thread, as on a machine with one core: with another number of them sums round differently.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.datasets import synthetic
from backend.model_versions import ModelVersion
from backend.settings import Settings
from backend.simulate import records, runner
from backend.simulate.records import Project, Round
from backend.subprocesses import LabelStudioProcess
from backend.types import Ranking
from tests.support import ROOT, tiny_yolo
from tests.world import World, await_shown, open_world

pytestmark = pytest.mark.label_studio

POOL, TEST, BATCH, ROUNDS = 30, 2, 6, 3
STRATEGY = "class_entropy"
SETTINGS = {
    "BASE_MODEL": "tiny.pt",
    "DEVICE": "cpu",
    "IMGSZ": "64",
    "RETRAIN_EVERY": str(BATCH),
    "STRATEGY": STRATEGY,
    "TRAIN_STEPS": "6",
    "MIN_EPOCHS": "1",
    "VAL_SHARE": "0.5",  # so that some of a few images are held out
    "SEED": "0",
}


@dataclass(frozen=True)
class Live:
    """What a live project did."""

    project: Project
    settings: Settings
    picked: tuple[tuple[int, ...], ...]  # as Label Studio's queue handed them out, before each training
    rankings: tuple[Ranking, ...]  # that the picks came from
    versions: tuple[ModelVersion, ...]


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.generate(tmp_path_factory.mktemp("scenes"), pool=POOL, test=TEST, seed=1, size=96)


@pytest.fixture(scope="module")
def live(label_studio: LabelStudioProcess, data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """An annotator takes what the queue hands out, and waits for each training."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "models").mkdir()
    tiny_yolo(folder / "models" / "tiny.pt", synthetic.CLASSES)
    with open_world(label_studio, folder, data_yaml, SETTINGS | one_core(folder)) as world:
        client = world.client
        project = client.create_project("live", world.config)
        client.upload_images(project, [file.path for file in world.data.train])
        ids = {str(task.data["image"]).rpartition("-")[2]: task.id for task in client.unlabeled_tasks(project)}
        client.attach_backend(project, world.url, "yolo")
        picked, rankings = [], []
        for number in range(ROUNDS):
            await_shown(world, project, f"tiny-v{number}")
            ranking = world.store.ranking(project, number)
            assert ranking is not None
            rankings.append(ranking)
            picked.append(tuple(annotate_next(world, project) for _ in range(BATCH)))
        return Live(
            project=Project(id=project, task_ids=tuple(ids[file.path.name] for file in world.data.train)),
            settings=world.settings,
            picked=tuple(picked),
            rankings=tuple(rankings),
            versions=world.store.versions(project)[: ROUNDS - 1],
        )


def one_core(folder: Path) -> dict[str, str]:
    """Return an environ in which Python believes to be on a machine with one core."""
    (folder / "sitecustomize.py").write_text("import os\nos.cpu_count = lambda: 1\n")  # imported before all else
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def annotate_next(world: World, project: int) -> int:
    task = world.client.next_task(project)
    assert task is not None
    world.annotate(task)
    return task.id


@pytest.fixture(scope="module")
def simulated(live: Live, data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, ...]:
    out = tmp_path_factory.mktemp("simulated") / "out"
    order = runner.Order(
        data=str(data_yaml),
        strategies=(STRATEGY,),
        seeds=1,
        initial=BATCH,
        batch=BATCH,
        rounds=ROUNDS,
        out=out,
        jobs=1,
        project=live.project,
    )
    runner.run(order, live.settings, Console(quiet=True))
    return records.load_rounds(records.unit_folder(out, STRATEGY, 0))


def test_the_same_images_are_picked_in_the_same_order(live: Live, simulated: tuple[Round, ...]) -> None:
    assert [ranking.strategy for ranking in live.rankings] == ["random", STRATEGY, STRATEGY]
    assert [tuple(pick.id for pick in one.picked) for one in simulated] == list(live.picked)


def test_the_whole_queue_is_the_same(live: Live, simulated: tuple[Round, ...]) -> None:
    for one, ranking in zip(simulated, live.rankings, strict=True):
        order = ranking.task_ids[np.argsort(ranking.priority)].tolist()
        assert [*(pick.id for pick in one.picked), *one.order] == order
        chance = {pick.id for pick in one.picked if pick.random} | set(one.explored)
        assert chance == set(ranking.task_ids[ranking.explored].tolist())


def test_every_version_is_the_same_to_the_last_bit_of_its_metrics(live: Live, simulated: tuple[Round, ...]) -> None:
    for one, version in zip(simulated, live.versions, strict=False):
        assert one.validation == version.metrics
        assert (one.published, one.held_out) == (version.promoted, is_held_out(version))


def is_held_out(version: ModelVersion) -> bool:
    return version.snapshot.val_tasks != version.snapshot.train_tasks
