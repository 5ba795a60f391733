"""Small end-to-end experiments with labels other than boxes: generated pictures, one step per training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from backend.datasets import writer
from backend.errors import RequestError
from backend.settings import Settings
from backend.simulate import records, report, runner, simulation_data, units
from backend.simulate.records import INITIAL, Results
from backend.simulate.runner import Order
from backend.types import YoloTask
from backend.yolo.runtime import quiet_ultralytics
from backend.yolo.tasks import RECIPES
from tests import drawings
from tests.support import tiny_yolo

pytestmark = pytest.mark.torch

POOL, TEST, START, BATCH = 12, 10, 6, 3  # a test split of fewer than 10 images judges nothing
DRAWN: dict[YoloTask, drawings.Draw] = {"obb": drawings.bar, "segment": drawings.donut, "pose": drawings.arrow}
STRATEGIES = ("class_entropy", "random")


def with_objects(root: Path, task: YoloTask) -> Path:
    """Draw a data set with two shapes in each picture; return its data.yaml."""
    root.mkdir()
    split = drawings.split(root / "pictures", DRAWN[task], POOL, TEST)
    details = {"kpt_shape": [2, 3], "flip_idx": [0, 1]} if task == "pose" else {}
    return writer.write(split, drawings.CLASSES, root, task, details)


def with_classes(root: Path, pool: int = POOL) -> Path:
    """Draw a data set in folders of classes, which differ in their colour; return its folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", pool), ("val", TEST)):
        for number in range(count):
            colour = drawings.CLASSES[number % 2]
            pixels = rng.normal(drawings.COLOURS[colour], 20, (30, 40, 3)).clip(0, 255).astype(np.uint8)
            path = root / split / colour / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def settings_for(folder: Path, base: str) -> Settings:
    return Settings(
        model_dir=str(folder),
        base_model=base,
        device="cpu",
        imgsz=64,
        train_steps=1,
        min_epochs=1,
        val_share=0.4,
        tolerance=1.0,  # what a version of one step can do is not asked here
    )


def order_for(data: Path, out: Path) -> Order:
    return Order(str(data), STRATEGIES, 1, START, BATCH, 2, out, 1)


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    """Undo the settings that a unit, normally in its own process, makes for all trainings of this process."""
    quiet_ultralytics()
    import torch
    from ultralytics.utils import torch_utils

    before = torch.get_num_threads(), torch_utils.NUM_THREADS
    yield
    torch.set_num_threads(before[0])
    torch_utils.NUM_THREADS = before[1]


def run(data: Path, folder: Path, base: str) -> tuple[Results, str]:
    """Run an experiment in this process; return its results and its page."""
    plan = runner.make_plan(order_for(data, folder / "out"), settings_for(folder, base), Console(quiet=True))
    records.save_plan(folder / "out", plan)
    for name in (INITIAL, *plan.strategies):
        units.run_unit(folder / "out", name, 0)
    results = runner.collect(folder / "out", plan)
    return results, report.render(results, simulation_data.read(Path(plan.data), plan.task))


@pytest.mark.usefixtures("threads_as_before")
@pytest.mark.parametrize("task", ["obb", "segment", "pose", "classify"])
def test_an_experiment_of_another_task(task: YoloTask, tmp_path: Path) -> None:
    weights = tiny_yolo(tmp_path / f"tiny{RECIPES[task].suffix}.pt", drawings.CLASSES, task=task)
    if task == "classify":
        results, page = run(with_classes(tmp_path / "data"), tmp_path, "tiny.pt")  # its counterpart is taken
        per_image = 1
    else:
        results, page = run(with_objects(tmp_path / "data", task), tmp_path, weights.name)
        per_image = 2
    plan = results.plan
    assert (plan.task, plan.quality, plan.base.source) == (task, RECIPES[task].quality, weights.name)
    assert [(row.strategy, row.images) for row in results.rows] == [
        (name, START + done * BATCH) for name in STRATEGIES for done in range(2)
    ]
    for row in results.rows:
        assert row.boxes == per_image * row.images
        assert 0 <= row.map50_95 <= row.map50 <= 1
        assert set(row.class_ap50) == set(drawings.CLASSES)
        assert (row.published, row.unranked) == (True, "")
        assert len(row.picked) == (START if row.round == 1 else BATCH)
    assert results.rows[1].score_s > 0  # so that the strategy did rank
    assert f"last {RECIPES[task].quality}" in page
    assert f"share of {RECIPES[task].labels}" in page
    assert ("boxes" in page) == (task == "obb")


# What is refused before anything is written


def refused(data: Path, folder: Path, base: str, **changed: object) -> RequestError:
    with pytest.raises(RequestError) as caught:
        runner.make_plan(
            replace(order_for(data, folder / "out"), **changed),  # type: ignore[arg-type]
            settings_for(folder, base),
            Console(quiet=True),
        )
    assert not (folder / "out").exists()
    return caught.value


def boxes_for(labels: Path) -> str:
    (labels / "train/3.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return f"{labels / 'train/3.txt'}, line 1"


@pytest.mark.parametrize("task", ["obb", "segment", "pose"])
def test_a_label_of_another_task_is_named(task: YoloTask, tmp_path: Path) -> None:
    data = with_objects(tmp_path / "data", task)
    where = boxes_for(tmp_path / "data/labels")
    error = refused(data, tmp_path, f"yolo11n{RECIPES[task].suffix}.pt")
    assert (error.where, error.what.startswith("not a")) == (where, True)


@pytest.mark.parametrize(
    ("base", "changed", "reason"),
    [
        ("yolo11n.pt", {"strategies": ("localization",)}, "strategy 'localization' needs box_variance"),
        ("yolo11n-seg.pt", {}, "segmentation model, and the data set is for classification"),
        ("yolo11n.pt", {"initial": 11}, "has 12 images, and the experiment labels 14"),
    ],
)
def test_unusable_class_folders_are_refused(base: str, changed: dict[str, object], reason: str, tmp_path: Path) -> None:
    assert reason in refused(with_classes(tmp_path / "data"), tmp_path, base, **changed).what


def test_generated_scenes_have_boxes(tmp_path: Path) -> None:
    assert "OBB model, and the data set is for detection" in refused(Path("scenes"), tmp_path, "yolo11n-obb.pt").what


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    data = with_objects(tmp_path / "data", "segment")
    for labels in (tmp_path / "data/labels/val").iterdir():
        labels.write_text("")
    assert refused(data, tmp_path, "yolo11n-seg.pt").what == "the test (or val) split has no outlines"
