from __future__ import annotations

from pathlib import Path

import pytest

from backend import acquisition
from backend.errors import ModelError, SettingError
from backend.simulate import simulation_task
from backend.types import YoloTask
from tests.support import tiny_yolo

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("data_task", "base", "task", "weights"),
    [
        (None, "yolo11n.pt", "detect", "yolo11n.pt"),
        (None, "yolo11n-obb.pt", "obb", "yolo11n-obb.pt"),
        (None, "yolo11s-seg.pt", "segment", "yolo11s-seg.pt"),
        ("detect", "yolo11n.pt", "detect", "yolo11n.pt"),
        ("classify", "yolo11n-cls.pt", "classify", "yolo11n-cls.pt"),
        ("classify", "yolo11n.pt", "classify", "yolo11n-cls.pt"),  # the default of the setting
        ("pose", "yolo26s.pt", "pose", "yolo26s-pose.pt"),
    ],
)
def test_the_base_model_tells_the_task_unless_the_data_does(
    data_task: YoloTask | None, base: str, task: YoloTask, weights: str, tmp_path: Path
) -> None:
    assert simulation_task.choose(data_task, base, tmp_path) == (task, weights)


@pytest.mark.parametrize("data_task", ["detect", "pose", "classify"])
def test_weights_of_a_third_task_are_refused(data_task: YoloTask, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"BASE_MODEL=yolo11n-seg.pt is a segmentation model") as caught:
        simulation_task.choose(data_task, "yolo11n-seg.pt", tmp_path)
    assert "yolo11n" in caught.value.fix


@pytest.mark.parametrize("data_task", [None, "pose", "classify"])
@pytest.mark.parametrize("base", ["yolo26n-sem.pt", "plain.pt"])
def test_there_are_no_experiments_with_classes_of_pixels(data_task: YoloTask | None, base: str, tmp_path: Path) -> None:
    tiny_yolo(tmp_path / "plain.pt", task="semantic")
    with pytest.raises(SettingError, match="semantic segmentation model, and simulate has no experiments"):
        simulation_task.choose(data_task, base, tmp_path)


def test_a_file_is_what_it_holds_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    tiny_yolo(tmp_path / "base" / "boxes-seg.pt")
    assert simulation_task.choose(None, "boxes-seg.pt", tmp_path) == ("detect", "boxes-seg.pt")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot read the weights"):
        simulation_task.choose(None, "broken.pt", tmp_path)


def test_weights_elsewhere_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    assert simulation_task.choose(None, "../broken.pt", tmp_path / "models")[0] == "detect"


@pytest.mark.parametrize(
    ("task", "without"),
    [("detect", {"shape"}), ("obb", {"shape"}), ("segment", set()), ("pose", set())],
)
def test_models_of_objects_serve_every_strategy_of_images_but_that_of_shapes(task: YoloTask, without: set[str]) -> None:
    refused = {"video", *without}
    simulation_task.check(set(acquisition.names()) - refused, task)
    for name in refused:
        with pytest.raises(SettingError, match=f"'{name}' needs"):
            simulation_task.check([name], task)


def test_classifiers_support_committees() -> None:
    simulation_task.check(["random", "bald"], "classify")


def test_usable_strategies_are_listed() -> None:
    with pytest.raises(SettingError, match="needs box_variance") as caught:
        simulation_task.check(["localization"], "classify")
    good = caught.value.fix.removeprefix("use some of ").split(", ")
    assert {"random", "class_entropy", "auto"} <= set(good)
    assert "localization" not in good
    simulation_task.check(good, "classify")
