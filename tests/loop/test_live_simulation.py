"""The live loop through Label Studio beside its simulation: the same seed, data and ids pick the same images.

Both compute with one thread, as on a machine with one core: with another number of them sums round differently.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import synthetic
from backend.labelstudio import label_config
from backend.loop.training.tag_training import CONTINUED
from backend.model_versions import ModelVersion
from backend.settings import Settings
from backend.simulate import records, runner, simulation_data
from backend.simulate.annotator import Oracle
from backend.simulate.records import Project, Round
from backend.simulate.simulation_data import SimulationData
from backend.types import ControlTag, Ranking, YoloTask
from backend.yolo.tasks import weights_name
from tests.simulate.test_simulation_tasks import with_classes
from tests.support import ROOT, tiny_yolo
from tests.world import Servers, await_true, open_servers

pytestmark = pytest.mark.label_studio

POOL, TEST, BATCH, ROUNDS = 30, 2, 6, 3
SETTINGS = {
    "BASE_MODEL": "tiny.pt",
    "DEVICE": "cpu",
    "IMGSZ": "64",
    "RETRAIN_EVERY": str(BATCH),
    "TRAIN_STEPS": "6",
    "MIN_EPOCHS": "1",
    "VAL_SHARE": "0.5",  # so that some of a few images are held out
    "SEED": "0",
}
BOXES = '<RectangleLabels name="label" toName="image">{}</RectangleLabels>', '<Label value="{}"/>'
CHOICE = '<Choices name="label" toName="image">{}</Choices>', '<Choice value="{}"/>'


def scenes(folder: Path) -> Path:
    return synthetic.generate(folder, pool=POOL, test=TEST, seed=1, size=96)


@dataclass(frozen=True)
class Story:
    """One project, which a live loop and an experiment run."""

    strategy: str
    task: YoloTask
    tags: tuple[str, str]  # of the label config: around all labels, and for each
    draw: Callable[[Path], Path]  # its data set
    unranked: tuple[int, ...] = ()  # versions that cannot rank, so the queue stays as it is
    settings: Mapping[str, str] = field(default_factory=dict)


PUBLISHED = {"TOLERANCE": "1"}  # whatever a version of six steps can do
STORIES = {
    "boxes": Story("class_entropy", "detect", BOXES, scenes),
    "a choice": Story("margin", "classify", CHOICE, lambda folder: with_classes(folder, POOL), settings=PUBLISHED),
    "a committee": Story(
        *("bald", "detect", BOXES, scenes),
        unranked=(1,),  # it takes two versions to disagree
        settings={**PUBLISHED, "COMMITTEE": "snapshots", "COMMITTEE_SIZE": "2"},
    ),
}


@dataclass(frozen=True)
class Live:
    """What a live project did."""

    story: Story
    data: Path
    project: Project
    settings: Settings
    picked: tuple[tuple[int, ...], ...]  # as Label Studio's queue handed them out, before each training
    rankings: tuple[Ranking | None, ...]  # that the picks came from; None: a version that could not rank
    versions: tuple[ModelVersion, ...]


@pytest.fixture(scope="module", params=STORIES)
def live(
    request: pytest.FixtureRequest, label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory
) -> Live:
    """An annotator takes what the queue hands out, and waits for each training."""
    story = STORIES[request.param]
    folder = tmp_path_factory.mktemp("live")
    place = story.draw(folder / "data")
    data = simulation_data.read(place, story.task)
    (folder / "models").mkdir()
    base = tiny_yolo(folder / "models" / weights_name("tiny.pt", story.task), data.classes, task=story.task)
    around, label = story.tags
    labels = around.format("".join(label.format(name) for name in data.classes))
    config = f'<View><Image name="image" value="$image"/>{labels}</View>'
    settings = {**SETTINGS, "STRATEGY": story.strategy, **story.settings, **one_core(folder)}
    with open_servers(label_studio, folder, settings) as servers:
        client = servers.client
        project = client.projects.create("live", config)
        client.tasks.upload_images(project, [file.path for file in data.pool])
        ids = {str(task.data["image"]).rpartition("-")[2]: task.id for task in client.tasks.unlabeled(project)}
        client.projects.attach_backend(project, servers.url, "yolo")
        tag = label_config.parse(config)[0]
        picked, rankings = [], []
        for number in range(ROUNDS):
            await_ranked(servers, project, f"{base.stem}-v{number}", is_unranked=number in story.unranked)
            rankings.append(servers.store.pools.ranking(project, number))
            picked.append(tuple(annotate_next(servers, project, tag, data) for _ in range(BATCH)))
        return Live(
            story=story,
            data=place,
            project=Project(id=project, task_ids=tuple(ids[file.path.name] for file in data.pool)),
            settings=servers.settings,
            picked=tuple(picked),
            rankings=tuple(rankings),
            versions=servers.store.versions(project)[: ROUNDS - 1],
        )


def one_core(folder: Path) -> dict[str, str]:
    """Return an environ in which Python believes to be on a machine with one core."""
    (folder / "sitecustomize.py").write_text("import os\nos.cpu_count = lambda: 1\n")  # imported before all else
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def await_ranked(servers: Servers, project: int, version: str, *, is_unranked: bool) -> None:
    """Wait until the queue goes by a version, or until the version is published and cannot rank."""

    def settled() -> bool:
        if not is_unranked:
            return servers.shown_version(project) == version
        status = servers.status(project)
        return bool(status.ranking_error) and status.versions[-1].version == version

    await_true(settled, f"{version} in project {project}", tell=lambda: str(servers.status(project)))


def annotate_next(servers: Servers, project: int, tag: ControlTag, data: SimulationData) -> int:
    task = servers.client.tasks.next(project)
    assert task is not None
    servers.client.annotations.create(task.id, Oracle(data.pool).answer(tag, task))
    return task.id


@pytest.fixture(scope="module")
def simulated(live: Live, tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, ...]:
    out = tmp_path_factory.mktemp("simulated") / "out"
    order = runner.Order(
        data=str(live.data),
        strategies=(live.story.strategy,),
        seeds=1,
        initial=BATCH,
        batch=BATCH,
        rounds=ROUNDS,
        out=out,
        jobs=1,
        project=live.project,
    )
    runner.run(order, live.settings, Console(quiet=True))
    return records.load_rounds(records.unit_folder(out, live.story.strategy, 0))


def test_the_same_images_are_picked_in_the_same_order(live: Live, simulated: tuple[Round, ...]) -> None:
    strategies = [ranking.strategy if ranking else "" for ranking in live.rankings]
    strategy = live.story.strategy
    assert strategies == ["random", *("" if number in live.story.unranked else strategy for number in (1, 2))]
    assert [tuple(pick.id for pick in finished.picked) for finished in simulated] == list(live.picked)


def test_the_whole_queue_is_the_same(live: Live, simulated: tuple[Round, ...]) -> None:
    for finished, ranking in zip(simulated, live.rankings, strict=True):
        assert bool(finished.unranked) is (ranking is None)
        if ranking is not None:
            order = ranking.task_ids[np.argsort(ranking.priority)].tolist()
            assert [*(pick.id for pick in finished.picked), *finished.order] == order
            chance = {pick.id for pick in finished.picked if pick.random} | set(finished.explored)
            assert chance == set(ranking.task_ids[ranking.explored].tolist())


def test_every_version_is_the_same_to_the_last_bit_of_its_metrics(live: Live, simulated: tuple[Round, ...]) -> None:
    for finished, version in zip(simulated, live.versions, strict=False):
        assert finished.validation == version.models[0].metrics
        assert (finished.published, finished.held_out) == (version.promoted, is_held_out(version))
        assert finished.reason in version.reason  # the live loop adds where the training started


def test_trainings_start_from_the_same_weights(live: Live, simulated: tuple[Round, ...]) -> None:
    parents = [version.parent if CONTINUED in version.reason else 0 for version in live.versions]
    assert [finished.started_from for finished in simulated[: ROUNDS - 1]] == parents


def is_held_out(version: ModelVersion) -> bool:
    return version.snapshot.val_tasks != version.snapshot.train_tasks
