"""The live loop with Label Studio, and its simulation: with the same seed, data and ids they pick the same images.

Both compute with one thread, as on a machine with one core, because more threads round sums differently.
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
class Scenario:
    """One project that a live loop and an experiment run."""

    strategy: str
    task: YoloTask
    tags: tuple[str, str]  # templates of the label config: the control tag, and one label
    draw: Callable[[Path], Path]  # draws the data set into a folder
    unranked: tuple[int, ...] = ()  # versions that cannot rank, so the queue keeps its order
    settings: Mapping[str, str] = field(default_factory=dict)


PUBLISHED = {"TOLERANCE": "1"}  # versions are published whatever their quality
SCENARIOS = {
    "boxes": Scenario("class_entropy", "detect", BOXES, scenes),
    "a choice": Scenario("margin", "classify", CHOICE, lambda folder: with_classes(folder, POOL), settings=PUBLISHED),
    "a committee": Scenario(
        *("bald", "detect", BOXES, scenes),
        unranked=(1,),  # a committee needs two versions
        settings={**PUBLISHED, "COMMITTEE": "snapshots", "COMMITTEE_SIZE": "2"},
    ),
}


@dataclass(frozen=True)
class Live:
    """The result of the live loop."""

    scenario: Scenario
    data: Path
    project: Project
    settings: Settings
    picked: tuple[tuple[int, ...], ...]  # task ids before each training, in the order of Label Studio's queue
    rankings: tuple[Ranking | None, ...]  # of each round; None: a version that could not rank
    versions: tuple[ModelVersion, ...]


@pytest.fixture(scope="module", params=SCENARIOS)
def live(
    request: pytest.FixtureRequest, label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory
) -> Live:
    """Annotate the tasks in the order of the queue, and wait for each training."""
    scenario = SCENARIOS[request.param]
    folder = tmp_path_factory.mktemp("live")
    place = scenario.draw(folder / "data")
    data = simulation_data.read(place, scenario.task)
    (folder / "models").mkdir()
    base = tiny_yolo(folder / "models" / weights_name("tiny.pt", scenario.task), data.classes, task=scenario.task)
    around, label = scenario.tags
    labels = around.format("".join(label.format(name) for name in data.classes))
    config = f'<View><Image name="image" value="$image"/>{labels}</View>'
    settings = {**SETTINGS, "STRATEGY": scenario.strategy, **scenario.settings, **one_core(folder)}
    with open_servers(label_studio, folder, settings) as servers:
        client = servers.client
        project = client.projects.create("live", config)
        client.tasks.upload_images(project, [file.path for file in data.pool])
        ids = {str(task.data["image"]).rpartition("-")[2]: task.id for task in client.tasks.unlabeled(project)}
        client.projects.attach_backend(project, servers.url, "yolo")
        tag = label_config.parse(config)[0]
        picked, rankings = [], []
        for number in range(ROUNDS):
            await_ranked(servers, project, f"{base.stem}-v{number}", is_unranked=number in scenario.unranked)
            rankings.append(servers.store.pools.ranking(project, number))
            picked.append(tuple(annotate_next(servers, project, tag, data) for _ in range(BATCH)))
        return Live(
            scenario=scenario,
            data=place,
            project=Project(id=project, task_ids=tuple(ids[file.path.name] for file in data.pool)),
            settings=servers.settings,
            picked=tuple(picked),
            rankings=tuple(rankings),
            versions=servers.store.versions(project)[: ROUNDS - 1],
        )


def one_core(folder: Path) -> dict[str, str]:
    """Return an environment in which Python reports one core."""
    (folder / "sitecustomize.py").write_text("import os\nos.cpu_count = lambda: 1\n")  # Python imports it first
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def await_ranked(servers: Servers, project: int, version: str, *, is_unranked: bool) -> None:
    """Wait until Label Studio's queue goes by a version; with `is_unranked`, until the version has failed to rank."""

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
        strategies=(live.scenario.strategy,),
        seeds=1,
        initial=BATCH,
        batch=BATCH,
        rounds=ROUNDS,
        out=out,
        jobs=1,
        project=live.project,
    )
    runner.run(order, live.settings, Console(quiet=True))
    return records.load_rounds(records.unit_folder(out, live.scenario.strategy, 0))


def test_the_same_images_are_picked_in_the_same_order(live: Live, simulated: tuple[Round, ...]) -> None:
    strategies = [ranking.strategy if ranking else "" for ranking in live.rankings]
    strategy = live.scenario.strategy
    assert strategies == ["random", *("" if number in live.scenario.unranked else strategy for number in (1, 2))]
    assert [tuple(pick.id for pick in finished.picked) for finished in simulated] == list(live.picked)


def test_the_order_of_the_whole_queue_is_the_same(live: Live, simulated: tuple[Round, ...]) -> None:
    for finished, ranking in zip(simulated, live.rankings, strict=True):
        assert bool(finished.unranked) is (ranking is None)
        if ranking is not None:
            order = ranking.task_ids[np.argsort(ranking.priority)].tolist()
            assert [*(pick.id for pick in finished.picked), *finished.order] == order
            random = {pick.id for pick in finished.picked if pick.random} | set(finished.explored)
            assert random == set(ranking.task_ids[ranking.explored].tolist())


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
